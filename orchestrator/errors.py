"""The errors raised on purpose, each with a sentence a person can act on.

MusicLabError
|-- SettingsError                a setting has a value it cannot have
|-- PackError                    an archive cannot be built from what was given
|-- ArchiveError                 a file is not a MusicLab archive
|-- CodecFetchError              the official codec weights could not be fetched
|-- ModelPackagesMissingError    the packages of the model are not installed
|-- ModelServerError             TorchServe cannot be started, or does not serve the model
|-- DeploymentError              another version of the model could not be brought to serve
|-- DatabaseInUseError           another process owns the database's file
|-- DatabaseUnavailableError     the database does not answer, and may be back
|-- FfmpegMissingError           there is no ffmpeg to read tracks with
|-- ApiError                     the API refused, or does not answer (client)
|   `-- ApiUnavailableError      the API is unreachable or busy, and may be back
|-- JobFailedError               a job that the client waits for failed
|-- InputError                   something a client sent cannot be used
|-- SubmissionError              a job is not accepted, for reasons other than its input
|   |-- RateLimitError           too many requests from one client
|   |-- QueueFullError           too many jobs are waiting
|   |-- StorageFullError         no room for more files
|   |-- UploadExpiredError       the upload took longer than its reservation
|   |-- IdempotencyKeyReusedError  the key belongs to another request
|   `-- NotCheckedError          whether a track is audio could not be found out
|-- LeaseLostError               a worker no longer holds its job
`-- AttemptError                 ends a worker's attempt at a job
    |-- TrackError               a track cannot be used
    |   |-- NotAudioError        nothing in it can be decoded as audio
    |   |-- WindowPastEndError   the window starts where the audio has ended
    |   `-- TooSlowError         decoding takes longer than is allowed
    |-- ModelRejectedInputError  the model finds a track at fault
    |-- VersionNotLoadedError    the version that a job asked for is loaded nowhere
    |-- TooManyDeathsError       the processes that ran the job died too often
    |-- ModelUnavailableError    the model server is unreachable, busy or broken
    |   `-- InferenceNotStartedError  no worker of the model took the request
    |-- ConversionError          reading or writing a track failed
    |-- StorageUnavailableError  the store of the jobs' files is unreachable or full
    `-- UnexpectedError          any other error
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


class ModelPackagesMissingError(MusicLabError):
    """The packages of the model are not installed."""


class ModelServerError(MusicLabError):
    """TorchServe cannot be started, or does not serve the model."""


class DeploymentError(MusicLabError):
    """Another version of the model could not be brought to serve; the old ones serve on."""


class DatabaseInUseError(MusicLabError):
    """Another process owns the database's file."""


class DatabaseUnavailableError(MusicLabError):
    """The database does not answer, and may be back."""


class FfmpegMissingError(MusicLabError):
    """There is no ffmpeg to read tracks with."""


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
    """The API is unreachable or busy, and may be back.

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


class InputError(MusicLabError):
    """Something that a client sent cannot be used.

    Args:
        code: stable snake_case name of the fault, in the API.
        detail: sentence that names the field, its value, and what would be right.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class SubmissionError(MusicLabError):
    """A job is not accepted, for reasons other than its input.

    Attributes:
        retry_after_s: seconds after which the same request may be accepted, if that is known.
    """

    def __init__(self, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class RateLimitError(SubmissionError):
    """A client makes too many requests."""


class QueueFullError(SubmissionError):
    """As many jobs are waiting as are allowed to."""


class StorageFullError(SubmissionError):
    """There is no room for the files of another job."""


class UploadExpiredError(SubmissionError):
    """An upload took longer than its reservation lasted."""


class IdempotencyKeyReusedError(SubmissionError):
    """An idempotency key belongs to another request."""


class NotCheckedError(SubmissionError):
    """Whether a track holds audio could not be found out, for reasons that are not the track's."""


class LeaseLostError(MusicLabError):
    """A worker no longer holds its job: it was deleted, or another worker took it over."""


class AttemptError(MusicLabError):
    """Ends a worker's attempt at a job; says what becomes of the job.

    Attributes:
        retryable: whether a later attempt may succeed; if not, the job has failed.
        counts_as_attempt: whether it is one of the attempts that a job may have.
        code: error code of the job when it has failed by this error.
        reason: label of the metric of failed attempts, if retryable.
    """

    retryable: ClassVar[bool] = True
    counts_as_attempt: ClassVar[bool] = True
    code: str = "too_many_attempts"
    reason: ClassVar[str] = "unexpected"

    @property
    def sentence(self) -> str:
        """What the job's status says of it; may hide details."""
        return str(self)


class TrackError(AttemptError):
    """A track cannot be used; `code` is the fault's name in the API."""

    retryable = False


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


class ModelRejectedInputError(AttemptError):
    """The model finds a track at fault, and would again.

    Args:
        code: the model's name for the fault.
        detail: its sentence.
    """

    retryable = False

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class VersionNotLoadedError(AttemptError):
    """The version of the model that a job asked for by name is loaded nowhere."""

    retryable = False
    counts_as_attempt = False
    code = "model_not_loaded"


class TooManyDeathsError(AttemptError):
    """The processes that ran a job died too often."""

    retryable = False
    counts_as_attempt = False


class ModelUnavailableError(AttemptError):
    """The model server is unreachable, busy or broken, and may be back."""

    reason = "model_failed"


class InferenceNotStartedError(ModelUnavailableError):
    """No worker of the model took the request."""

    counts_as_attempt = False
    reason = "model_away"


class ConversionError(AttemptError):
    """Reading or writing a track failed for reasons that are not the track's, and may pass."""

    reason = "conversion"


class StorageUnavailableError(AttemptError):
    """The store of the jobs' files is unreachable or full, and may be back."""

    reason = "files"

    @property
    def sentence(self) -> str:
        """Without hosts and paths, which are not for users."""
        return "its files could not be read or written"


class UnexpectedError(AttemptError):
    """Any other error ended an attempt."""

    @property
    def sentence(self) -> str:
        """Without details, which are in the log."""
        return "an unexpected error"
