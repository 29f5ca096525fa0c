"""Errors of the HTTP layer itself."""

from collections.abc import Mapping

from orchestrator.errors import MusicLabError


class RequestError(MusicLabError):
    """A request is refused, mostly for its headers, path, or form.

    Args:
        code: stable snake_case name for programs.
        detail: sentence for people; names the field and the value at fault.
        status: of the HTTP answer.
        headers: of the HTTP answer, in addition to those of all answers.
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
