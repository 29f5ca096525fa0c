"""openapi.yaml documents exactly the routes and error codes that the code defines."""

from collections.abc import Iterator
from typing import Any

from orchestrator.api.app import create_app
from orchestrator.api.routes.root import CONTRACT
from orchestrator.settings import Settings
from tests.support.error_codes import api_codes, job_codes

# Errors that any path may return; the contract's description lists them once.
EVERYWHERE = {
    "not_found",
    "method_not_allowed",
    "unsupported_content_encoding",
    "internal_error",
}


def operations() -> set[tuple[str, str]]:
    """All methods and paths of the application, except HEAD and the page's files."""
    return {
        (route.method, route.resource.canonical)
        for route in create_app(Settings()).router.routes()
        if route.resource is not None
        and route.method != "HEAD"
        and not f"{route.resource.canonical}/".startswith(("/docs/", "/assets/", "/{file}/"))
    } | {("GET", "/docs")}


def test_the_contract_has_every_route_and_no_other() -> None:
    documented = {
        (method.upper(), path)
        for path, methods in CONTRACT["paths"].items()
        for method in methods
        if method != "parameters"
    }
    assert documented == operations()


def test_the_contract_has_every_error_code_and_no_other() -> None:
    documented = {
        code
        for path, schema in mappings(CONTRACT)
        if path.endswith("/properties/code")
        for code in schema.get("enum", ())
    }
    assert documented | EVERYWHERE == api_codes()
    for code in EVERYWHERE:
        assert f"`{code}`" in CONTRACT["info"]["description"], code


def test_the_contract_has_every_error_code_of_jobs_and_no_other() -> None:
    documented = CONTRACT["components"]["schemas"]["Status"]["properties"]["error_code"]["enum"]
    assert set(documented) == job_codes()


def test_objects_allow_only_documented_fields() -> None:
    loose = [
        path
        for path, schema in mappings(CONTRACT)
        if schema.get("type") == "object"
        and "properties" in schema
        and "additionalProperties" not in schema
    ]
    assert not loose, "these objects allow any field; add additionalProperties: false"


def mappings(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping in a part of the contract, with its path."""
    if isinstance(node, dict):
        yield path, node
        for name, inner in node.items():
            yield from mappings(inner, f"{path}/{name}")
    elif isinstance(node, list):
        for inner in node:
            yield from mappings(inner, path)
