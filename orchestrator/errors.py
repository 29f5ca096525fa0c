"""The errors raised on purpose, each with a sentence a person can act on.

MusicLabError
|-- SettingsError           a setting has a value it cannot have
|-- PackError               an archive cannot be built from what was given
|-- ArchiveError            a file is not a MusicLab archive
|-- CodecFetchError         the official codec weights could not be fetched
|-- ModelServerError        TorchServe cannot be started, or does not serve the model
|-- DeploymentError         another version of the model could not be brought to serve
|-- DatabaseInUseError      another process owns the database's file
|-- DatabaseUnavailableError       the database does not answer, and may be back
|-- StorageUnavailableError   the store of the jobs' files is away or full
|-- ApiError                the API refused, or does not answer
|   `-- ApiUnavailableError the API is away or busy, and may be back
|-- JobFailedError          a job of ours failed
|-- RequestError            a request to the API is at fault
|-- LeaseLostError          a worker no longer holds its job
|-- ModelRejectedInputError       the model finds a track at fault
|-- VersionNotLoadedError        the version that a job asked for is loaded nowhere
`-- ModelUnavailableError   the model server is away, busy or broken
    `-- InferenceNotStartedError      no worker took the request
"""

from collections.abc import Mapping
from typing import ClassVar


class MusicLabError(Exception):
    """Base of all errors raised on purpose."""


class SettingsError(MusicLabError):
    """A setting has a value it cannot have."""


class PackError(MusicLabError):
    """An archive cannot be built from what was given."""


class ArchiveError(MusicLabError):
    """A file is not a MusicLab archive."""


class CodecFetchError(MusicLabError):
    """The official codec weights could not be fetched."""


class ModelServerError(MusicLabError):
    """TorchServe cannot be started, or does not serve the model."""


class DeploymentError(MusicLabError):
    """Another version of the model could not be brought to serve; the old ones serve on."""


class DatabaseInUseError(MusicLabError):
    """Another process owns the database's file."""


class DatabaseUnavailableError(MusicLabError):
    """The database does not answer, and may be back."""


class StorageUnavailableError(MusicLabError):
    """The store of the jobs' files is away or full, and may be back."""


class ApiError(MusicLabError):
    """The API refused a request of this client, or does not answer.

    Attributes:
        status: of the HTTP answer; None when there was none.
        code: the API's name for the fault; None when it gave none.
    """

    def __init__(self, message: str, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ApiUnavailableError(ApiError):
    """The API is away or busy, and may be back.

    Attributes:
        retry_after_s: seconds after which it says to come again; 0 when it does not say.
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        code: str | None = None,
        *,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message, status, code)
        self.retry_after_s = retry_after_s


class JobFailedError(MusicLabError):
    """A job that this client waits for failed.

    Args:
        code: the API's name for the fault.
        message: its sentence.
    """

    def __init__(self, code: str | None, message: str) -> None:
        super().__init__(message)
        self.code = code


class RequestError(MusicLabError):
    """A request to the API is at fault.

    Args:
        code: stable snake_case name for programs.
        detail: sentence for people; names the field and the value at fault.
        status: of the HTTP answer.
        retry_after_s: seconds after which the same request may be taken.
        headers: of the HTTP answer, beside those that all have.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        status: int = 400,
        *,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)


class LeaseLostError(MusicLabError):
    """A worker no longer holds its job: it was deleted, or another worker took it over."""


class ModelRejectedInputError(MusicLabError):
    """The model finds a track at fault, and would again.

    Args:
        code: the model's name for the fault.
        detail: its sentence.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class VersionNotLoadedError(MusicLabError):
    """The version of the model that a job asked for by name is loaded nowhere."""


class ModelUnavailableError(MusicLabError):
    """The model server is away, busy or broken, and may be back."""


class InferenceNotStartedError(ModelUnavailableError):
    """No worker took the request, so that it does not count as an attempt."""


class FfmpegMissingError(MusicLabError):
    """There is no ffmpeg to read tracks with."""


class TrackError(MusicLabError):
    """A track cannot be used.

    Attributes:
        code: the fault's name in the API.
    """

    code: ClassVar[str]


class NotAudioError(TrackError):
    """Nothing in the track can be decoded as audio."""

    code = "not_audio"


class WindowPastEndError(TrackError):
    """The window starts where the audio has ended.

    Attributes:
        length: the seconds of audio that the track really holds, whatever its header states.
    """

    code = "window_past_end"

    def __init__(self, length: float) -> None:
        super().__init__(f"the window starts past the end of the track, at {length:.2f} s")
        self.length = length


class TooSlowError(TrackError):
    """Decoding the track takes longer than is allowed."""

    code = "too_slow"


class ConversionError(MusicLabError):
    """Reading or writing a track failed for reasons that are not the track's, and may pass."""
