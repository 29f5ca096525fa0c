"""Measures the response times of other clients during denial-of-service requests.

    python -m benchmarks.hostile_requests [--seconds 20] [--clients 8]

Starts `musiclab orchestrator`. Clients repeat each kind of hostile request while another client
polls /health every 20 ms. Prints the status codes of the hostile requests, and the response times
of both.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.support.hostile_requests import Attack, attacks, run_attack
from tests.support.service import running
from tests.support.settings import settings_in


def row(name: str, url: str, attack: Attack, clients: int, seconds: float) -> str:
    result = run_attack(url, attack, clients, seconds)
    statuses = ", ".join(map(str, sorted(result.statuses)))
    longest = max(took for _, took in result.attacks)
    p99 = statistics.quantiles(result.health, n=100, method="inclusive")[98]
    return (
        f"{name:32} {len(result.attacks):6} x {statuses:4} longest {longest:5.2f} s"
        f"   /health p99 {1000 * p99:4.0f} ms, longest {1000 * max(result.health):4.0f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        unlimited = {"rate_limit": 0, "log_level": "warning"}
        settings = settings_in(Path(folder)).model_copy(update=unlimited)
        with running(settings, "orchestrator"):
            url = f"http://127.0.0.1:{settings.api_port}"
            for name, attack in attacks().items():
                print(row(name, url, attack, arguments.clients, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
