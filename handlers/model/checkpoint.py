"""Loads and validates SimpleTransformer checkpoints.

A checkpoint is a dict written by `torch.save` with `model_state_dict` (keys may have DDP's prefix
`module.`), `args` (the training arguments as a plain dict) and training metadata. It is read
with `weights_only=True`: a file that contains code is rejected, and the code never runs.
"""

import math
import pickle
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from handlers.errors import CheckpointError
from handlers.hashing import sha256
from handlers.model.simple_transformer import ModelArgs, SimpleTransformer, build_model

STARTER_MARK = "musiclab_starter"
IGNORED_PREFIX = "creative_agent.discriminator."
IGNORED_SUFFIX = "num_batches_tracked"
SPECTRAL_PARTS = ("weight_orig", "weight_u", "weight_v")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NAMES_SHOWN = 5


@dataclass(frozen=True)
class Checkpoint:
    """A valid checkpoint.

    Attributes:
        model: the model with its weights, on the CPU, in eval mode, fp32.
        args: the arguments that determine the model's shape.
        starter: True for MusicLab's untrained placeholder.
        facts: JSON-serializable metadata for manifests: sha256, form, starter, epoch, losses, args.
    """

    model: SimpleTransformer
    args: ModelArgs
    starter: bool
    facts: dict[str, Any]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and validate a checkpoint, and build its model.

    Raises:
        CheckpointError: the checkpoint is missing or invalid.
    """
    content = _read(path)
    try:
        args = _model_args(content.get("args", {}))
        state = _state_dict(content)
        _check_weights(state, args, "its" if "args" in content else "the default")
        model = build_model(args)
        _load_weights(model, state)
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from None
    starter = content.get(STARTER_MARK) is True
    facts = {
        "sha256": sha256(path),
        "form": args.form,
        "starter": starter,
        "epoch": _plain(content.get("epoch")),
        "train_loss": _plain(content.get("train_loss")),
        "val_loss": _plain(content.get("val_loss")),
        "best_val_loss": _plain(content.get("best_val_loss")),
        "args": _plain(content.get("args", {})),
    }
    return Checkpoint(model, args, starter, facts)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):
            raise CheckpointError(f"{path.name}: not a file written by torch.save") from error
        raise CheckpointError(
            f"{path.name}: contains Python objects or code, which are rejected without being "
            "loaded; save only tensors, numbers, strings, lists and dicts "
            "(for args: vars(args) with paths as strings)"
        ) from error
    except Exception as error:  # arbitrary bytes can raise any exception in the unpickler
        raise CheckpointError(
            f"{path.name}: not a file written by torch.save, or truncated"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path.name}: contains a {type(content).__name__}; a checkpoint is a dict with "
            "'model_state_dict' and 'args'"
        )
    return content


def _model_args(given: object) -> ModelArgs:
    if not isinstance(given, dict):
        raise CheckpointError(
            f"'args' is a {type(given).__name__}; it must be the dict of the training arguments"
        )
    chosen: dict[str, Any] = {}
    for field in fields(ModelArgs):
        value = given.get(field.name, field.default)
        if type(value) is not type(field.default):
            raise CheckpointError(
                f"args['{field.name}'] is {value!r}; it must be of type "
                f"{type(field.default).__name__}"
            )
        if type(value) is int and value < 1:
            raise CheckpointError(f"args['{field.name}'] is {value}; it must be 1 or more")
        chosen[field.name] = value
    args = ModelArgs(**chosen)
    for width in (2, 3) if args.is_cascade else (1,):
        if (width * args.encoding_dim) % args.nhead:
            raise CheckpointError(
                f"args['nhead'] is {args.nhead}; it must divide {width} x encoding_dim = "
                f"{width * args.encoding_dim}"
            )
    return args


def _state_dict(content: dict[str, Any]) -> dict[str, Tensor]:
    state = content.get("model_state_dict")
    if not isinstance(state, dict):
        raise CheckpointError(
            "has no 'model_state_dict' with the model's weights; its keys are "
            + _names(str(key) for key in content)
        )
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"model_state_dict['{key}'] is a {type(value).__name__}; it must be a tensor"
            )
        name = str(key).removeprefix("module.")
        if name in tensors:
            raise CheckpointError(
                f"model_state_dict contains {name} twice, with and without 'module.'"
            )
        if not name.startswith(IGNORED_PREFIX) and not name.endswith(IGNORED_SUFFIX):
            tensors[name] = value
    return tensors


def _check_weights(state: dict[str, Tensor], args: ModelArgs, args_source: str) -> None:
    """Raise CheckpointError unless the weights are exactly those that the model needs."""
    if args.num_layers > len(state):
        raise CheckpointError(
            f"args['num_layers'] is {args.num_layers}, but there are only {len(state)} weights"
        )
    try:
        with torch.device("meta"):  # shapes only: a mistyped size cannot exhaust the memory
            expected = _expected_shapes(build_model(args))
    except RuntimeError as error:
        raise CheckpointError(f"its args describe a model that cannot be built: {error}") from error
    missing = expected.keys() - state.keys()
    unexpected = state.keys() - expected.keys()
    misshapen = [
        f"{name} is {list(state[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    faults = [
        f"{len(names)} {kind}: {_names(names)}"
        for kind, names in (
            ("missing weights", missing),
            ("unexpected weights", unexpected),
            ("weights of the wrong shape", misshapen),
        )
        if names
    ]
    if faults:
        raise CheckpointError(
            f"does not fit the model that {args_source} args describe: " + "; ".join(faults)
        )
    invalid = [name for name, tensor in state.items() if not _is_finite(tensor)]
    if invalid:
        raise CheckpointError(
            "has weights that are not finite or not dense tensors of 16-, 32- or 64-bit floats: "
            + _names(invalid)
        )


def _is_finite(tensor: Tensor) -> bool:
    """Return True if a weight is a dense float tensor whose values are all finite in fp32."""
    plain = tensor.layout == torch.strided and tensor.dtype in FLOATS and not tensor.is_meta
    return plain and bool(tensor.float().isfinite().all())


def _load_weights(model: SimpleTransformer, state: dict[str, Tensor]) -> None:
    weights = {name: tensor.float() for name, tensor in state.items()}
    for prefix in _spectral_layers(model):
        _fold_spectral_norm(weights, prefix)
    model.load_state_dict(weights, strict=False)  # already checked; only counters may be missing


def _spectral_layers(model: SimpleTransformer) -> list[str]:
    """Return the layers that training wraps in spectral_norm: the `output_proj` of each stage."""
    return [name for name, _ in model.named_modules() if name.split(".")[-1] == "output_proj"]


def _expected_shapes(model: SimpleTransformer) -> dict[str, torch.Size]:
    """Return the shape of every weight that a checkpoint of this model must contain."""
    shapes = {
        name: tensor.shape
        for name, tensor in model.state_dict().items()
        if not name.endswith(IGNORED_SUFFIX)
    }
    for prefix in _spectral_layers(model):
        out_features, in_features = shapes.pop(f"{prefix}.weight")
        for part, shape in zip(
            SPECTRAL_PARTS,
            ([out_features, in_features], [out_features], [in_features]),
            strict=True,
        ):
            shapes[f"{prefix}.{part}"] = torch.Size(shape)
    return shapes


def _fold_spectral_norm(weights: dict[str, Tensor], prefix: str) -> None:
    """Replace weight_orig, weight_u and weight_v by the effective weight W / (u . W v)."""
    weight, u, v = (weights.pop(f"{prefix}.{part}") for part in SPECTRAL_PARTS)
    sigma = torch.dot(u, weight.mv(v))
    if sigma.abs() < torch.finfo(torch.float32).tiny:
        raise CheckpointError(
            f"the spectral norm of {prefix}.weight_orig is 0, so the weight cannot be normalized; "
            "the norm must not be 0"
        )
    weights[f"{prefix}.weight"] = weight / sigma


def _names(names: Any) -> str:
    """Join the first few names in sorted order, and state how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - NAMES_SHOWN} more" if len(ordered) > NAMES_SHOWN else ""
    return ", ".join(ordered[:NAMES_SHOWN]) + more


def _plain(value: Any) -> Any:
    """Convert a value to JSON types; NaN and infinity, which JSON lacks, become strings."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
