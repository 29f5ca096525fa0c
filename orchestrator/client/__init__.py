"""The Python client of the API."""

from orchestrator.client.client import Model, MusicLabClient, Status

__all__ = ["Model", "MusicLabClient", "Status"]
