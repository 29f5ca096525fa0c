"""Exceptions that MusicLab raises deliberately. Messages state the problem and any remedy.

MusicLabError
|-- SettingsError                a setting is invalid or refers to something unusable
|-- PackError                    an archive cannot be built from its inputs
|-- ArchiveError                 an archive or the desired-state file cannot be used
|-- CodecFetchError              the official codec weights could not be downloaded
|-- ModelPackagesMissingError    the Python packages of the model are not installed
|-- ModelServerError             TorchServe cannot be started, reached, or used
|-- DeploymentError              a model version could not be deployed or removed
|-- DatabaseInUseError           another process holds the database file
|-- DatabaseUnavailableError     the database is unreachable; may be temporary
|-- FfmpegMissingError           ffmpeg, which decodes tracks, is not installed
|-- ApiError                     the API rejected a request or is unreachable (client)
|   `-- ApiUnavailableError      the API is unreachable or busy; may be temporary
|-- JobFailedError               the job that the client waits for failed
|-- InputError                   a request has invalid input
|-- SubmissionError              a request is rejected for a reason other than its input
|   |-- RateLimitError           too many requests from one client
|   |-- QueueFullError           the queue is full
|   |-- StorageFullError         no space for more files
|   |-- UploadExpiredError       the upload's reservation expired
|   |-- IdempotencyKeyReusedError  the key was used for a different request
|   `-- NotCheckedError          a track could not be checked for audio
|-- LeaseLostError               a worker no longer holds the lease of its job
`-- AttemptError                 ends a worker's attempt at a job
    |-- TrackError               a track cannot be used
    |   |-- NotAudioError        the track has no audio that can be decoded
    |   |-- WindowPastEndError   the window starts past the end of the audio
    |   `-- TooSlowError         decoding exceeds its time limit
    |-- ModelRejectedInputError  the model rejected a track
    |-- VersionNotLoadedError    no TorchServe has the requested model version loaded
    |-- TooManyDeathsError       too many processes died while they ran the job
    |-- ModelUnavailableError    the model server is unreachable, busy or broken
    |   `-- InferenceNotStartedError  no TorchServe worker accepted the request
    |-- ConversionError          a track could not be read or written
    |-- StorageUnavailableError  the file storage is unreachable or full
    `-- UnexpectedError          any other error
"""

from typing import ClassVar


class MusicLabError(Exception):
    """Base class of all errors that MusicLab raises deliberately."""


class SettingsError(MusicLabError):
    """A setting is invalid, or refers to something unusable, such as a port in use."""


class PackError(MusicLabError):
    """An archive cannot be built from its inputs."""


class ArchiveError(MusicLabError):
    """An archive or the desired-state file is missing, invalid, or damaged."""


class CodecFetchError(MusicLabError):
    """The official codec weights could not be downloaded."""


class ModelPackagesMissingError(MusicLabError):
    """The Python packages of the model are not installed."""


class ModelServerError(MusicLabError):
    """TorchServe cannot be started, reached, or used."""


class DeploymentError(MusicLabError):
    """A model version could not be deployed or removed; the loaded versions stay in use."""


class DatabaseInUseError(MusicLabError):
    """Another process holds the database file."""


class DatabaseUnavailableError(MusicLabError):
    """The database is unreachable; the condition may be temporary."""


class FfmpegMissingError(MusicLabError):
    """ffmpeg, which decodes tracks, is not installed."""


class ApiError(MusicLabError):
    """The API rejected a request of this client, or is unreachable.

    Attributes:
        status: HTTP status of the response; None without a response.
        code: error code from the API; None if the response has none.
    """

    def __init__(self, message: str, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ApiUnavailableError(ApiError):
    """The API is unreachable or busy; the condition may be temporary.

    Attributes:
        retry_after_s: seconds from the Retry-After header; 0 without one.
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
    """The job that this client waits for failed.

    Args:
        code: error code of the job.
        message: error message of the job.
    """

    def __init__(self, code: str | None, message: str) -> None:
        super().__init__(message)
        self.code = code


class InputError(MusicLabError):
    """A request has invalid input.

    Args:
        code: stable, machine-readable error code in snake_case.
        detail: human-readable message that names the field and states the accepted values.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class SubmissionError(MusicLabError):
    """A request is rejected for a reason other than its input.

    Attributes:
        retry_after_s: seconds after which the same request may be accepted; None if unknown.
    """

    def __init__(self, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class RateLimitError(SubmissionError):
    """A client exceeded its rate limit."""


class QueueFullError(SubmissionError):
    """The queue is full."""


class StorageFullError(SubmissionError):
    """There is no space for the files of another job."""


class UploadExpiredError(SubmissionError):
    """The reservation of an upload expired before the upload was complete."""


class IdempotencyKeyReusedError(SubmissionError):
    """An idempotency key was already used for a different request."""


class NotCheckedError(SubmissionError):
    """A track could not be checked for audio, for a reason unrelated to the track."""


class LeaseLostError(MusicLabError):
    """A worker no longer holds the lease: the job was deleted, or another worker took it over."""


class AttemptError(MusicLabError):
    """Ends a worker's attempt at a job, and determines whether the job fails or is retried.

    Attributes:
        retryable: whether a later attempt may succeed; if not, the job fails.
        counts_as_attempt: whether it counts towards the maximum number of attempts.
        code: error code of the job if this error makes it fail.
        reason: label value in the metric of failed attempts, if retryable.
    """

    retryable: ClassVar[bool] = True
    counts_as_attempt: ClassVar[bool] = True
    code: str = "too_many_attempts"
    reason: ClassVar[str] = "unexpected"

    @property
    def user_message(self) -> str:
        """The error text in the job's status; subclasses may omit internal details."""
        return str(self)


class TrackError(AttemptError):
    """A track cannot be used; `code` is also an error code of the API."""

    retryable = False


class NotAudioError(TrackError):
    """The track has no audio that can be decoded."""

    code = "not_audio"


class WindowPastEndError(TrackError):
    """The window starts past the end of the audio.

    Attributes:
        length: decoded length of the track in seconds, which may differ from its header.
    """

    code = "window_past_end"

    def __init__(self, length: float) -> None:
        super().__init__(
            f"the window starts past the end of the track, which is {length:.2f} s long"
        )
        self.length = length


class TooSlowError(TrackError):
    """Decoding the track exceeds its time limit."""

    code = "too_slow"


class ModelRejectedInputError(AttemptError):
    """The model rejected a track; a retry would have the same result.

    Args:
        code: error code from the model.
        detail: error message from the model.
    """

    retryable = False

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class VersionNotLoadedError(AttemptError):
    """The model version that a job requests by name is not loaded in any TorchServe."""

    retryable = False
    counts_as_attempt = False
    code = "model_not_loaded"


class TooManyDeathsError(AttemptError):
    """Too many processes died while they ran the job."""

    retryable = False
    counts_as_attempt = False


class ModelUnavailableError(AttemptError):
    """The model server is unreachable, busy or broken; the condition may be temporary."""

    reason = "model_failed"


class InferenceNotStartedError(ModelUnavailableError):
    """No TorchServe worker accepted the request, or its model version was unloaded meanwhile."""

    counts_as_attempt = False
    reason = "model_away"


class ConversionError(AttemptError):
    """A track could not be read or written, for a reason unrelated to it that may be temporary."""

    reason = "conversion"


class StorageUnavailableError(AttemptError):
    """The file storage is unreachable or full; the condition may be temporary."""

    reason = "files"

    @property
    def user_message(self) -> str:
        """The error text without host names and paths, which users should not see."""
        return "the job's files could not be read or written"


class UnexpectedError(AttemptError):
    """An attempt ended with any other error."""

    @property
    def user_message(self) -> str:
        """The error text without details, which are in the log."""
        return "an unexpected error occurred"
