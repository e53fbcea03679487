"""Joins of the 3D branch to the 2D encoder: each takes the two feature maps at one scale and gives the joined map.

Shapes: 3D features ``(B, C, H, W, S)`` with S slices left after pooling, 2D features ``(B, C, H, W)``, joined map
``(B, out_channels, H, W)``. Sums begin with the 2D features: a sum has the first term's layout in memory, and the 2D
features' is channels last, which a map projected from one slice need not be.
"""

from __future__ import annotations

import torch
from torch import nn

from bundle.networks.blocks import ChannelProjection, slices_as_channels
from bundle.networks.settings import SliceStackUNetSettings

__all__ = [
    "AddFusion",
    "ConcatenateFusion",
    "CrossDimensionFusion",
    "SliceProjection",
    "SqueezeExcitationFusion",
    "make_fusion",
]


class SlicesAsChannels(nn.Module):
    """:func:`slices_as_channels` as a layer."""

    def forward(self, features_3d: torch.Tensor) -> torch.Tensor:
        """Return ``(B, S * C, H, W)`` of ``(B, C, H, W, S)``."""
        return slices_as_channels(features_3d)


class SliceProjection(nn.Sequential):
    """3D features to a 2D map: conv 1x1x1 to one channel, slices become channels, conv 3x3 to C (thesis 3.3).

    Args:
        channels: C of the 3D features ``(B, C, H, W, S)`` and of the result ``(B, C, H, W)``.
        slices: S, the slices left at this scale.
        norm: batch norm before the ReLU, as CFF has it and D-UNet does not.
    """

    def __init__(self, channels: int, slices: int, norm: bool) -> None:
        layers: list[nn.Module] = [
            ChannelProjection(channels),
            SlicesAsChannels(),
            nn.Conv2d(slices, channels, kernel_size=3, padding=1),
        ]
        if norm:
            layers.append(nn.BatchNorm2d(channels))
        super().__init__(*layers, nn.ReLU())


def _channel_weights(in_channels: int, hidden: int, out_channels: int, activation: nn.Module) -> nn.Sequential:
    """Channel means ``(B, in_channels)`` to channel weights ``(B, out_channels, 1, 1)`` in 0..1; no biases.

    MONAI's ``ChannelSELayer`` has biases, which the thesis's parameter counts exclude.
    """
    return nn.Sequential(
        nn.Linear(in_channels, hidden, bias=False),
        activation,
        nn.Linear(hidden, out_channels, bias=False),
        nn.Sigmoid(),
        nn.Unflatten(1, (out_channels, 1, 1)),
    )


class AddFusion(nn.Module):
    """Plain addition (table 3.5)."""

    def __init__(self, channels: int, slices: int) -> None:
        super().__init__()
        self.out_channels = channels
        self.project = SliceProjection(channels, slices, norm=True)

    def forward(self, features_3d: torch.Tensor, features_2d: torch.Tensor) -> torch.Tensor:
        """Return the joined map."""
        return features_2d + self.project(features_3d)


class ConcatenateFusion(nn.Module):
    """Plain concatenation, twice the channels (table 3.5)."""

    def __init__(self, channels: int, slices: int) -> None:
        super().__init__()
        self.out_channels = 2 * channels
        self.project = SliceProjection(channels, slices, norm=True)

    def forward(self, features_3d: torch.Tensor, features_2d: torch.Tensor) -> torch.Tensor:
        """Return the joined map."""
        return torch.cat([self.project(features_3d), features_2d], dim=1)


class SqueezeExcitationFusion(nn.Module):
    """D-UNet's join: squeeze-excitation on each of the two maps alone, then addition (Zhou et al., TCBB 2021)."""

    def __init__(self, channels: int, slices: int, reduction: int = 16) -> None:
        super().__init__()
        self.out_channels = channels
        self.project = SliceProjection(channels, slices, norm=False)
        hidden = max(channels // reduction, 1)
        self.excite_volume = _channel_weights(channels, hidden, channels, nn.ReLU())
        self.excite_plane = _channel_weights(channels, hidden, channels, nn.ReLU())

    def forward(self, features_3d: torch.Tensor, features_2d: torch.Tensor) -> torch.Tensor:
        """Return the joined map."""
        projected = self.project(features_3d)
        excited_3d = projected * self.excite_volume(projected.mean(dim=(2, 3)))
        return features_2d * self.excite_plane(features_2d.mean(dim=(2, 3))) + excited_3d


class CrossDimensionFusion(nn.Module):
    """Cross-dimension feature fusion, CFF (thesis 3.3, eq. 3.5-3.8).

    The global means of both maps together decide a weight for every channel of each.

    Args:
        channels: C of both inputs.
        slices: slices of the 3D features.
        reduction: R of eq. 3.8, the thesis's 8 or 32.
        concatenate: concatenate the weighted maps instead of adding them (CFF-Concatenate, table 3.5).
    """

    def __init__(self, channels: int, slices: int, reduction: int = 8, concatenate: bool = False) -> None:
        super().__init__()
        self.concatenate = concatenate
        self.out_channels = 2 * channels if concatenate else channels
        self.project = SliceProjection(channels, slices, norm=True)
        hidden = max(channels // reduction, 1)
        self.weigh_volume = _channel_weights(2 * channels, hidden, channels, nn.PReLU())
        self.weigh_plane = _channel_weights(2 * channels, hidden, channels, nn.PReLU())

    def forward(self, features_3d: torch.Tensor, features_2d: torch.Tensor) -> torch.Tensor:
        """Return the joined map."""
        projected = self.project(features_3d)
        descriptor = torch.cat([projected.mean(dim=(2, 3)), features_2d.mean(dim=(2, 3))], dim=1)
        weighted_3d = projected * self.weigh_volume(descriptor)
        weighted_2d = features_2d * self.weigh_plane(descriptor)
        if self.concatenate:
            return torch.cat([weighted_3d, weighted_2d], dim=1)
        return weighted_2d + weighted_3d


def make_fusion(
    channels: int, slices: int, settings: SliceStackUNetSettings
) -> AddFusion | ConcatenateFusion | CrossDimensionFusion | SqueezeExcitationFusion:
    """Return the join that the settings ask for.

    Args:
        channels: C of both feature maps.
        slices: S of the 3D features.
        settings: of the network.
    """
    if settings.fusion in ("cff", "cff_concatenate"):
        concatenate = settings.fusion == "cff_concatenate"
        return CrossDimensionFusion(channels, slices, settings.fusion_reduction, concatenate)
    if settings.fusion == "squeeze_excitation":
        return SqueezeExcitationFusion(channels, slices)
    return AddFusion(channels, slices) if settings.fusion == "add" else ConcatenateFusion(channels, slices)
