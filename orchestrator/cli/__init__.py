"""The `musiclab` command."""

from orchestrator.cli.main import app

__all__ = ["app"]
