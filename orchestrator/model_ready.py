"""Whether TorchServe has a READY worker; as a command, for health checks, by its exit status."""

import json
import sys
from urllib.error import URLError
from urllib.request import Request, urlopen

from orchestrator.model_keys import Keys
from orchestrator.model_versions import MODEL_NAME
from orchestrator.settings import Settings, load_settings

TIMEOUT_S = 5.0


def find_fault(settings: Settings) -> str | None:
    """Why the default version has no READY worker; None where it has one."""
    address = f"{settings.management_url}/models/{MODEL_NAME}"
    request = Request(address, headers=Keys(settings.key_file).header("management"))  # noqa: S310
    try:
        with urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - always HTTP
            (model,) = json.load(response)
    except (URLError, TimeoutError, ConnectionError) as error:
        return f"{address}: {error}"
    if any(worker["status"] == "READY" for worker in model["workers"]):
        return None
    return "no worker is ready"


if __name__ == "__main__":
    sys.exit(find_fault(load_settings()))
