"""A reference implementation of SimpleTransformer: plain formulas over checkpoint weights, in fp64.

Shares no code with the deployed model, so that a mistake in one does not go unnoticed.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tests.support.model_weights import Weights

BRANCHES = ("rhythm", "harmony", "timbre")


class Reference:
    """The model of a checkpoint; latents [B, D, T] in fp64.

    Args:
        weights: `model_state_dict`, without the DDP prefix.
        nhead: attention heads of the transformers in the stages.
    """

    def __init__(self, weights: Weights, nhead: int) -> None:
        self.weights = {name: value.double() for name, value in weights.items()}
        self.nhead = nhead

    def single_stage(self, track1: Tensor) -> Tensor:
        x = track1.double().transpose(1, 2)
        return (self._stage("", x) + x).transpose(1, 2)

    def cascade(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = a.double(), b.double()
        y = self._cascade_stage(0, [a, b])
        return self._cascade_stage(1, [a, y, b])

    def masked(self, track1: Tensor, track2: Tensor) -> tuple[Tensor, Tensor]:
        """Both tracks after the masking agent."""
        track1, track2 = track1.double(), track2.double()
        features1, features2 = self._features("input", track1), self._features("target", track2)
        masked1 = track1 * self._mask("input", features1, features2)
        masked2 = track2 * self._mask("target", features2, features1)
        return masked1 * _rms(track1) / _rms(masked1), masked2 * _rms(track2) / _rms(masked2)

    def composed(self, track1: Tensor, track2: Tensor) -> Tensor:
        """Output of the composing agent, before the limiter."""
        components = [
            self._component(f"{extractor}.{branch}", track.double())
            for extractor, track in (("input_extractor", track1), ("target_extractor", track2))
            for branch in BRANCHES
        ]
        chosen = self._conv("creative_agent.component_selector.0", torch.cat(components, 1))
        chosen = self._conv("creative_agent.component_selector.2", F.leaky_relu(chosen, 0.2))
        shares = torch.softmax(chosen, 1)
        weighted = [part * shares[:, [index]] for index, part in enumerate(components)]
        h = torch.cat(weighted, 1).transpose(1, 2)
        h = self._linear("creative_agent.composer.component_projection", h)
        h = h + self.weights["creative_agent.composer.pos_encoder.pe"][:, : h.shape[1]]
        h = self._encoder("creative_agent.composer.composer", h, 8)
        h = F.gelu(self._linear("creative_agent.composer.output_projection.0", h))
        return self._linear("creative_agent.composer.output_projection.3", h).transpose(1, 2)

    def _cascade_stage(self, stage: int, inputs: list[Tensor]) -> Tensor:
        prefix = f"cascade_stages.{stage}."
        h = torch.cat(inputs, 1).transpose(1, 2)
        h = h + self.weights[f"{prefix}pos_encoding.pe"][:, : h.shape[1]]
        y = self._stage(prefix, h).transpose(1, 2) + sum(inputs) / len(inputs)
        common = torch.sqrt((_rms(inputs[0]) ** 2 + _rms(inputs[-1]) ** 2) / 2)
        return y * torch.clamp(common / (_rms(y) + 1e-8), 0.7, 1.5)

    def _stage(self, prefix: str, h: Tensor) -> Tensor:
        h = self._encoder(f"{prefix}transformer", self._norm(f"{prefix}input_norm", h), self.nhead)
        h = self._norm(f"{prefix}post_norm", h)
        weight, u, v, bias = (
            self.weights[f"{prefix}output_proj.{part}"]
            for part in ("weight_orig", "weight_u", "weight_v", "bias")
        )
        return h @ (weight / (u @ weight @ v)).T + bias

    def _encoder(self, prefix: str, h: Tensor, heads: int) -> Tensor:
        layer = 0
        while (block := f"{prefix}.layers.{layer}.") + "norm1.weight" in self.weights:
            h = self._norm(f"{block}norm1", h + self._attend(f"{block}self_attn", h, h, heads))
            wide = F.gelu(self._linear(f"{block}linear1", h))
            h = self._norm(f"{block}norm2", h + self._linear(f"{block}linear2", wide))
            layer += 1
        return h

    def _attend(self, name: str, query: Tensor, context: Tensor, heads: int) -> Tensor:
        """Multi-head attention of [B, T, d] to [B, T, d]."""
        weights = self.weights[f"{name}.in_proj_weight"].chunk(3)
        biases = self.weights[f"{name}.in_proj_bias"].chunk(3)
        q, k, v = (
            (x @ weight.T + bias).reshape(*x.shape[:2], heads, -1).transpose(1, 2)
            for x, weight, bias in zip((query, context, context), weights, biases, strict=True)
        )
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        attended = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self._linear(f"{name}.out_proj", attended)

    def _features(self, track: str, latent: Tensor) -> Tensor:
        """Features that an analyzer extracts from a latent: [B, T, 256]."""
        name = f"creative_agent.mask_generator.{track}_analyzer"
        return F.relu(self._conv(f"{name}.2", F.relu(self._conv(f"{name}.0", latent)))).mT

    def _mask(self, track: str, query: Tensor, context: Tensor) -> Tensor:
        name = "creative_agent.mask_generator"
        attended = self._attend(f"{name}.cross_attention", query, context, 4).mT
        hidden = F.relu(self._conv(f"{name}.{track}_mask_generator.0", attended))
        return torch.sigmoid(self._conv(f"{name}.{track}_mask_generator.2", hidden))

    def _component(self, branch: str, x: Tensor) -> Tensor:
        name = f"creative_agent.{branch}"
        h = F.leaky_relu(self._conv(f"{name}_conv1", x), 0.2)
        h = F.leaky_relu(self._conv(f"{name}_conv2", h), 0.2) + self._conv(f"{name}_skip", x)
        mean, variance, weight, bias = (
            self.weights[f"{name}_norm.{part}"][:, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (h - mean) / torch.sqrt(variance + 1e-5) * weight + bias

    def _conv(self, name: str, x: Tensor) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        return F.conv1d(x, weight, self.weights[f"{name}.bias"], padding=weight.shape[2] // 2)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, 1e-5)


def _rms(v: Tensor) -> Tensor:
    return torch.sqrt((v**2).mean(dim=(1, 2), keepdim=True) + 1e-8)
