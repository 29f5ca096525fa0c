"""The errors raised on purpose, each with a sentence a person can act on.

MusicLabError
|-- SettingsError           a setting has a value it cannot have
|-- PackError               an archive cannot be built from what was given
|-- ArchiveError            a file is not a MusicLab archive
|-- CodecFetchError         the official codec weights could not be fetched
|-- ModelServerError        TorchServe cannot be started, or does not serve the model
|-- DatabaseInUseError      another process owns the job table
|-- ApiError                the API refused, or does not answer
|   `-- JobFailedError      a job of ours failed
|-- RequestError            a request to the API is at fault
|-- LeaseLostError          a worker no longer holds its job
|-- ModelRefusedError       the model finds a track at fault
`-- ModelUnavailableError   the model server is away, busy or broken
"""

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


class DatabaseInUseError(MusicLabError):
    """Another process owns the job table."""


class ApiError(MusicLabError):
    """The API refused a request of this client, or does not answer."""


class JobFailedError(ApiError):
    """A job that this client waits for failed."""


class RequestError(MusicLabError):
    """A request to the API is at fault.

    Args:
        code: stable snake_case name for programs.
        detail: sentence for people; names the field and the value at fault.
        status: of the HTTP answer.
    """

    def __init__(self, code: str, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status


class LeaseLostError(MusicLabError):
    """A worker no longer holds its job: it was deleted, or another worker took it over."""


class ModelRefusedError(MusicLabError):
    """The model finds a track at fault, and would again.

    Args:
        code: the model's name for the fault.
        detail: its sentence.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class ModelUnavailableError(MusicLabError):
    """The model server is away, busy or broken, and may be back."""


class FfmpegMissingError(MusicLabError):
    """There is no ffmpeg to read tracks with."""


class MediaError(MusicLabError):
    """A track cannot be used.

    Attributes:
        code: the fault's name in the API.
    """

    code: ClassVar[str]


class NotAudioError(MediaError):
    """Nothing in the track can be decoded as audio."""

    code = "not_audio"


class WindowPastEndError(MediaError):
    """The window starts where the audio has ended.

    Attributes:
        length: the seconds of audio that the track really holds, whatever its header states.
    """

    code = "window_past_end"

    def __init__(self, length: float) -> None:
        super().__init__(f"the window starts past the end of the track, at {length:.2f} s")
        self.length = length


class ConversionError(MediaError):
    """Reading or writing the track failed."""

    code = "conversion_failed"
