"""Errors of the HTTP layer."""

from collections.abc import Mapping

from orchestrator.errors import MusicLabError


class RequestError(MusicLabError):
    """A request is rejected, usually because of its headers, path, or form.

    Args:
        code: stable, machine-readable error code in snake_case.
        detail: human-readable message that names the field and its invalid value.
        status: HTTP status of the response.
        headers: additional headers of the response.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        status: int = 400,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status
        self.headers = dict(headers or {})
