"""Computes a lower bound on the time that this machine needs for a job.

    python -m benchmarks.floor

Counts the floating-point operations of a job's matrix products, including those in convolutions,
attention and LSTMs; a multiplication and an addition count as two operations. The bound is that
number divided by the rate at which the machine multiplies large matrices.
"""

import time

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.weights import ARGS
from handlers.codec import encodec_network
from handlers.model.simple_transformer import build_model
from handlers.pipeline import SEGMENT_SAMPLES
from handlers.precision import DTYPES, Precision, choose_precision

SIZES = (2048, 3072)
REPEATS = 3


def job_flops() -> dict[str, int]:
    """Return the floating-point operations of a job with the default cascade, by stage.

    They are counted on the meta device, which computes nothing and does not fuse attention into a
    single operation that the counter does not support.
    """
    codec, model = encodec_network.build(), build_model(ARGS)
    encodec_network.fold_norms(codec)
    for part in (codec.encoder, codec.decoder):
        for layer in part.model:
            if hasattr(layer, "lstm"):
                layer.lstm = LstmProducts(layer.lstm)
    codec.to("meta")
    model.to("meta")
    clips = torch.zeros(2, 1, SEGMENT_SAMPLES, device="meta")
    flops = {}
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            latents = codec.encoder(clips)
        flops["encode"] = counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            latent = model(latents[:1], latents[1:])
        flops["cascade"] = counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            codec.decoder(latent)
        flops["decode"] = counter.get_total_flops()
    return flops


class LstmProducts(nn.Module):
    """The matrix products of an LSTM whose input and state have the same width.

    Replaces torch's LSTM, which the counter does not support. One product with all T states stands
    for the T products with one state each, because the number of operations is the same.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        assert lstm.input_size == lstm.hidden_size
        self.lstm = lstm

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Map [T, B, width] to itself and no state, which is the interface of the LSTM."""
        for layer in range(self.lstm.num_layers):
            for source in ("ih", "hh"):
                x @ getattr(self.lstm, f"weight_{source}_l{layer}").T
        return x, None


def precisions() -> tuple[Precision, ...]:
    """Return the precisions to measure: bf16 only if the CPU supports it natively."""
    chosen = choose_precision(None, torch.device("cpu"))
    return ("fp32", "bf16") if chosen == "bf16" else ("fp32",)


def gemm_rate(precision: Precision) -> float:
    """Return the highest FLOP/s over several products of square matrices, with all threads."""
    best = 0.0
    for size in SIZES:
        left, right = torch.randn(2, size, size).to(DTYPES[precision])
        for _ in range(REPEATS):
            began = time.perf_counter()
            torch.mm(left, right)
            best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def main() -> None:
    flops = job_flops()
    for stage, count in flops.items():
        print(f"{stage}: {count / 1e9:.1f} GFLOP")
    print(f"one job: {sum(flops.values()) / 1e9:.1f} GFLOP")
    for precision in precisions():
        rate = gemm_rate(precision)
        print(
            f"{precision}: {rate / 1e9:.0f} GFLOP/s; one job takes at least "
            f"{sum(flops.values()) / rate:.3f} s"
        )


if __name__ == "__main__":
    main()
