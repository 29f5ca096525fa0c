"""EnCodec without its quantizer: audio to latents and back. Finds nothing, trusts nothing.

Two kinds of weights run in the same network: the official ones, which are identified by their
hash before they are read, and the starter ones that `handlers.codec.starter_codec` constructs.
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
        kind: whose weights these are.
    """

    def __init__(self, network: EncodecModel, kind: CodecKind) -> None:
        super().__init__()
        self.kind = kind
        self.encoder: nn.Module = network.encoder
        self.decoder: nn.Module = network.decoder
        self.requires_grad_(False).eval()

    def encode(self, audio: Tensor) -> Tensor:
        """[B, 1, S] at 24 kHz -> latents [B, 128, S / 320]."""
        latents: Tensor = self.encoder(audio)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, 128, T] -> audio [B, 1, 320 T] at 24 kHz."""
        audio: Tensor = self.decoder(latents)
        return audio


def load_codec(path: Path, kind: CodecKind) -> Codec:
    """The codec with the weights in `path`, on the CPU, norms folded.

    Raises:
        CodecError: the file is missing, is not the official one it should be, or does not fit.
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
    """Raise CodecError unless `path` holds the official weights, by the hash in their name."""
    if not path.is_file():
        raise CodecError(f"there are no codec weights at {path}")
    expected = OFFICIAL_NAME.split("-")[1].removesuffix(".th")
    digest = sha256(path)
    if not digest.startswith(expected):
        raise CodecError(
            f"{path} is not the official EnCodec file: its SHA-256 is {digest}, which should "
            f"start with {expected} ({path.stat().st_size:,} bytes, should be {OFFICIAL_BYTES:,}); "
            "fetch it again with `musiclab codec fetch`"
        )


def save_starter(path: Path) -> None:
    """Construct the starter weights and write them to `path`."""
    torch.save(Codec(starter_codec.build(), "starter").state_dict(), path)


def fetch_official(folder: Path) -> Path:
    """Download the official weights into `folder`, with a progress bar, and verify them.

    The address is the encodec library's own; a file that is there and verified is kept.

    Raises:
        CodecError: it cannot be reached, or what came is not the official file.
    """
    path = folder / OFFICIAL_NAME
    with suppress(CodecError):  # not there, or damaged and to be fetched anew
        verify_official(path)
        return path
    arriving = path.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(encodec_network.ROOT_URL + OFFICIAL_NAME, str(arriving))
        verify_official(arriving)
        arriving.replace(path)
    except (OSError, HTTPException) as error:
        raise CodecError(
            f"cannot fetch {OFFICIAL_NAME} ({error}); where this machine has no internet, bring "
            f"the file on another way and put it into {folder}"
        ) from error
    finally:
        with suppress(OSError):
            arriving.unlink()
    return path


def _load_weights(module: nn.Module, path: Path) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state)
    except Exception as error:  # the unpickler stumbles over arbitrary bytes in any way
        raise CodecError(f"{path.name} does not hold the weights of EnCodec: {error}") from error
