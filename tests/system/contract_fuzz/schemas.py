"""What the contract's schemas say of an answer."""

from typing import Any

import jsonschema_rs

from orchestrator.api.routes.root import CONTRACT

COMPONENTS = {"schemas": CONTRACT["components"]["schemas"]}


def is_event(document: dict[str, Any]) -> bool:
    """Whether it is a status, which of the past has no outlook, or says that the job is gone."""
    if document["status"] == "deleted":
        return document.keys() == {"job_id", "status"}
    outlook: dict[str, Any] = {}
    if document["status"] in ("queued", "running"):
        outlook["eta_seconds"] = None
    if document["status"] == "queued":
        outlook["queue_position"] = 1
    return fits("Status", outlook | document)


def fits(schema: str, document: Any) -> bool:
    """Whether a document is what a schema of the contract says."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": with_null(COMPONENTS)}
    return bool(jsonschema_rs.validator_for(whole).is_valid(document))


def with_null(schema: Any) -> Any:
    """OpenAPI 3.0's `nullable` as JSON Schema has it."""
    if isinstance(schema, list):
        return [with_null(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: with_null(each) for name, each in schema.items() if name != "nullable"}
    return {"anyOf": [inner, {"type": "null"}]} if schema.get("nullable") is True else inner
