"""Whether the model is ready; as a command, for health checks, by its exit status."""

import sys

from orchestrator.errors import ModelServerError
from orchestrator.serving.management import ManagementClient
from orchestrator.serving.tokens import Tokens
from orchestrator.settings import Settings, load_settings


def find_fault(settings: Settings) -> str | None:
    """Why the default version has no READY worker; None where it has one."""
    management = ManagementClient(Tokens(settings.key_file, settings.management_url))
    try:
        versions = management.versions()
    except ModelServerError as error:
        return str(error)
    if any(version.default and version.ready for version in versions):
        return None
    return "the model is loading"


if __name__ == "__main__":
    sys.exit(find_fault(load_settings()))
