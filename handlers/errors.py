"""The errors the model code raises on purpose, each with a sentence a person can act on.

ModelCodeError
|-- CheckpointError     a checkpoint cannot be served
|-- CodecError          codec weights cannot be served
|-- DeviceError         the asked-for device is not there
`-- InvalidRequestError      one request of a batch is at fault (HTTP 400)
"""


class ModelCodeError(RuntimeError):
    """Base of all errors raised on purpose.

    A RuntimeError, because that is what TorchServe's worker reports as a failed load instead of
    a crash.
    """


class CheckpointError(ModelCodeError):
    """A SimpleTransformer checkpoint is not what the model needs."""


class CodecError(ModelCodeError):
    """EnCodec weights are missing, damaged or not the ones they claim to be."""


class DeviceError(ModelCodeError):
    """The device that the archive was packed for is not available to this worker."""


class InvalidRequestError(ModelCodeError):
    """One request is at fault; its neighbours in the batch are not.

    Args:
        code: stable snake_case name for programs.
        detail: sentence for people; names the field and what would be right.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
