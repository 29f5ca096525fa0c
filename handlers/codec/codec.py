"""EnCodec without its quantizer: encodes audio into latents and decodes latents into audio.

The network runs with one of two kinds of weights: the official ones, whose hash is verified before
they are loaded, and the starter weights that `handlers.codec.starter_codec` constructs.
"""

from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from handlers.codec import encodec_network, starter_codec
from handlers.codec.encodec_network import EncodecModel
from handlers.errors import CodecError
from handlers.hashing import sha256

OFFICIAL_NAME = "encodec_24khz-d7cc33bc.th"
STARTER_NAME = "encodec_24khz-starter.th"
OFFICIAL_BYTES = 93_171_529

CodecKind = Literal["official", "starter"]


class Codec(nn.Module):
    """Frozen encoder and decoder.

    Attributes:
        kind: the kind of weights.
    """

    def __init__(self, network: EncodecModel, kind: CodecKind) -> None:
        super().__init__()
        self.kind = kind
        self.encoder: nn.Module = network.encoder
        self.decoder: nn.Module = network.decoder
        self.requires_grad_(False).eval()

    def encode(self, audio: Tensor) -> Tensor:
        """Encode audio [B, 1, S] at 24 kHz into latents [B, 128, S / 320]."""
        latents: Tensor = self.encoder(audio)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents [B, 128, T] into audio [B, 1, 320 T] at 24 kHz."""
        audio: Tensor = self.decoder(latents)
        return audio


def load_codec(path: Path, kind: CodecKind) -> Codec:
    """Load the codec with the weights in `path` onto the CPU, with its norms folded.

    Raises:
        CodecError: the file is missing, is not the official one although `kind` says so, or does
            not fit the network.
    """
    network = encodec_network.build()
    if kind == "official":
        verify_official(path)
        _load_weights(network, path)
    encodec_network.fold_norms(network)
    codec = Codec(network, kind)
    if kind == "starter":
        _load_weights(codec, path)
    return codec


def verify_official(path: Path) -> None:
    """Raise CodecError unless `path` matches the hash in the official weights' file name."""
    if not path.is_file():
        raise CodecError(f"no codec weights at {path}")
    expected = OFFICIAL_NAME.split("-")[1].removesuffix(".th")
    digest = sha256(path)
    if not digest.startswith(expected):
        raise CodecError(
            f"{path} is not the official EnCodec file: its SHA-256 is {digest}, but must start "
            f"with {expected}; its size is {path.stat().st_size:,} bytes, but must be "
            f"{OFFICIAL_BYTES:,}; download it again with `musiclab codec fetch`"
        )


def save_starter(path: Path) -> None:
    """Construct the starter weights and write them to `path`."""
    torch.save(Codec(starter_codec.build(), "starter").state_dict(), path)


def fetch_official(folder: Path) -> Path:
    """Download the official weights into `folder`, with a progress bar, and verify them.

    The URL is the encodec library's. An existing file that passes verification is kept.

    Raises:
        CodecError: the download failed, or the downloaded file is not the official one.
    """
    path = folder / OFFICIAL_NAME
    with suppress(CodecError):  # missing or damaged: download it
        verify_official(path)
        return path
    partial = path.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(encodec_network.ROOT_URL + OFFICIAL_NAME, str(partial))
        verify_official(partial)
        partial.replace(path)
    except (OSError, HTTPException) as error:
        raise CodecError(
            f"cannot download {OFFICIAL_NAME} ({error}); if this machine has no internet access, "
            f"copy the file to {folder} some other way"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return path


def _load_weights(module: nn.Module, path: Path) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state)
    except Exception as error:  # arbitrary bytes can raise any exception in the unpickler
        raise CodecError(f"{path.name} does not contain EnCodec weights: {error}") from error
