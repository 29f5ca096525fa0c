"""The error codes that the code can answer with, read from the code."""

import ast
import re
from collections.abc import Iterator

from orchestrator.api.middleware.errors import HTTP_ERRORS
from orchestrator.errors import AttemptError, TrackError
from tests.support.project import PROJECT

# Where each of these has the code among its arguments.
GIVEN_TO = {"RequestError": 0, "InputError": 0, "_error": 2}


def api_codes() -> set[str]:
    """What `code` can be in an answer of the API."""
    mapped = {each.code for each in HTTP_ERRORS.values() if each.code is not None}
    given = _given("RequestError") | _given("InputError") | _given("_error")
    return (mapped | given | media_codes()) - {"window_past_end"}


def job_codes() -> set[str]:
    """What `error_code` can be in the status of a job."""
    return {kind.code for kind in _kinds(AttemptError)} | model_codes()


def media_codes() -> set[str]:
    """What is found at fault with a track."""
    return {kind.code for kind in TrackError.__subclasses__()}


def model_codes() -> set[str]:
    """What the model finds at fault with a request."""
    code = "".join(file.read_text() for file in (PROJECT / "handlers").rglob("*.py"))
    return set(re.findall(r'InvalidRequestError\(\s*"(\w+)"', code))


def _kinds(base: type[AttemptError]) -> Iterator[type[AttemptError]]:
    for kind in base.__subclasses__():
        yield from (kind, *_kinds(kind))


def _given(function: str) -> set[str]:
    codes = set()
    for call in _calls(function):
        code = call.args[GIVEN_TO[function]]
        if isinstance(code, ast.Constant):
            codes.add(str(code.value))
        else:
            # Handed on; a code that is made up in place would be seen nowhere.
            assert isinstance(code, ast.Name | ast.Attribute), (
                f"line {call.lineno}: {ast.unparse(call)} makes up a code; write it out"
            )
    return codes


def _calls(function: str) -> Iterator[ast.Call]:
    for module in (PROJECT / "orchestrator").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and _name(node.func) == function:
                yield node


def _name(function: ast.expr) -> str | None:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None
