"""Reads a SimpleTransformer checkpoint strictly, and says in words what is wrong with one.

A checkpoint is a `torch.save` of a dict with `model_state_dict` (keys may carry DDP's `module.`),
`args` (the training arguments as a plain dict), and facts about the training. It is read with
`weights_only=True`: a file that carries code is refused, never run.
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
    """A checkpoint that can be served.

    Attributes:
        model: the model with its weights, on the CPU, in eval mode, fp32.
        args: what decides the model's shape.
        starter: True for MusicLab's own placeholder, which was never trained.
        facts: JSON-ready facts for manifests: sha256, form, starter, epoch, losses, args.
    """

    model: SimpleTransformer
    args: ModelArgs
    starter: bool
    facts: dict[str, Any]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read, check and build.

    Raises:
        CheckpointError: the file cannot be served; the sentence says why and what would be right.
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
        raise CheckpointError(f"there is no checkpoint at {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):
            raise CheckpointError(f"{path.name}: not a file that torch.save wrote") from error
        raise CheckpointError(
            f"{path.name}: holds Python objects or code beside tensors and plain values, which "
            "are refused unread; save tensors, numbers, strings, lists and dicts only "
            "(for args: vars(args) with paths as strings)"
        ) from error
    except Exception as error:  # the unpickler stumbles over arbitrary bytes in any way
        raise CheckpointError(
            f"{path.name}: not a file that torch.save wrote, or one cut short"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path.name}: holds a {type(content).__name__}; a checkpoint is a dict with "
            "'model_state_dict' and 'args'"
        )
    return content


def _model_args(given: object) -> ModelArgs:
    if not isinstance(given, dict):
        raise CheckpointError(
            f"'args' is a {type(given).__name__}; it has to be the dict of the training arguments"
        )
    chosen: dict[str, Any] = {}
    for field in fields(ModelArgs):
        value = given.get(field.name, field.default)
        if type(value) is not type(field.default):
            raise CheckpointError(
                f"args['{field.name}'] is {value!r}; it has to be of type "
                f"{type(field.default).__name__}"
            )
        if type(value) is int and value < 1:
            raise CheckpointError(f"args['{field.name}'] is {value}; it has to be 1 or more")
        chosen[field.name] = value
    args = ModelArgs(**chosen)
    for width in (2, 3) if args.is_cascade else (1,):
        if (width * args.encoding_dim) % args.nhead:
            raise CheckpointError(
                f"args['nhead'] is {args.nhead}; it has to divide {width} x encoding_dim = "
                f"{width * args.encoding_dim}"
            )
    return args


def _state_dict(content: dict[str, Any]) -> dict[str, Tensor]:
    state = content.get("model_state_dict")
    if not isinstance(state, dict):
        raise CheckpointError(
            "has no 'model_state_dict', the dict of the model's weights; its keys are "
            + _names(str(key) for key in content)
        )
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"model_state_dict['{key}'] is a {type(value).__name__}; it has to be a tensor"
            )
        name = str(key).removeprefix("module.")
        if name in tensors:
            raise CheckpointError(
                f"model_state_dict holds {name} twice, with and without 'module.'"
            )
        if not name.startswith(IGNORED_PREFIX) and not name.endswith(IGNORED_SUFFIX):
            tensors[name] = value
    return tensors


def _check_weights(state: dict[str, Tensor], args: ModelArgs, whose: str) -> None:
    """Refuse whatever is not exactly what the model that `args` describe needs."""
    if args.num_layers > len(state):
        raise CheckpointError(
            f"args['num_layers'] is {args.num_layers}, but there are only {len(state)} weights"
        )
    try:
        with torch.device("meta"):  # shapes alone: no mistyped size can exhaust the memory
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
            f"does not fit the model that {whose} args describe: " + "; ".join(faults)
        )
    unsound = [name for name, tensor in state.items() if not _is_served(tensor)]
    if unsound:
        raise CheckpointError(
            "weights that are not finite numbers in a dense tensor of 16, 32 or 64 bit floats: "
            + _names(unsound)
        )


def _is_served(tensor: Tensor) -> bool:
    """Whether a weight's values are all finite as the fp32 that is served."""
    plain = tensor.layout == torch.strided and tensor.dtype in FLOATS and not tensor.is_meta
    return plain and bool(tensor.float().isfinite().all())


def _load_weights(model: SimpleTransformer, state: dict[str, Tensor]) -> None:
    weights = {name: tensor.float() for name, tensor in state.items()}
    for prefix in _spectral_layers(model):
        _fold_spectral_norm(weights, prefix)
    model.load_state_dict(weights, strict=False)  # checked before; only counters may be missing


def _spectral_layers(model: SimpleTransformer) -> list[str]:
    """Names of the layers that training wraps in spectral_norm: `output_proj` of each stage."""
    return [name for name, _ in model.named_modules() if name.split(".")[-1] == "output_proj"]


def _expected_shapes(model: SimpleTransformer) -> dict[str, torch.Size]:
    """Shape of every weight that a checkpoint of this model must hold."""
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
    """Replace weight_orig, u and v by the weight that inference uses: W / (u . W v)."""
    weight, u, v = (weights.pop(f"{prefix}.{part}") for part in SPECTRAL_PARTS)
    sigma = torch.dot(u, weight.mv(v))
    if sigma.abs() < torch.finfo(torch.float32).tiny:
        raise CheckpointError(
            f"the spectral norm of {prefix}.weight_orig is 0, so the layer is 0/0; it has to be "
            "other than 0"
        )
    weights[f"{prefix}.weight"] = weight / sigma


def _names(names: Any) -> str:
    """The first few names in order, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - NAMES_SHOWN} more" if len(ordered) > NAMES_SHOWN else ""
    return ", ".join(ordered[:NAMES_SHOWN]) + more


def _plain(value: Any) -> Any:
    """The value as JSON can hold it; a number that JSON lacks (NaN, infinity) becomes its name."""
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
