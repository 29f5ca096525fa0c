"""openapi.yaml, the README and the code tell of the same routes and error codes."""

import re
from pathlib import Path

from orchestrator.app import create_app
from orchestrator.routes.service import CONTRACT
from orchestrator.settings import PROJECT, Settings

README = (PROJECT / "README.md").read_text()


def operations() -> set[tuple[str, str]]:
    """Every method and path that the application serves, without assets and HEAD."""
    return {
        (route.method, route.resource.canonical)
        for route in create_app(Settings()).router.routes()
        if route.resource is not None
        and route.method != "HEAD"
        and not route.resource.canonical.startswith("/docs/")
    }


def test_the_contract_has_every_route_and_no_other() -> None:
    documented = {
        (method.upper(), path)
        for path, methods in CONTRACT["paths"].items()
        for method in methods
        if method != "parameters"
    }
    # A static folder is a route of its own without a method in its name.
    assert documented == {operation for operation in operations() if operation[1] != "/docs/"}


def test_the_readme_has_every_route() -> None:
    for method, path in operations():
        assert f"`{method} {path}`" in README.replace(", `GET", "` `GET"), f"{method} {path}"


def test_the_contract_has_every_error_code() -> None:
    contract = (PROJECT / "orchestrator" / "openapi.yaml").read_text()
    code = "".join(file.read_text() for file in Path(PROJECT, "orchestrator").rglob("*.py"))
    raised = set(re.findall(r'RequestError\(\s*"(\w+)"', code))
    assert len(raised) >= 10
    for name in raised | {"too_many_attempts"}:
        assert f"`{name}`" in contract, name
