"""Asks orchestrators which of them still use a version of the model."""

from typing import Any

import requests

PATH = "/in-flight"
TIMEOUT_S = 10.0
USES = {"in_flight": "requests are at work", "pinned": "jobs asked for it by name"}


def users_of(url: str, version: str) -> list[str]:
    """What an orchestrator still does with a version, in words; empty where it does nothing.

    One that does not say counts as a user: a later request may get an answer.
    """
    try:
        answer = requests.get(url + PATH, timeout=TIMEOUT_S)
    except requests.ConnectionError:
        return []  # nothing runs there
    except requests.RequestException as error:
        return [f"{url} does not say who uses it: {error}"]
    if answer.status_code >= requests.codes.internal_server_error:
        return [f"{url} does not say who uses it: {answer.status_code}"]
    content = _json_object(answer)
    if answer.status_code == requests.codes.not_found and content.get("code") == "not_found":
        return [
            f"{url} does not say who uses it: it is an earlier version of MusicLab, or a proxy "
            "that hides /in-flight"
        ]
    database, versions = content.get("database"), content.get("model_versions")
    if not isinstance(database, bool) or not isinstance(versions, dict):
        return []  # some other program's port
    counts = versions.get(version, {})
    if not isinstance(counts, dict):
        return []
    users = [f"{counts[name]} {use} at {url}" for name, use in USES.items() if counts.get(name)]
    if not database:
        users.append(f"{url} does not know who asked for it by name: its database is away")
    return users


def _json_object(answer: requests.Response) -> dict[str, Any]:
    """The object in an answer; empty where it is no JSON object."""
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
