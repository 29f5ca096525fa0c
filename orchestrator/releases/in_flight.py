"""Asks orchestrators who is still waiting for a version of the model."""

import requests
from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 10.0
# Samples of an orchestrator's /metrics, each of which has the label model_version.
USES = {
    "musiclab_inference_requests_in_flight": "requests are at work",
    "musiclab_jobs_pinned": "jobs asked for it by name",
}
DATABASE_UP = "musiclab_database_up"


def users_of(url: str, version: str) -> list[str]:
    """What an orchestrator is still doing with a version, in words; nothing where there is none.

    One that cannot say is taken for a user: who is asked again later will know.
    """
    try:
        answer = requests.get(f"{url}/metrics", timeout=TIMEOUT_S)
    except requests.ConnectionError:
        return []
    except requests.RequestException as error:
        return [f"{url} does not say who uses it: {error}"]
    if answer.status_code >= requests.codes.internal_server_error:
        return [f"{url} does not say who uses it: {answer.status_code}"]
    try:
        families = list(text_string_to_metric_families(answer.text))
    except ValueError:
        return []  # some other program's port
    samples = [sample for family in families for sample in family.samples]
    users = [
        f"{sample.value:g} {USES[sample.name]} at {url}"
        for sample in samples
        if sample.name in USES and sample.labels["model_version"] == version and sample.value
    ]
    if any(sample.name == DATABASE_UP and not sample.value for sample in samples):
        users.append(f"{url} does not know who asked for it by name: its database is away")
    return users
