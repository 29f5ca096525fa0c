"""The Python client of the API."""

from orchestrator.client.client import MusicLabClient
from orchestrator.client.documents import Model, Status

__all__ = ["Model", "MusicLabClient", "Status"]
