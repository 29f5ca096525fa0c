"""The error codes that the service can return, extracted from its source code."""

import ast
import re
from collections.abc import Iterator

from orchestrator.api.middleware.errors import HTTP_ERRORS
from orchestrator.errors import AttemptError, TrackError
from tests.support.project import PROJECT

# The index of the error code among the arguments of each function.
CODE_ARGUMENT = {"RequestError": 0, "InputError": 0, "_error": 2}


def api_codes() -> set[str]:
    """Values of `code` in an error response of the API."""
    mapped = {each.code for each in HTTP_ERRORS.values() if each.code is not None}
    raised = _codes_passed_to("RequestError") | _codes_passed_to("InputError")
    return (mapped | raised | _codes_passed_to("_error") | media_codes()) - {"window_past_end"}


def job_codes() -> set[str]:
    """Values of `error_code` in the status of a job."""
    return {kind.code for kind in _kinds(AttemptError)} | model_codes()


def media_codes() -> set[str]:
    """Error codes for faults in a track."""
    return {kind.code for kind in TrackError.__subclasses__()}


def model_codes() -> set[str]:
    """Error codes with which the model handler rejects a request."""
    code = "".join(file.read_text() for file in (PROJECT / "handlers").rglob("*.py"))
    return set(re.findall(r'InvalidRequestError\(\s*"(\w+)"', code))


def _kinds(base: type[AttemptError]) -> Iterator[type[AttemptError]]:
    for kind in base.__subclasses__():
        yield from (kind, *_kinds(kind))


def _codes_passed_to(function: str) -> set[str]:
    codes = set()
    for call in _calls(function):
        code = call.args[CODE_ARGUMENT[function]]
        if isinstance(code, ast.Constant):
            codes.add(str(code.value))
        else:
            # A variable's value is a literal elsewhere, but a computed code would be missed.
            assert isinstance(code, ast.Name | ast.Attribute), (
                f"line {call.lineno}: {ast.unparse(call)} computes a code; write it as a literal"
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
