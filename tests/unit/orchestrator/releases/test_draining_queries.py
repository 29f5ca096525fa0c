"""Queries for the uses of a model version, against any kind of server at the address."""

import json
import time
from threading import Event

import pytest

from orchestrator.releases import draining
from orchestrator.releases.draining import uses_at
from tests.support.ports import free_ports
from tests.support.quick_torchserve import responding

HTML = b"<!DOCTYPE html>\n<html><head><title>Home</title></head><body>a = 1\n</body></html>\n"


def uses_for(status: int, body: bytes) -> list[str]:
    """The uses of version "old" according to this response, with the address abbreviated."""
    with responding(lambda method, path: (status, body) if path == "/in-flight" else None) as url:
        return [use.replace(url, "URL") for use in uses_at(url, "old")]


def body_of(in_flight: int, pinned: int | None = 0, database: bool = True) -> bytes:
    """The response of an orchestrator that also uses version "new"."""
    versions = {"new": {"in_flight": 7, "pinned": 7 if database else None}}
    if in_flight or pinned:
        versions["old"] = {"in_flight": in_flight, "pinned": pinned}
    return json.dumps({"database": database, "model_versions": versions}).encode()


def test_an_unused_version_has_no_uses() -> None:
    assert uses_for(200, body_of(0)) == []


def test_running_requests_and_pinned_jobs_are_uses() -> None:
    assert uses_for(200, body_of(2, 3)) == [
        "2 requests are in progress at URL",
        "3 jobs request it by name at URL",
    ]


def test_pinned_jobs_are_unknown_without_the_database() -> None:
    unknown = "jobs at URL that request it by name cannot be counted: database unreachable"
    assert uses_for(200, body_of(0, None, database=False)) == [unknown]
    assert uses_for(200, body_of(2, None, database=False)) == [
        "2 requests are in progress at URL",
        unknown,
    ]


def test_an_orchestrator_of_an_earlier_version_counts_as_a_use() -> None:
    assert uses_for(
        404, b'{"detail": "The path /in-flight does not exist", "code": "not_found"}'
    ) == [
        "usage by URL is unknown: it runs an earlier version of MusicLab, or a proxy hides "
        "/in-flight"
    ]


@pytest.mark.parametrize("status", [500, 503])
def test_an_orchestrator_that_returns_an_error_counts_as_a_use(status: int) -> None:
    assert uses_for(status, b'{"code": "busy"}') == [f"usage by URL is unknown: {status}"]


def test_an_orchestrator_that_hangs_counts_as_a_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "TIMEOUT_S", 0.05)
    over = Event()
    with responding(lambda method, path: (200, b"") if over.wait(10) else None) as url:
        (use,) = uses_at(url, "old")
        over.set()
    assert use.startswith(f"usage by {url} is unknown: ")
    assert "timed out" in use


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(200, HTML, id="HTML"),
        pytest.param(404, HTML, id="HTML 404"),
        pytest.param(404, b'{"detail": "Not Found"}', id="JSON"),
        pytest.param(200, b"", id="empty"),
        pytest.param(200, b"\x89PNG\r\n\x1a\n\x00", id="an image"),
        pytest.param(404, b'{"code": 404}', id="JSON with another code"),
        pytest.param(400, b'{"code": "not_found"}', id="another status"),
        pytest.param(200, b'{"status": "ok"}', id="JSON 200"),
        pytest.param(200, b'{"model_versions": ["old"]}', id="other versions"),
        pytest.param(200, b'{"model_versions": {"old": 1}}', id="other versions by name"),
        pytest.param(
            200, b'{"database": true, "model_versions": {"old": 1}}', id="versions by number"
        ),
        pytest.param(200, b'["old"]', id="a list"),
        pytest.param(200, b"# TYPE up gauge\nup 1\n", id="metrics of another program"),
    ],
)
def test_another_program_on_the_port_is_not_a_use(status: int, body: bytes) -> None:
    assert uses_for(status, body) == []


def test_a_closed_port_has_no_uses() -> None:
    (port,) = free_ports(1)
    began = time.monotonic()
    assert uses_at(f"http://127.0.0.1:{port}", "old") == []
    assert time.monotonic() - began < draining.TIMEOUT_S


def test_an_invalid_address_is_reported() -> None:
    (use,) = uses_at("orchestrator", "old")
    assert use.startswith("usage by orchestrator is unknown: Invalid URL")
