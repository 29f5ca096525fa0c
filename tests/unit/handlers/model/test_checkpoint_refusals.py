"""Checkpoints that load_checkpoint rejects. Each message names the file and the fault in it."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from handlers.errors import CheckpointError
from handlers.model.checkpoint import load_checkpoint
from tests.support.model_weights import cascade_shapes, random_weights, single_stage_shapes

DIM, NHEAD = 16, 4
NAME = "best_model.pt"

Content = dict[str, Any]
Fault = Callable[[Content], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / NAME


def valid_content(layers: int = 1) -> Content:
    """A valid checkpoint: a single stage, or a cascade if `layers` is two."""
    shapes = single_stage_shapes(DIM, 1) if layers == 1 else cascade_shapes(DIM, 1)
    return {
        "model_state_dict": random_weights(shapes),
        "args": {
            "encoding_dim": DIM,
            "nhead": NHEAD,
            "num_layers": 1,
            "num_transformer_layers": layers,
        },
    }


def rejection(path: Path) -> str:
    with pytest.raises(CheckpointError) as rejected:
        load_checkpoint(path)
    assert NAME in str(rejected.value)
    return str(rejected.value)


def test_a_valid_checkpoint_is_loaded(path: Path) -> None:
    for layers in (1, 2):
        torch.save(valid_content(layers), path)
        load_checkpoint(path)


def test_a_missing_file_is_rejected(path: Path) -> None:
    assert f"no checkpoint at {path}" in rejection(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", b"RIFF", bytes(1000), b"not a checkpoint " * 100, b"\x80\x02}q\x00."[:-1]],
    ids=["empty", "one byte", "other magic", "zeros", "text", "half a pickle"],
)
def test_a_file_that_torch_did_not_write_is_rejected(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert "not a file written by torch.save" in rejection(path)


def test_random_bytes_are_rejected(path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    for size in range(1, 400):
        data = torch.randint(256, (size,), generator=generator, dtype=torch.uint8)
        path.write_bytes(data.numpy().tobytes())
        message = rejection(path)  # some start like a pickle that names a class
        assert "not a file written by torch.save" in message or "Python objects" in message


@pytest.mark.parametrize("percent", [1, 10, 50, 90, 99])
def test_a_truncated_file_is_rejected(path: Path, percent: int) -> None:
    torch.save(valid_content(), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * percent // 100])
    assert "truncated" in rejection(path)


@pytest.mark.parametrize("content", [[1, 2], "text", torch.zeros(3)], ids=["list", "str", "tensor"])
def test_content_that_is_not_a_dict_is_rejected(path: Path, content: object) -> None:
    torch.save(content, path)
    message = rejection(path)
    assert f"contains a {type(content).__name__}" in message
    assert "'model_state_dict'" in message


def test_missing_args_for_a_model_of_other_sizes_are_rejected(path: Path) -> None:
    content = valid_content()
    del content["args"]
    torch.save(content, path)
    assert "the model that the default args describe" in rejection(path)


def test_a_weight_both_with_and_without_the_ddp_prefix_is_rejected(path: Path) -> None:
    content = valid_content()
    weights = content["model_state_dict"]
    weights["module.post_norm.bias"] = weights["post_norm.bias"] + 1
    torch.save(content, path)
    assert "post_norm.bias twice" in rejection(path)


class MakesDirectory:
    """Creates a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_in_the_file_is_rejected_and_not_run(path: Path, tmp_path: Path) -> None:
    trace = tmp_path / "the code ran"
    torch.save({**valid_content(), "epoch": MakesDirectory(trace)}, path)
    assert "code" in rejection(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # proves that an unsafe load would run the code
    assert trace.exists()


@pytest.mark.parametrize(
    "args",
    [argparse.Namespace(nhead=NHEAD), {"train_dir": Path("pairs")}],
    ids=["namespace", "path in args"],
)
def test_python_objects_in_args_are_rejected(path: Path, args: object) -> None:
    torch.save({**valid_content(), "args": args}, path)
    message = rejection(path)
    assert "Python objects" in message
    assert "vars(args)" in message


@pytest.mark.parametrize("args", [None, [("nhead", NHEAD)], "nhead=4"], ids=["None", "list", "str"])
def test_args_that_are_not_a_dict_are_rejected(path: Path, args: object) -> None:
    torch.save({**valid_content(), "args": args}, path)
    assert f"'args' is a {type(args).__name__}" in rejection(path)


@pytest.mark.parametrize(
    ("name", "value", "requirement"),
    [
        ("encoding_dim", "16", "int"),
        ("encoding_dim", 16.0, "int"),
        ("num_layers", None, "int"),
        ("num_transformer_layers", True, "int"),
        ("use_creative_agent", 1, "bool"),
        ("use_compositional_agent", "no", "bool"),
        ("encoding_dim", 0, "1 or more"),
        ("nhead", 0, "1 or more"),
        ("num_layers", 0, "1 or more"),
        ("num_transformer_layers", -1, "1 or more"),
    ],
)
def test_an_invalid_argument_is_rejected(
    path: Path, name: str, value: object, requirement: str
) -> None:
    content = valid_content()
    content["args"][name] = value
    torch.save(content, path)
    message = rejection(path)
    assert f"args['{name}'] is {value!r}" in message
    assert requirement in message


@pytest.mark.parametrize(
    ("layers", "nhead", "width"), [(1, 5, 16), (1, 32, 16), (2, 5, 32), (2, 32, 48)]
)
def test_a_number_of_heads_that_does_not_divide_the_width_is_rejected(
    path: Path, layers: int, nhead: int, width: int
) -> None:
    content = valid_content(layers)
    content["args"]["nhead"] = nhead
    torch.save(content, path)
    message = rejection(path)
    assert f"args['nhead'] is {nhead}" in message
    assert f"= {width}" in message


@pytest.mark.parametrize("state", [None, [1]], ids=["None", "list"])
def test_an_invalid_state_dict_is_rejected(path: Path, state: object) -> None:
    torch.save({**valid_content(), "model_state_dict": state}, path)
    assert "no 'model_state_dict'" in rejection(path)


def test_a_missing_state_dict_is_rejected(path: Path) -> None:
    torch.save({"args": valid_content()["args"], "state_dict": {}}, path)
    message = rejection(path)
    assert "no 'model_state_dict'" in message
    assert "args, state_dict" in message  # the keys found instead


def test_a_bare_state_dict_is_rejected(path: Path) -> None:
    torch.save(valid_content()["model_state_dict"], path)
    assert "no 'model_state_dict'" in rejection(path)


def set_weight(name: str, value: object) -> Fault:
    def fault(content: Content) -> None:
        content["model_state_dict"][name] = value

    return fault


def set_last_element(name: str, value: float) -> Fault:
    def fault(content: Content) -> None:
        content["model_state_dict"][name].view(-1)[-1] = value

    return fault


def remove_weights(*names: str) -> Fault:
    def fault(content: Content) -> None:
        for name in names:
            del content["model_state_dict"][name]

    return fault


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (set_weight("input_norm.bias", 3), ["['input_norm.bias'] is a int", "tensor"]),
        (set_weight("input_norm.bias", [0.0] * DIM), ["['input_norm.bias'] is a list", "tensor"]),
        (remove_weights("post_norm.bias"), ["1 missing weights: post_norm.bias"]),
        (
            remove_weights("output_proj.weight_u", "input_norm.weight"),
            ["2 missing weights: input_norm.weight, output_proj.weight_u"],
        ),
        (set_weight("extra.weight", torch.zeros(1)), ["1 unexpected weights: extra.weight"]),
        (
            set_weight("output_proj.weight", torch.zeros(DIM, DIM)),
            ["unexpected weights: output_proj.w"],
        ),
        (
            set_weight("pos_encoding.pe", torch.zeros(1, 2000, DIM)),
            ["unexpected weights: pos_encoding.pe"],
        ),
        (
            set_weight("input_norm.bias", torch.zeros(DIM + 1)),
            ["1 weights of the wrong shape: input_norm.bias is [17] instead of [16]"],
        ),
        (
            set_weight("output_proj.weight_v", torch.zeros(DIM, 1)),
            ["output_proj.weight_v is [16, 1] instead of [16]"],
        ),
        (
            set_last_element("transformer.layers.0.linear1.weight", float("nan")),
            ["not finite", "0.linear1.w"],
        ),
        (
            set_last_element("output_proj.weight_u", float("nan")),
            ["not finite", "output_proj.weight_u"],
        ),
        (set_last_element("post_norm.bias", float("inf")), ["not finite", "post_norm.bias"]),
        (set_last_element("post_norm.bias", float("-inf")), ["not finite", "post_norm.bias"]),
        (set_weight("input_norm.bias", torch.zeros(DIM, dtype=torch.int64)), ["input_norm.bias"]),
        (
            set_weight("output_proj.weight_orig", torch.zeros(DIM, DIM)),
            ["spectral norm", "output_proj.weight_orig", "must not be 0"],
        ),
        (set_weight("output_proj.weight_v", torch.zeros(DIM)), ["spectral norm", "output_proj"]),
    ],
)
def test_invalid_weights_are_rejected(path: Path, fault: Fault, words: list[str]) -> None:
    content = valid_content()
    fault(content)
    torch.save(content, path)
    message = rejection(path)
    for word in words:
        assert word in message


def test_weights_of_another_form_are_rejected(path: Path) -> None:
    content = valid_content()
    content["args"]["num_transformer_layers"] = 2
    torch.save(content, path)
    message = rejection(path)
    assert "missing weights: cascade_stages.0.input_norm.bias" in message
    assert "unexpected weights: input_norm.bias" in message
    assert "more" in message  # the list of dozens of names is abbreviated


def test_an_agent_without_its_weights_is_rejected(path: Path) -> None:
    content = valid_content(layers=2)
    content["args"]["use_compositional_agent"] = True
    torch.save(content, path)
    assert "missing weights: creative_agent.component_selector.0.bias" in rejection(path)


def test_more_layers_than_weights_are_rejected(path: Path) -> None:
    content = valid_content()
    content["args"]["num_layers"] = 2
    torch.save(content, path)
    assert "12 missing weights: transformer.layers.1." in rejection(path)


def test_weights_too_large_for_fp32_are_rejected(path: Path) -> None:
    content = valid_content()
    content["model_state_dict"]["post_norm.bias"] = torch.full((DIM,), 1e300, dtype=torch.float64)
    torch.save(content, path)
    assert "post_norm.bias" in rejection(path)


@pytest.mark.parametrize(
    "bias",
    [torch.zeros(DIM, dtype=torch.float8_e4m3fn), torch.zeros(DIM).to_sparse()],
    ids=["float8", "sparse"],
)
def test_weights_that_cannot_be_checked_are_rejected(path: Path, bias: torch.Tensor) -> None:
    content = valid_content()
    content["model_state_dict"]["post_norm.bias"] = bias
    torch.save(content, path)
    assert "post_norm.bias" in rejection(path)
