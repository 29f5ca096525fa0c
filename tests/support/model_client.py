"""A plain HTTP client of TorchServe, equivalent to curl."""

import json
from dataclasses import dataclass
from pathlib import Path

import requests
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.settings import Settings

TIMEOUT_S = 120

Fields = dict[str, bytes | str]


@dataclass(frozen=True)
class ModelClient:
    """Calls the inference, management and metrics APIs of a TorchServe."""

    settings: Settings
    key_file: Path
    authorized: bool = True

    def predict(self, fields: Fields, version: str | None = None) -> requests.Response:
        """POST a multipart form; bytes become files, strings plain fields."""
        path = "/predictions/musiclab" + (f"/{version}" if version else "")
        parts = {
            name: (f"{name}.wav", value) if isinstance(value, bytes) else (None, value)
            for name, value in fields.items()
        }
        return requests.post(
            f"http://127.0.0.1:{self.settings.inference_port}{path}",
            files=parts,
            headers=self._authorization("inference"),
            timeout=TIMEOUT_S,
        )

    def manage(self, method: str, path: str, **parameters: str | int) -> requests.Response:
        """Call the management API."""
        return requests.request(
            method,
            f"http://127.0.0.1:{self.settings.management_port}{path}",
            params=parameters,
            headers=self._authorization("management"),
            timeout=TIMEOUT_S,
        )

    def metric(self, sample: str, **labels: str) -> float:
        """The value of one sample on /metrics; 0 if it does not exist yet."""
        for name, found, value in self.samples():
            if name == sample and labels.items() <= found.items():
                return value
        return 0.0

    def samples(self) -> list[tuple[str, dict[str, str], float]]:
        """Every sample on /metrics: name, labels, value."""
        address = f"http://127.0.0.1:{self.settings.metrics_port}/metrics"
        text = requests.get(address, timeout=TIMEOUT_S).text
        return [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def _authorization(self, key: str) -> dict[str, str]:
        if not self.authorized:
            return {}
        return {"Authorization": f"Bearer {json.loads(self.key_file.read_text())[key]['key']}"}
