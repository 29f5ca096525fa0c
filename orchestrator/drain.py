"""Asks orchestrators who is still waiting for a version of the model."""

import requests
from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 10.0
# Samples of an orchestrator's /metrics, each of which has the label model_version.
USES = {
    "musiclab_inference_requests_in_flight": "requests are at work",
    "musiclab_jobs_pinned": "jobs asked for it by name",
}


def users_of(url: str, version: str) -> list[str]:
    """What an orchestrator is still doing with a version, in words; nothing if it is away."""
    try:
        answer = requests.get(f"{url}/metrics", timeout=TIMEOUT_S)
        answer.raise_for_status()
    except requests.RequestException:
        return []
    return [
        f"{sample.value:g} {USES[sample.name]} at {url}"
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name in USES and sample.labels["model_version"] == version and sample.value
    ]
