"""Queries orchestrators for their use of a model version."""

from typing import Any

import requests

PATH = "/in-flight"
TIMEOUT_S = 10.0
USES = {"in_flight": "requests are in progress", "pinned": "jobs request it by name"}


def uses_at(url: str, version: str) -> list[str]:
    """Describes how an orchestrator still uses a version; empty if it does not.

    An orchestrator that does not return its counts is reported as well: a later query may succeed.
    """
    try:
        response = requests.get(url + PATH, timeout=TIMEOUT_S)
    except requests.ConnectionError:
        return []  # no server is running there
    except requests.RequestException as error:
        return [f"usage by {url} is unknown: {error}"]
    if response.status_code >= requests.codes.internal_server_error:
        return [f"usage by {url} is unknown: {response.status_code}"]
    content = _json_object(response)
    if response.status_code == requests.codes.not_found and content.get("code") == "not_found":
        return [
            f"usage by {url} is unknown: it runs an earlier version of MusicLab, or a proxy hides "
            "/in-flight"
        ]
    database, versions = content.get("database"), content.get("model_versions")
    if not isinstance(database, bool) or not isinstance(versions, dict):
        return []  # the port belongs to another program
    counts = versions.get(version, {})
    if not isinstance(counts, dict):
        return []
    uses = [f"{counts[name]} {use} at {url}" for name, use in USES.items() if counts.get(name)]
    if not database:
        uses.append(
            f"jobs at {url} that request it by name cannot be counted: database unreachable"
        )
    return uses


def _json_object(response: requests.Response) -> dict[str, Any]:
    """Returns the JSON object in a response; empty if it has none."""
    try:
        content = response.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
