"""Monitoring: Prometheus scrapes a running MusicLab; the alerts and the dashboard are valid."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.documentation import DOCS, documented_metrics, rows
from tests.support.prometheus import DEPLOY, Prometheus, prometheus_server, promtool
from tests.support.service import TIMEOUT_S, Service
from tests.support.signals import RATE, encoded, noise

DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "musiclab.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
# Metrics with this prefix are not exported on a machine without a GPU.
GPU_METRICS = "musiclab_gpu_memory_"
# Labels that Prometheus and TorchServe add to every series.
ADDED_LABELS = {"__name__", "instance", "job", "le", "Hostname"}

SECTIONS = {"orchestrator": "Metrics of the orchestrator", "torchserve": "Metrics of the model"}


@pytest.fixture(scope="module")
def addresses(service: Service) -> dict[str, str]:
    """The address of each Prometheus scrape job."""
    settings = service.settings
    return {
        "orchestrator": f"127.0.0.1:{settings.api_port}",
        "torchserve": f"127.0.0.1:{settings.metrics_port}",
    }


@pytest.fixture(scope="module")
def served(service: Service, addresses: dict[str, str]) -> dict[str, str]:
    """The text of /metrics of each scrape job, after one MusicLab job."""
    run_job(service)
    return {
        job: requests.get(f"http://{address}/metrics", timeout=TIMEOUT_S).text
        for job, address in addresses.items()
    }


@pytest.fixture(scope="module")
def prometheus(
    service: Service,
    addresses: dict[str, str],
    served: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Prometheus]:
    """A Prometheus server that has scraped a completed job, a failed job and a rejected request."""
    assert served  # all series exist at the first scrape, and grow after it
    with prometheus_server(tmp_path_factory.mktemp("prometheus"), addresses) as server:
        server.wait_for_scrapes(2)
        run_job(service)
        failed = run_job(service, start_time_1="600")
        assert failed["error_code"] == "window_past_end"
        assert service.generate({}).status_code == 400
        server.wait_for_scrapes(2)
        yield server


def run_job(service: Service, **times: str) -> dict[str, Any]:
    """Runs a job and returns its final status."""
    files = {f"track{n}": (f"{n}.wav", encoded(noise(RATE, seed=n))) for n in (1, 2)}
    accepted = service.generate(files, **times)
    assert accepted.status_code == 202, accepted.text
    return service.finished(accepted.json()["job_id"])


def has_gpu(service: Service) -> bool:
    return bool(service.call("GET", "/health").json()["device"] != "cpu")


def musiclab_metrics(text: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Returns the type and the labels of each MusicLab metric that has samples in `text`."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            tuple(
                sorted({name for sample in family.samples for name in sample.labels} - ADDED_LABELS)
            ),
        )
        for family in text_string_to_metric_families(text)
        if family.name.startswith("musiclab_") and family.samples
    }


@pytest.mark.parametrize("job", SECTIONS)
def test_exactly_the_exported_metrics_are_documented(
    service: Service, served: dict[str, str], job: str
) -> None:
    documented = documented_metrics(SECTIONS[job])
    if not has_gpu(service):
        documented = {name: what for name, what in documented.items() if GPU_METRICS not in name}
    assert musiclab_metrics(served[job]) == documented


@pytest.mark.parametrize("job", SECTIONS)
def test_prometheus_has_every_documented_metric(
    service: Service, prometheus: Prometheus, job: str
) -> None:
    for name, (kind, labels) in documented_metrics(SECTIONS[job]).items():
        if GPU_METRICS in name and not has_gpu(service):
            continue
        stored = name + "_bucket" if kind == "histogram" else name
        series = prometheus.series(f'{stored}{{job="{job}"}}')
        assert series, f"Prometheus has no {stored}"
        assert {label for each in series for label in each} - ADDED_LABELS == set(labels), name


@pytest.mark.parametrize("job", SECTIONS)
def test_metrics_follow_the_conventions_of_prometheus(served: dict[str, str], job: str) -> None:
    """Metrics of TorchServe itself are not checked: their names are not under our control."""
    lines = served[job].splitlines(keepends=True)
    of_torchserve = re.compile(r"(# (HELP|TYPE) )?(?!musiclab_)\w")
    if job == "torchserve":
        lines = [line for line in lines if not of_torchserve.match(line)]
    assert len(lines) > 50
    promtool("check", "metrics", text="".join(lines))


def test_configuration_and_alerts_are_valid() -> None:
    promtool("check", "config", DEPLOY / "prometheus.yml")
    promtool("check", "rules", DEPLOY / "alerts.yml")
    promtool("test", "rules", DEPLOY / "alerts_test.yml")


def test_every_alert_is_documented_and_tested_both_firing_and_silent() -> None:
    expected: dict[str, set[bool]] = {rule["alert"]: set() for rule in RULES}
    for test in yaml.safe_load((DEPLOY / "alerts_test.yml").read_text())["tests"]:
        for case in test["promql_expr_test"]:
            for name in expected:
                if re.search(rf"\b{name}\b", case["expr"]):
                    expected[name].add(bool(case["exp_samples"]))
    documented = {row[0]: row[1] for row in rows(DOCS / "operations.md", "Alerts")}
    assert documented == {rule["alert"]: rule["labels"]["severity"] for rule in RULES}
    for rule in RULES:
        assert expected[rule["alert"]] == {True, False}, (
            f"{rule['alert']} lacks a test that it fires, or that it does not"
        )
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert len(rule["annotations"]["summary"]) < 80
        assert len(rule["annotations"]["description"]) > 80


def test_every_alert_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    evaluated = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in evaluated} == {rule["alert"] for rule in RULES}
    for rule in evaluated:
        assert rule["health"] == "ok", rule


def test_every_query_of_the_dashboard_returns_data(
    service: Service, prometheus: Prometheus
) -> None:
    queries = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    }
    empty = set()
    for name, expression in queries.items():
        samples = prometheus.query(expression.replace("$__rate_interval", "1m"))
        values = [float(sample["value"][1]) for sample in samples]
        if not any(math.isfinite(value) for value in values):
            empty.add(name)
    assert empty == (set() if has_gpu(service) else {"GPU memory in use A"})


def test_the_dashboard_uses_the_provisioned_datasource_with_units_and_legends() -> None:
    provisioned = yaml.safe_load(
        (DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )
    (datasource,) = provisioned["datasources"]
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", datasource["type"])
    assert variable["current"]["value"] == datasource["uid"]
    assert [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"] == [
        "Are users waiting?",
        "Why?",
        "Which version?",
        "Is the GPU, the disk or the CPU saturated?",
    ]
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            for target in panel["targets"]:
                assert target["datasource"]["uid"] == f"${{{variable['name']}}}"
                assert target["legendFormat"], panel["title"]
                labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                grouped = re.findall(r"\bby \(([\w, ]+)\)", target["expr"])
                if grouped:
                    assert labels <= set(re.findall(r"\w+", grouped[0])), panel["title"]
