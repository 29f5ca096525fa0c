"""SimpleTransformer: maps the latents of two tracks to the latent of the new music.

Latents are [B, D, T] in the interface and [B, T, D] internally; T is at most 2000 frames (EnCodec
produces 75 per second). Only inference is implemented: dropout is inactive, and the
`anti_cheating` noise of training is left out. `output_proj` is a plain Linear layer that holds the
spectrally normalized weight, which `handlers.model.checkpoint` computes when it loads a checkpoint.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from handlers.model.creative_agents import ComposingAgent, MaskingAgent
from handlers.model.layers import SinusoidalEncoding, TransformerEncoder, rms

CASCADE_STAGES = 2
GAIN_RANGE = (0.7, 1.5)


@dataclass(frozen=True)
class ModelArgs:
    """The training arguments that determine the shape of the model, with their defaults.

    `num_transformer_layers` is 1 for the single-stage model; any larger number selects the cascade,
    which always has two stages. `num_layers` is the number of encoder layers of each transformer.
    """

    encoding_dim: int = 128
    nhead: int = 8
    num_layers: int = 4
    num_transformer_layers: int = 1
    use_creative_agent: bool = False
    use_compositional_agent: bool = False

    @property
    def is_cascade(self) -> bool:
        return self.num_transformer_layers > 1

    @property
    def form(self) -> str:
        """The human-readable name of the model's architecture."""
        if not self.is_cascade:
            return "single stage"
        if self.use_compositional_agent:
            return "cascade with composing agent"
        if self.use_creative_agent:
            return "cascade with masking agent"
        return "cascade"


class Stage(nn.Module):
    """A transformer with layer norms before and after it: [B, T, d_model] -> [B, T, out_dim]."""

    def __init__(self, d_model: int, out_dim: int, nhead: int, num_layers: int) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(d_model)
        self.transformer = TransformerEncoder(d_model, nhead, num_layers)
        self.post_norm = nn.LayerNorm(d_model)
        self.output_proj = nn.Linear(d_model, out_dim)

    def forward(self, h: Tensor) -> Tensor:
        projected: Tensor = self.output_proj(self.post_norm(self.transformer(self.input_norm(h))))
        return projected


class CascadeStage(Stage):
    """A stage that adds a positional encoding to its input."""

    def __init__(self, d_model: int, out_dim: int, nhead: int, num_layers: int) -> None:
        super().__init__(d_model, out_dim, nhead, num_layers)
        self.pos_encoding = SinusoidalEncoding(d_model)

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(self.pos_encoding(h))


class SingleStageTransformer(Stage):
    """The single-stage model: transforms track 1 and ignores track 2."""

    uses_track2 = False

    def __init__(self, args: ModelArgs) -> None:
        super().__init__(args.encoding_dim, args.encoding_dim, args.nhead, args.num_layers)

    def forward(self, track1: Tensor, track2: Tensor | None = None) -> Tensor:
        """Map the latent of track 1 [B, D, T] to the latent of the new music [B, D, T]."""
        x = track1.transpose(1, 2)
        return (super().forward(x) + x).transpose(1, 2)


class CascadeTransformer(nn.Module):
    """The cascade: two stages over both tracks, which a creative agent may preprocess."""

    uses_track2 = True

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        dim = args.encoding_dim
        self.cascade_stages = nn.ModuleList(
            CascadeStage((stage + 2) * dim, dim, args.nhead, args.num_layers)
            for stage in range(CASCADE_STAGES)
        )
        self.creative_agent: nn.Module | None = None
        if args.use_compositional_agent:
            self.creative_agent = ComposingAgent(dim)
        elif args.use_creative_agent:
            self.creative_agent = MaskingAgent(dim)

    def forward(self, track1: Tensor, track2: Tensor) -> Tensor:
        """Map the latents of both tracks [B, D, T] to the latent of the new music [B, D, T]."""
        a, b = track1, track2
        if self.creative_agent is not None:
            a, b = self.creative_agent(a, b)
        stage_inputs = [a, b]
        y = a
        for stage in self.cascade_stages:
            residual = torch.stack(stage_inputs).mean(0)
            h = torch.cat(stage_inputs, dim=1).transpose(1, 2)
            y = match_loudness(stage(h).transpose(1, 2) + residual, a, b)
            stage_inputs = [a, y, b]
        return y


def match_loudness(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Scale each item of y [B, D, T] to the joint rms of a and b; the gain is within GAIN_RANGE."""
    target = torch.sqrt((rms(a) ** 2 + rms(b) ** 2) / 2)
    return y * (target / (rms(y) + 1e-8)).clamp(*GAIN_RANGE)


SimpleTransformer = SingleStageTransformer | CascadeTransformer


def build_model(args: ModelArgs) -> SimpleTransformer:
    """Build the untrained model that `args` describe, in eval mode."""
    model = CascadeTransformer(args) if args.is_cascade else SingleStageTransformer(args)
    return model.eval()
