"""How quickly could this machine compute a job at best?

    python -m benchmarks.floor

Prints the floating-point operations of a job, which are those of its matrix products (convolutions,
attention and LSTMs included; a multiplication and an addition are two), and how many of them the
machine does in a second when it multiplies large matrices and nothing else.
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
    """By stage, those of one job of the default cascade.

    Counted on the meta device, where nothing is computed: there attention is not fused into one
    operation, which the counter would not know.
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
    """The matrix products of an LSTM whose input is as wide as its state, and nothing else of it.

    The counter does not know torch's LSTM. A product with each of T states costs what one product
    with all of them costs.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        assert lstm.input_size == lstm.hidden_size
        self.lstm = lstm

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """[T, B, width] -> the same, as the LSTM has it, and no state."""
        for layer in range(self.lstm.num_layers):
            for of in ("ih", "hh"):
                x @ getattr(self.lstm, f"weight_{of}_l{layer}").T
        return x, None


def precisions() -> tuple[Precision, ...]:
    """Those worth measuring: bf16 only where the service chooses it, as the CPU has it natively."""
    served = choose_precision(None, torch.device("cpu"))
    return ("fp32", "bf16") if served == "bf16" else ("fp32",)


def gemm_rate(precision: Precision) -> float:
    """FLOP/s of the quickest of several products of square matrices, on all threads."""
    best = 0.0
    for size in SIZES:
        one, other = torch.randn(2, size, size).to(DTYPES[precision])
        for _ in range(REPEATS):
            began = time.perf_counter()
            torch.mm(one, other)
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
            f"{precision}: {rate / 1e9:.0f} GFLOP/s; one job takes "
            f"{sum(flops.values()) / rate:.3f} s at least"
        )


if __name__ == "__main__":
    main()
