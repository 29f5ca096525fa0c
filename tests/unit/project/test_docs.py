"""What the README says is what there is."""

from collections.abc import Iterator
from typing import Any

import yaml
from pydantic_core import PydanticUndefined

from orchestrator.api.routes.root import CONTRACT
from orchestrator.settings import PREFIX, Settings
from tests.support.error_codes import api_codes, job_codes, model_codes
from tests.support.project import PROJECT
from tests.support.readme import documented_metrics, rows


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {row[0].strip(): row[1] for row in rows("Configuration")}
    actual = {}
    for name, field in Settings.model_fields.items():
        assert field.default is not PydanticUndefined
        default = str(field.default).removeprefix(f"{PROJECT}/")
        actual[PREFIX + name.upper()] = default
    assert documented == actual


def test_every_route_is_documented() -> None:
    documented = {row[0].strip() for row in rows("Make music")}
    assert documented == {
        f"{method.upper()} {path}"
        for path, methods in CONTRACT["paths"].items()
        for method in methods
        if method != "parameters"
    }


def test_every_error_code_of_the_api_is_documented_with_its_status() -> None:
    documented = {(row[0].strip(), row[1]) for row in rows("Errors") if len(row) == 3}
    assert documented - EVERYWHERE == set(contract_codes())
    assert {code for code, _ in documented} == api_codes()


def test_every_error_code_of_jobs_is_documented() -> None:
    documented = {row[0].strip() for row in rows("Errors") if len(row) == 2}
    assert documented | model_codes() == job_codes()


def test_every_error_code_of_the_model_is_documented() -> None:
    documented = {row[0].strip() for row in rows("The model by itself")}
    assert documented - set(FIELDS) == model_codes()
    assert len(documented) > 10


def test_every_metric_of_the_model_is_documented() -> None:
    """Those of a GPU too, which a server without one does not tell; for all others see
    test_monitoring.
    """
    declared = yaml.safe_load((PROJECT / "metrics.yaml").read_text())["model_metrics"]
    assert documented_metrics("Of the model") == {
        metric["name"]: (kind, tuple(sorted(metric["dimensions"])))
        for kind, metrics in declared.items()
        for metric in metrics
        if metric["name"].startswith("musiclab_")
    }


def contract_codes() -> Iterator[tuple[str, str]]:
    """Every error code of the contract and the status that it comes with."""
    for methods in CONTRACT["paths"].values():
        for method, operation in methods.items():
            if method != "parameters":
                for status, response in operation["responses"].items():
                    for code in codes_in(response):
                        yield code, status


def codes_in(response: dict[str, Any]) -> list[str]:
    if "$ref" in response:
        response = CONTRACT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return [
        code
        for part in schema.get("allOf", ())
        for code in part.get("properties", {}).get("code", {}).get("enum", ())
    ]


# What any path may answer, which the contract's description tells of once.
EVERYWHERE = {
    ("not_found", "404"),
    ("method_not_allowed", "405"),
    ("unsupported_content_encoding", "415"),
    ("internal_error", "500"),
}
FIELDS = ("track1, track2", "start_time_1, start_time_2")
