"""Ports for the servers that tests start."""

import os
import random
import socket
from itertools import cycle
from threading import Lock

# Below the ephemeral ports, one of which an outgoing connection could take before a server listens
# on it. Each pytest-xdist process uses a separate subset.
PROCESSES = 8
FIRST, LAST = 10_000, 32_767
PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PROCESSES

_PORTS = list(range(FIRST + PROCESS, LAST, PROCESSES))
random.shuffle(_PORTS)  # several test runs may share the machine
_NEXT = cycle(_PORTS)
_LOCK = Lock()


def free_ports(count: int) -> list[int]:
    """Unused ports on loopback, which are not returned again soon."""
    found: list[int] = []
    with _LOCK:
        while len(found) < count:
            port = next(_NEXT)
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            found.append(port)
    return found
