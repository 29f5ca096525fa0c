"""What load_checkpoint refuses; each sentence names the file and what is at fault in it."""

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


def sound_content(layers: int = 1) -> Content:
    """A single-stage checkpoint, or with two `layers` a cascade, without a fault."""
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


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(path)
    assert NAME in str(refused.value)
    return str(refused.value)


def test_without_a_fault_it_loads(path: Path) -> None:
    for layers in (1, 2):
        torch.save(sound_content(layers), path)
        load_checkpoint(path)


def test_no_file(path: Path) -> None:
    assert f"no checkpoint at {path}" in refusal(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", b"RIFF", bytes(1000), b"not a checkpoint " * 100, b"\x80\x02}q\x00."[:-1]],
    ids=["empty", "one byte", "other magic", "zeros", "text", "half a pickle"],
)
def test_not_a_checkpoint_file(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert "not a file that torch.save wrote" in refusal(path)


def test_random_bytes(path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    for size in range(1, 400):
        data = torch.randint(256, (size,), generator=generator, dtype=torch.uint8)
        path.write_bytes(data.numpy().tobytes())
        sentence = refusal(path)  # a few begin like a pickle that names a class
        assert "not a file that torch.save wrote" in sentence or "Python objects" in sentence


@pytest.mark.parametrize("percent", [1, 10, 50, 90, 99])
def test_cut_short(path: Path, percent: int) -> None:
    torch.save(sound_content(), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * percent // 100])
    assert "cut short" in refusal(path)


@pytest.mark.parametrize("content", [[1, 2], "text", torch.zeros(3)], ids=["list", "str", "tensor"])
def test_not_a_dict(path: Path, content: object) -> None:
    torch.save(content, path)
    sentence = refusal(path)
    assert f"holds a {type(content).__name__}" in sentence
    assert "'model_state_dict'" in sentence


def test_no_args_for_a_model_of_other_sizes(path: Path) -> None:
    content = sound_content()
    del content["args"]
    torch.save(content, path)
    assert "the model that the default args describe" in refusal(path)


def test_a_weight_with_and_without_the_prefix(path: Path) -> None:
    content = sound_content()
    weights = content["model_state_dict"]
    weights["module.post_norm.bias"] = weights["post_norm.bias"] + 1
    torch.save(content, path)
    assert "post_norm.bias twice" in refusal(path)


class MakesAFolder:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_is_refused_and_not_run(path: Path, tmp_path: Path) -> None:
    trace = tmp_path / "the code ran"
    torch.save({**sound_content(), "epoch": MakesAFolder(trace)}, path)
    assert "code" in refusal(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the trap is one: read carelessly, it does run
    assert trace.exists()


@pytest.mark.parametrize(
    "args",
    [argparse.Namespace(nhead=NHEAD), {"train_dir": Path("pairs")}],
    ids=["namespace", "path in args"],
)
def test_python_objects_in_args(path: Path, args: object) -> None:
    torch.save({**sound_content(), "args": args}, path)
    sentence = refusal(path)
    assert "Python objects" in sentence
    assert "vars(args)" in sentence


@pytest.mark.parametrize("args", [None, [("nhead", NHEAD)], "nhead=4"], ids=["None", "list", "str"])
def test_args_that_are_no_dict(path: Path, args: object) -> None:
    torch.save({**sound_content(), "args": args}, path)
    assert f"'args' is a {type(args).__name__}" in refusal(path)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
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
def test_an_argument_of_no_use(path: Path, name: str, value: object, wanted: str) -> None:
    content = sound_content()
    content["args"][name] = value
    torch.save(content, path)
    sentence = refusal(path)
    assert f"args['{name}'] is {value!r}" in sentence
    assert wanted in sentence


@pytest.mark.parametrize(
    ("layers", "nhead", "width"), [(1, 5, 16), (1, 32, 16), (2, 5, 32), (2, 32, 48)]
)
def test_heads_that_do_not_divide(path: Path, layers: int, nhead: int, width: int) -> None:
    content = sound_content(layers)
    content["args"]["nhead"] = nhead
    torch.save(content, path)
    sentence = refusal(path)
    assert f"args['nhead'] is {nhead}" in sentence
    assert f"= {width}" in sentence


@pytest.mark.parametrize("state", [None, [1]], ids=["None", "list"])
def test_a_state_dict_that_is_none(path: Path, state: object) -> None:
    torch.save({**sound_content(), "model_state_dict": state}, path)
    assert "no 'model_state_dict'" in refusal(path)


def test_no_state_dict(path: Path) -> None:
    torch.save({"args": sound_content()["args"], "state_dict": {}}, path)
    sentence = refusal(path)
    assert "no 'model_state_dict'" in sentence
    assert "args, state_dict" in sentence  # what is there instead


def test_the_bare_state_dict(path: Path) -> None:
    torch.save(sound_content()["model_state_dict"], path)
    assert "no 'model_state_dict'" in refusal(path)


def put(name: str, value: object) -> Fault:
    def fault(content: Content) -> None:
        content["model_state_dict"][name] = value

    return fault


def spoil(name: str, value: float) -> Fault:
    def fault(content: Content) -> None:
        content["model_state_dict"][name].view(-1)[-1] = value

    return fault


def take_away(*names: str) -> Fault:
    def fault(content: Content) -> None:
        for name in names:
            del content["model_state_dict"][name]

    return fault


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (put("input_norm.bias", 3), ["['input_norm.bias'] is a int", "tensor"]),
        (put("input_norm.bias", [0.0] * DIM), ["['input_norm.bias'] is a list", "tensor"]),
        (take_away("post_norm.bias"), ["1 missing weights: post_norm.bias"]),
        (
            take_away("output_proj.weight_u", "input_norm.weight"),
            ["2 missing weights: input_norm.weight, output_proj.weight_u"],
        ),
        (put("extra.weight", torch.zeros(1)), ["1 unexpected weights: extra.weight"]),
        (put("output_proj.weight", torch.zeros(DIM, DIM)), ["unexpected weights: output_proj.w"]),
        (
            put("pos_encoding.pe", torch.zeros(1, 2000, DIM)),
            ["unexpected weights: pos_encoding.pe"],
        ),
        (
            put("input_norm.bias", torch.zeros(DIM + 1)),
            ["1 weights of the wrong shape: input_norm.bias is [17] instead of [16]"],
        ),
        (
            put("output_proj.weight_v", torch.zeros(DIM, 1)),
            ["output_proj.weight_v is [16, 1] instead of [16]"],
        ),
        (spoil("transformer.layers.0.linear1.weight", float("nan")), ["not finite", "0.linear1.w"]),
        (spoil("output_proj.weight_u", float("nan")), ["not finite", "output_proj.weight_u"]),
        (spoil("post_norm.bias", float("inf")), ["not finite", "post_norm.bias"]),
        (spoil("post_norm.bias", float("-inf")), ["not finite", "post_norm.bias"]),
        (put("input_norm.bias", torch.zeros(DIM, dtype=torch.int64)), ["input_norm.bias"]),
        (
            put("output_proj.weight_orig", torch.zeros(DIM, DIM)),
            ["spectral norm", "output_proj.weight_orig", "0/0"],
        ),
        (put("output_proj.weight_v", torch.zeros(DIM)), ["spectral norm", "output_proj"]),
    ],
)
def test_weights_that_do_not_serve(path: Path, fault: Fault, words: list[str]) -> None:
    content = sound_content()
    fault(content)
    torch.save(content, path)
    sentence = refusal(path)
    for word in words:
        assert word in sentence


def test_weights_of_another_form(path: Path) -> None:
    content = sound_content()
    content["args"]["num_transformer_layers"] = 2
    torch.save(content, path)
    sentence = refusal(path)
    assert "missing weights: cascade_stages.0.input_norm.bias" in sentence
    assert "unexpected weights: input_norm.bias" in sentence
    assert "more" in sentence  # not all of dozens of names


def test_an_agent_without_its_weights(path: Path) -> None:
    content = sound_content(layers=2)
    content["args"]["use_compositional_agent"] = True
    torch.save(content, path)
    assert "missing weights: creative_agent.component_selector.0.bias" in refusal(path)


def test_more_layers_than_there_are_weights(path: Path) -> None:
    content = sound_content()
    content["args"]["num_layers"] = 2
    torch.save(content, path)
    assert "12 missing weights: transformer.layers.1." in refusal(path)


def test_weights_too_large_for_fp32(path: Path) -> None:
    content = sound_content()
    content["model_state_dict"]["post_norm.bias"] = torch.full((DIM,), 1e300, dtype=torch.float64)
    torch.save(content, path)
    assert "post_norm.bias" in refusal(path)


@pytest.mark.parametrize(
    "bias",
    [torch.zeros(DIM, dtype=torch.float8_e4m3fn), torch.zeros(DIM).to_sparse()],
    ids=["float8", "sparse"],
)
def test_weights_of_a_kind_that_cannot_be_checked(path: Path, bias: torch.Tensor) -> None:
    content = sound_content()
    content["model_state_dict"]["post_norm.bias"] = bias
    torch.save(content, path)
    assert "post_norm.bias" in refusal(path)
