"""The two optional agents that preprocess the latents of both tracks for the cascade.

Both take and return latents [B, D, T]. Only D is configurable; their hidden sizes are fixed.
"""

import torch
from torch import Tensor, nn

from handlers.model.layers import SinusoidalEncoding, TransformerEncoder, rms

FEATURES = 256
COMPONENT_CHANNELS = 64
COMPONENT_KERNELS = {"rhythm": (3, 5), "harmony": (7, 9), "timbre": (15, 21)}
COMPOSER_DIM = 512
LATENT_LIMIT = 50.0
LEAKY_SLOPE = 0.2


class MaskGenerator(nn.Module):
    """Computes one mask [B, D, T] in (0, 1) per track from the latents of both tracks."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.input_analyzer = self._analyzer(dim)
        self.target_analyzer = self._analyzer(dim)
        self.cross_attention = nn.MultiheadAttention(FEATURES, num_heads=4)
        self.input_mask_generator = self._mask_head(dim)
        self.target_mask_generator = self._mask_head(dim)

    @staticmethod
    def _analyzer(dim: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv1d(dim, FEATURES, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(FEATURES, FEATURES, 3, padding=1),
            nn.ReLU(),
        )

    @staticmethod
    def _mask_head(dim: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv1d(FEATURES, FEATURES // 2, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(FEATURES // 2, dim, 1),
            nn.Sigmoid(),
        )

    def _attend(self, query: Tensor, context: Tensor) -> Tensor:
        """Apply cross-attention over time: two inputs [T, B, 256] -> [B, 256, T]."""
        attended, _ = self.cross_attention(query, context, context, need_weights=False)
        features: Tensor = attended.permute(1, 2, 0)
        return features

    def forward(self, track1: Tensor, track2: Tensor) -> tuple[Tensor, Tensor]:
        features1 = self.input_analyzer(track1).permute(2, 0, 1)
        features2 = self.target_analyzer(track2).permute(2, 0, 1)
        mask1 = self.input_mask_generator(self._attend(features1, features2))
        mask2 = self.target_mask_generator(self._attend(features2, features1))
        return mask1, mask2


class MaskingAgent(nn.Module):
    """Multiplies each track's latents by its mask, then restores their original rms."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mask_generator = MaskGenerator(dim)

    def forward(self, track1: Tensor, track2: Tensor) -> tuple[Tensor, Tensor]:
        mask1, mask2 = self.mask_generator(track1, track2)
        masked1, masked2 = track1 * mask1, track2 * mask2
        return masked1 * (rms(track1) / rms(masked1)), masked2 * (rms(track2) / rms(masked2))


class ComponentExtractor(nn.Module):
    """Splits a track into rhythm, harmony and timbre: [B, D, T] -> [B, 3 * 64, T].

    The layers are not nested (`rhythm_conv1`, ...), to match the checkpoint's keys.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        for branch, (kernel1, kernel2) in COMPONENT_KERNELS.items():
            self.add_module(f"{branch}_conv1", nn.Conv1d(dim, 128, kernel1, padding="same"))
            self.add_module(
                f"{branch}_conv2", nn.Conv1d(128, COMPONENT_CHANNELS, kernel2, padding="same")
            )
            self.add_module(f"{branch}_norm", nn.BatchNorm1d(COMPONENT_CHANNELS))
            self.add_module(f"{branch}_skip", nn.Conv1d(dim, COMPONENT_CHANNELS, 1))
        self.act = nn.LeakyReLU(LEAKY_SLOPE)

    def _component(self, branch: str, x: Tensor) -> Tensor:
        conv1, conv2 = self.get_submodule(f"{branch}_conv1"), self.get_submodule(f"{branch}_conv2")
        norm, skip = self.get_submodule(f"{branch}_norm"), self.get_submodule(f"{branch}_skip")
        component: Tensor = norm(self.act(conv2(self.act(conv1(x)))) + skip(x))
        return component

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._component(branch, x) for branch in COMPONENT_KERNELS], dim=1)


class Composer(nn.Module):
    """Composes a latent from weighted components: [B, 6 * 64, T] -> [B, D, T]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        components = 2 * len(COMPONENT_KERNELS) * COMPONENT_CHANNELS
        self.component_projection = nn.Linear(components, COMPOSER_DIM)
        self.pos_encoder = SinusoidalEncoding(COMPOSER_DIM)
        self.composer = TransformerEncoder(COMPOSER_DIM, nhead=8, num_layers=4)
        self.output_projection = nn.Sequential(
            nn.Linear(COMPOSER_DIM, 256),
            nn.GELU(),
            nn.Dropout(),  # inactive; keeps the indices of the checkpoint's keys
            nn.Linear(256, dim),
        )

    def forward(self, components: Tensor) -> Tensor:
        h = self.pos_encoder(self.component_projection(components.transpose(1, 2)))
        latent: Tensor = self.output_projection(self.composer(h))
        return latent.transpose(1, 2)


class ComposingAgent(nn.Module):
    """Replaces track 1 by a composition of both tracks' components; track 2 is unchanged."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.input_extractor = ComponentExtractor(dim)
        self.target_extractor = ComponentExtractor(dim)
        count = 2 * len(COMPONENT_KERNELS)
        self.component_selector = nn.Sequential(
            nn.Conv1d(count * COMPONENT_CHANNELS, 256, 1),
            nn.LeakyReLU(LEAKY_SLOPE),
            nn.Conv1d(256, count, 1),
        )
        self.composer = Composer(dim)

    def forward(self, track1: Tensor, track2: Tensor) -> tuple[Tensor, Tensor]:
        components = torch.cat([self.input_extractor(track1), self.target_extractor(track2)], dim=1)
        weights = self.component_selector(components).softmax(dim=1)
        weighted = components * weights.repeat_interleave(COMPONENT_CHANNELS, dim=1)
        composed = self.composer(weighted).clamp(-LATENT_LIMIT, LATENT_LIMIT)
        return composed.nan_to_num(nan=0.0), track2
