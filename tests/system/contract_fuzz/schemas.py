"""Validation of responses against the schemas of the contract."""

from typing import Any

import jsonschema_rs

from orchestrator.api.routes.root import CONTRACT

COMPONENTS = {"schemas": CONTRACT["components"]["schemas"]}


def is_event(document: dict[str, Any]) -> bool:
    """True for a valid status, whose ETA and queue position may be missing, or for a deletion."""
    if document["status"] == "deleted":
        return document.keys() == {"job_id", "status"}
    estimates: dict[str, Any] = {}
    if document["status"] in ("queued", "running"):
        estimates["eta_seconds"] = None
    if document["status"] == "queued":
        estimates["queue_position"] = 1
    return fits("Status", estimates | document)


def fits(schema: str, document: Any) -> bool:
    """True if a document is valid against a schema of the contract."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": with_null(COMPONENTS)}
    return bool(jsonschema_rs.validator_for(whole).is_valid(document))


def with_null(schema: Any) -> Any:
    """Translate `nullable` of OpenAPI 3.0 to JSON Schema."""
    if isinstance(schema, list):
        return [with_null(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: with_null(each) for name, each in schema.items() if name != "nullable"}
    return {"anyOf": [inner, {"type": "null"}]} if schema.get("nullable") is True else inner
