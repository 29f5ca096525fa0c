"""The errors that end a command, each with a sentence a person can act on.

MusicLabError
|-- PackError           an archive cannot be built from what was given
|-- ArchiveError        a file is not a MusicLab archive
|-- CodecFetchError     the official codec weights could not be fetched
`-- ModelServerError    TorchServe cannot be started, or does not serve the model
"""


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
