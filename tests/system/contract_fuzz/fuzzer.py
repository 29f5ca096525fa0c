"""Sends valid and invalid requests, and records responses that violate the contract.

Schemathesis generates the requests from openapi.yaml and checks every response against it. The
forms with tracks are generated in cases.py: the API derives the format of a track from the file
name of its part, which a contract cannot describe. Accepted jobs are queried, followed, downloaded
and deleted.
"""

import itertools
import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from orchestrator.api.routes.root import CONTRACT
from orchestrator.settings import Settings
from tests.support.service import Service, running
from tests.system.contract_fuzz.cases import Part, drawn, forms, make_tracks
from tests.system.contract_fuzz.report import Report
from tests.system.contract_fuzz.schemas import fits, is_event

RESPONSE_CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
KEY = "the key of this run"
TIMEOUT_S = 60
STREAM_S = 1.0  # duration for which an event stream is read
JOB_KINDS = ("status", "events", "download", "cleanup")
OTHER_PATHS = (
    *("/", "/health", "/ready", "/metrics", "/in-flight"),
    *("/api/models", "/openapi.json", "/docs"),
)
VALID_KEYS = [{"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}]
INVALID_KEYS = [{}, {"X-API-Key": "another"}, {"Authorization": "Basic dTpw"}]
ACCEPTED = ["*/*", "application/json", "text/html,*/*;q=0.8"]
IDEMPOTENCY_KEYS = ["first", "second", "third", "fourth", "", "é", "x" * 255, "x" * 256]
CONDITIONS = {
    "Range": ["bytes=0-99", "bytes=-5", "bytes=100-", "bytes=9999999-", "bytes=5-1", "bytes=a-b"],
    "If-Range": ['"{}"', '"another"'],
    "If-None-Match": ['"{}"', "*", '"another"', 'W/"{}"'],
}
FINAL = ("completed", "failed", "deleted")

# The share of each kind of case. Jobs are rarely deleted, so that many exist.
SHARES = {
    "form": 0.34,
    "check": 0.06,
    "generate": 0.06,
    "status": 0.12,
    "events": 0.08,
    "download": 0.12,
    "cleanup": 0.04,
    "other": 0.11,
    "chat": 0.01,
    "unknown route": 0.06,
}


class Fuzzer:
    """Sends requests to one service and records violations.

    Args:
        service: a service without limits, with KEY as its API key.
        folder: directory for tracks.
    """

    def __init__(self, service: Service, folder: Path) -> None:
        self.report = Report()
        self._url = service.url
        self._session = requests.Session()
        self._schema = schemathesis.openapi.from_dict(CONTRACT)
        tracks = make_tracks(folder)
        # The window of the second job starts past the end of its tracks, so that the job fails.
        self._jobs = [submit(service, tracks[".wav"], start) for start in ("0", "7")]
        for job_id in self._jobs:
            service.finished(job_id)
        self._forms = forms(tracks, service.call("GET", "/health").json()["model_version"])
        self._random = random.Random()  # noqa: S311

    def run(self, cases: int, seed_number: int) -> Report:
        """Send about `cases` requests, in an order determined by the seed."""
        self._random.seed(seed_number)
        plan = []
        for kind, share in SHARES.items():
            wanted = max(1, round(share * cases))
            values = drawn(self._cases(kind), wanted, seed_number)
            # Some kinds have fewer distinct cases, which are repeated.
            plan += [(kind, each) for each in itertools.islice(itertools.cycle(values), wanted)]
        self._random.shuffle(plan)
        with self._session:
            for kind, case in plan:
                if kind == "form":
                    self._generate(case)
                elif kind == "check" and isinstance(case, tuple):
                    self._check(*case)
                elif kind == "unknown route":
                    self._unknown_route(*case)
                else:
                    self._send(kind, case)
        return self.report

    def _cases(self, kind: str) -> st.SearchStrategy[Any]:
        if kind == "form":
            return self._forms
        if kind == "unknown route":
            paths = [*CONTRACT["paths"], "/nothing", "/api/x", "/api//x"]
            methods = ["PUT", "PATCH", "POST", "DELETE", "OPTIONS"]
            return st.tuples(st.sampled_from(methods), st.sampled_from(paths)).filter(
                lambda route: route[0].lower() not in CONTRACT["paths"].get(route[1], {})
            )
        if kind == "check":
            one = self._forms.map(lambda parts: parts[:1])
            sent = st.tuples(st.sampled_from(["track1", "track1", "track2", "track3"]), one)
            return sent | self._requests("GET", "/api/check/{track}")
        if kind == "other":
            return st.one_of([self._requests("GET", path) for path in OTHER_PATHS])
        if kind in JOB_KINDS:
            return self._requests(
                "DELETE" if kind == "cleanup" else "GET", f"/api/{kind}/{{job_id}}"
            )
        return self._requests("POST", f"/api/{kind}")

    def _requests(self, method: str, path: str) -> st.SearchStrategy[Any]:
        """Schemathesis cases of an operation; also invalid ones if it has parameters or a body."""
        operation = self._schema[path][method]
        valid = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        if not (list(operation.iter_parameters()) or operation.body):
            return valid
        return valid | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    def _generate(self, parts: list[Part]) -> None:
        """Send a form with tracks, sometimes with one of IDEMPOTENCY_KEYS."""
        case = self._schema["/api/generate"]["POST"].Case()
        if self._random.random() < 0.2:
            case.headers["Idempotency-Key"] = self._random.choice(IDEMPOTENCY_KEYS)
        response = self._call("generate", case, files=parts)
        if response is not None and response.status_code == 202:
            self._jobs.append(response.json()["job_id"])

    def _check(self, track: str, parts: list[Part]) -> None:
        """Check a track by its content."""
        case = self._schema["/api/check/{track}"]["POST"].Case(path_parameters={"track": track})
        self._call("check content", case, files=parts)

    def _send(self, kind: str, case: Any) -> None:
        """Send a request; a job id in its path is usually that of an existing, often recent job."""
        if kind in JOB_KINDS and self._random.random() < 0.9:
            some = self._jobs[-3:] if self._random.random() < 0.4 else self._jobs
            case.path_parameters["job_id"] = job_id = self._random.choice(some)
            for name, values in CONDITIONS.items() if kind == "download" else ():
                if self._random.random() < 0.3:
                    case.headers[name] = self._random.choice(values).format(job_id)
        response = self._call(kind, case, timeout=STREAM_S if kind == "events" else TIMEOUT_S)
        if response is not None and response.status_code == 200:
            self._check_content(kind, response)

    def _unknown_route(self, method: str, path: str) -> None:
        """Request an unknown path or method; the contract specifies the response only in prose."""
        response = self._session.request(
            method, self._url + path.format(job_id="x", track="track1"), timeout=TIMEOUT_S
        )
        self.report.statuses["unknown route", response.status_code] += 1
        expected = ("method_not_allowed", 405) if path in CONTRACT["paths"] else ("not_found", 404)
        is_json = response.headers.get("Content-Type", "").startswith("application/json")
        document = response.json() if is_json else {}
        if (document.get("code"), response.status_code) != expected or not fits("Error", document):
            self._record(f"{method} {path}: {response.status_code} {response.text[:200]}")
        if response.status_code == 405 and not response.headers.get("Allow"):
            self._record(f"{method} {path}: 405 without Allow")

    def _call(self, kind: str, case: Any, **arguments: Any) -> Any:
        arguments.setdefault("timeout", TIMEOUT_S)
        case.headers.update(self._random.choice(VALID_KEYS * 10 + INVALID_KEYS))
        case.headers["Accept"] = self._random.choice(ACCEPTED)
        try:
            response = case.call(base_url=self._url, session=self._session, **arguments)
        except UnicodeEncodeError:
            return None  # cannot be sent over HTTP
        self.report.statuses[kind, response.status_code] += 1
        checks = RESPONSE_CHECKS
        if kind in ("generate", "events", "check"):
            checks = [*RESPONSE_CHECKS, negative_data_rejection]
        try:
            case.validate_response(response, checks=checks)
        except FailureGroup as failures:
            self._record(str(failures))
        return response

    def _check_content(self, kind: str, response: Any) -> None:
        """Check parts of a response that its schema in the contract does not cover."""
        if kind == "status":
            self.report.states[response.json()["status"]] += 1
        elif kind == "events":
            documents = [
                json.loads(line) for line in re.findall("^data: (.*)$", response.text, re.MULTILINE)
            ]
            for document in documents:
                self.report.states[f"event {document['status']}"] += 1
                if not is_event(document):
                    self._record(f"invalid event: {document}")
            if any(document["status"] in FINAL for document in documents[:-1]):
                self._record(f"events after the final one: {documents}")

    def _record(self, violation: str) -> None:
        self.report.violations.append(violation)


def submit(service: Service, wav: bytes, start: str) -> str:
    """Submit a job and return its id."""
    response = service.call(
        "POST",
        "/api/generate",
        files={"track1": ("x.wav", wav), "track2": ("x.wav", wav)},
        data={"start_time": start},
        headers={"X-API-Key": KEY},
    )
    assert response.status_code == 202, response.text
    return str(response.json()["job_id"])


@contextmanager
def unlimited_service(settings: Settings) -> Iterator[Service]:
    """`musiclab up` without limits; requests need the API key KEY."""
    limits = {"rate_limit": 0, "max_queued": 0, "max_stored_gb": 0}
    chosen = limits | {"api_keys": KEY, "grace_s": 0}
    unlimited = settings.model_copy(update=chosen)
    with running(unlimited, "up"):
        yield Service(unlimited)
