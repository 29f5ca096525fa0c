"""A batch is one call of each stage and produces the same output as its jobs one by one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch import Tensor, nn

from handlers.codec.codec import Codec
from handlers.model.simple_transformer import ModelArgs, SimpleTransformer, build_model
from handlers.pipeline import SEGMENT_SAMPLES, Pipeline

HOP = 320
SHORT = 75 * HOP  # the pipeline accepts clips of any length, and one second is fast

Calls = dict[str, list[Tensor]]


def random_model(stages: int) -> SimpleTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(10)
        return build_model(ModelArgs(num_layers=1, num_transformer_layers=stages))


@pytest.fixture(scope="module")
def cascade(starter_codec: Codec) -> Pipeline:
    return Pipeline(starter_codec, random_model(stages=2), torch.device("cpu"), "fp32")


@pytest.fixture(scope="module")
def single_stage(starter_codec: Codec) -> Pipeline:
    return Pipeline(starter_codec, random_model(stages=1), torch.device("cpu"), "fp32")


def clips(jobs: int, samples: int, seed: int) -> Tensor:
    noise = torch.randn(jobs, 1, samples, generator=torch.Generator().manual_seed(seed))
    return (0.3 * noise).clamp(-1, 1)


@contextmanager
def recorded_calls(pipeline: Pipeline) -> Iterator[Calls]:
    """Records the outputs of all calls of encoder, model and decoder within the context."""
    parts: dict[str, nn.Module] = {
        "encoder": pipeline.encoder,
        "model": pipeline.model,
        "decoder": pipeline.decoder,
    }
    calls: Calls = {name: [] for name in parts}
    with ExitStack() as hooks:
        for name, part in parts.items():
            outputs = calls[name]
            hook = part.register_forward_hook(
                lambda _module, _inputs, output, outputs=outputs: outputs.append(output)
            )
            hooks.callback(hook.remove)
        yield calls


def test_a_batch_produces_the_same_output_as_single_jobs(cascade: Pipeline) -> None:
    track1, track2 = clips(3, SHORT, seed=1), clips(3, SHORT, seed=2)
    together = cascade.generate(track1, track2).waveforms
    alone = [cascade.generate(track1[[job]], track2[[job]]).waveforms for job in range(len(track1))]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)
    assert together.std() > 0.01


def test_a_batch_is_one_call_of_each_part(cascade: Pipeline) -> None:
    with recorded_calls(cascade) as calls:
        cascade.generate(clips(3, SHORT, seed=1), clips(3, SHORT, seed=2))
    assert {name: [len(output) for output in outputs] for name, outputs in calls.items()} == {
        "encoder": [6],
        "model": [3],
        "decoder": [3],
    }


def test_a_single_stage_does_not_encode_track_2(single_stage: Pipeline) -> None:
    track1 = clips(2, SHORT, seed=1)
    with recorded_calls(single_stage) as calls:
        generated = single_stage.generate(track1, clips(2, SHORT, seed=2)).waveforms
    assert [len(latents) for latents in calls["encoder"]] == [2]
    assert torch.equal(generated, single_stage.generate(track1, torch.zeros(2, 1, SHORT)).waveforms)


def test_tracks_keep_their_roles(cascade: Pipeline, starter_codec: Codec) -> None:
    track1, track2 = clips(2, SHORT, seed=1), clips(2, SHORT, seed=2)
    generated = cascade.generate(track1, track2).waveforms
    expected = reference_output(starter_codec, track1, track2)
    torch.testing.assert_close(generated, expected, rtol=0, atol=1e-5)


def reference_output(codec: Codec, track1: Tensor, track2: Tensor) -> Tensor:
    """The output of EnCodec's own network and the plain model, in float32."""
    model = random_model(stages=2)
    with torch.inference_mode():
        latent = model(codec.encode(track1), codec.encode(track2))
        return codec.decode(latent)[:, 0].clamp(-1, 1)


def test_bf16_is_close_and_its_latents_are_float32(starter_codec: Codec) -> None:
    pipeline = Pipeline(starter_codec, random_model(stages=2), torch.device("cpu"), "bf16")
    track1, track2 = clips(2, SHORT, seed=1), clips(2, SHORT, seed=2)
    with recorded_calls(pipeline) as calls:
        generated = pipeline.generate(track1, track2).waveforms
    assert calls["encoder"][0].dtype == calls["decoder"][0].dtype == torch.bfloat16
    assert calls["model"][0].dtype == generated.dtype == torch.float32
    expected = reference_output(starter_codec, track1, track2)
    noise = (generated - expected).square().sum()
    assert 10 * torch.log10(expected.square().sum() / noise) > 33


def test_decoder_output_beyond_full_scale_is_clipped(cascade: Pipeline) -> None:
    loud = clips(1, SHORT, seed=3).sign()
    with recorded_calls(cascade) as calls:
        waveform = cascade.generate(loud, loud).waveforms
    decoded = calls["decoder"][0][:, 0]
    assert decoded.abs().max() > 1
    assert waveform.abs().max() == 1
    assert torch.equal(waveform, decoded.clamp(-1, 1))


def test_a_job_is_sixteen_seconds_and_every_stage_is_timed(cascade: Pipeline) -> None:
    generated = cascade.generate(clips(1, SEGMENT_SAMPLES, seed=1), clips(1, SEGMENT_SAMPLES, 2))
    assert SEGMENT_SAMPLES == 16 * 24_000
    assert generated.waveforms.shape == (1, SEGMENT_SAMPLES)
    assert generated.waveforms.dtype == torch.float32
    assert generated.waveforms.abs().max() <= 1
    assert list(generated.seconds) == ["encode", "cascade", "decode"]
    assert min(generated.seconds.values()) > 0
