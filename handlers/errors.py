"""Exceptions of the model code. Messages state the problem and any remedy.

ModelCodeError
|-- CheckpointError       a checkpoint is invalid
|-- CodecError            codec weights are missing or invalid
|-- DeviceError           the requested device or precision is not available
`-- InvalidRequestError   one request of a batch is invalid (HTTP 400)
"""


class ModelCodeError(RuntimeError):
    """Base class of the model code's exceptions.

    Derives from RuntimeError because TorchServe's worker reports a RuntimeError as a failed load
    rather than a crash.
    """


class CheckpointError(ModelCodeError):
    """A SimpleTransformer checkpoint is missing or invalid, or does not fit the model."""


class CodecError(ModelCodeError):
    """EnCodec weights are missing or damaged, or are not the expected ones."""


class DeviceError(ModelCodeError):
    """The device or precision that the archive requests is not available to this worker."""


class InvalidRequestError(ModelCodeError):
    """A request is invalid; the other requests of its batch are not affected.

    Args:
        code: stable, machine-readable error code in snake_case.
        detail: human-readable message that names the field and states the accepted values.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
