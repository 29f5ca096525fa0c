"""Checks whether the model is ready.

As a command, it exits with status 0 if the model is ready, and 1 otherwise.
"""

import sys

from orchestrator.errors import ModelServerError
from orchestrator.serving.management import ManagementClient
from orchestrator.serving.tokens import Tokens
from orchestrator.settings import Settings, load_settings


def unready_reason(settings: Settings) -> str | None:
    """Returns why the default version has no READY worker; None if it has one."""
    management = ManagementClient(Tokens(settings.key_file, settings.management_url))
    try:
        versions = management.versions()
    except ModelServerError as error:
        return str(error)
    if any(version.default and version.ready for version in versions):
        return None
    return "the model is loading"


if __name__ == "__main__":
    sys.exit(unready_reason(load_settings()))
