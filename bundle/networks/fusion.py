"""Joins of the 3D branch to the 2D encoder: each takes the two feature maps at one scale and returns the joined map.

Shapes: 3D features ``(B, C, H, W, S)`` with S slices left after pooling, 2D features ``(B, C, H, W)``, joined map
``(B, out_channels, H, W)``. Sums begin with the 2D features, because a sum has the memory layout of its first term: the
2D features are channels last, a map projected from one slice may not be.
"""

from __future__ import annotations

import torch
from torch import nn

from bundle.networks.blocks import ChannelProjection, slices_as_channels
from bundle.networks.settings import SliceStackUNetSettings

__all__ = ["CrossDimensionFusion", "Fusion", "SliceProjection", "SqueezeExcitationFusion", "make_fusion"]


class SlicesAsChannels(nn.Module):
    """Layer of :func:`slices_as_channels`."""

    def forward(self, features_3d: torch.Tensor) -> torch.Tensor:
        """Return ``(B, S * C, H, W)`` of ``(B, C, H, W, S)``."""
        return slices_as_channels(features_3d)


class SliceProjection(nn.Sequential):
    """3D features to a 2D map: conv 1x1x1 to one channel, slices become channels, conv 3x3 to C (thesis 3.3).

    Args:
        channels: C of the 3D features ``(B, C, H, W, S)`` and of the result ``(B, C, H, W)``.
        slices: S, the slices left at this scale.
        norm: batch norm before the ReLU, which CFF has and D-UNet has not.
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
    """Return layers from channel means ``(B, in_channels)`` to weights ``(B, out_channels, 1, 1)`` in 0..1, no biases.

    MONAI's ``ChannelSELayer`` has biases, which the thesis's parameter counts exclude.
    """
    return nn.Sequential(
        nn.Linear(in_channels, hidden, bias=False),
        activation,
        nn.Linear(hidden, out_channels, bias=False),
        nn.Sigmoid(),
        nn.Unflatten(1, (out_channels, 1, 1)),
    )


class Fusion(nn.Module):
    """Join of the projected 3D features and the 2D features: plain addition or plain concatenation (table 3.5).

    A subclass weighs the two maps before that.

    Args:
        channels: C of both inputs.
        slices: S of the 3D features.
        concatenate: concatenate the maps instead of adding them.
        norm: whether the projection has a batch norm.
    """

    def __init__(self, channels: int, slices: int, concatenate: bool = False, norm: bool = True) -> None:
        super().__init__()
        self.concatenate = concatenate
        self.out_channels = 2 * channels if concatenate else channels
        self.project = SliceProjection(channels, slices, norm)

    def weigh(self, features_3d: torch.Tensor, features_2d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the two maps ``(B, C, H, W)`` as they are joined."""
        return features_3d, features_2d

    def forward(self, features_3d: torch.Tensor, features_2d: torch.Tensor) -> torch.Tensor:
        """Return the joined map."""
        weighted_3d, weighted_2d = self.weigh(self.project(features_3d), features_2d)
        if self.concatenate:
            return torch.cat([weighted_3d, weighted_2d], dim=1)
        return weighted_2d + weighted_3d


class SqueezeExcitationFusion(Fusion):
    """D-UNet's join: squeeze-excitation on each of the two maps alone, then addition (Zhou et al., TCBB 2021)."""

    def __init__(self, channels: int, slices: int) -> None:
        super().__init__(channels, slices, norm=False)
        hidden = max(channels // 16, 1)
        self.excite_volume = _channel_weights(channels, hidden, channels, nn.ReLU())
        self.excite_plane = _channel_weights(channels, hidden, channels, nn.ReLU())

    def weigh(self, features_3d: torch.Tensor, features_2d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each map times the weights of its own channels."""
        weights_3d = self.excite_volume(features_3d.mean(dim=(2, 3)))
        return features_3d * weights_3d, features_2d * self.excite_plane(features_2d.mean(dim=(2, 3)))


class CrossDimensionFusion(Fusion):
    """Cross-dimension feature fusion, CFF (thesis 3.3, eq. 3.5-3.8).

    The global means of both maps together decide a weight for every channel of each.

    Args:
        channels: C of both inputs.
        slices: S of the 3D features.
        reduction: R of eq. 3.8, the thesis's 8 or 32.
        concatenate: concatenate the weighted maps instead of adding them (CFF-Concatenate, table 3.5).
    """

    def __init__(self, channels: int, slices: int, reduction: int = 8, concatenate: bool = False) -> None:
        super().__init__(channels, slices, concatenate)
        hidden = max(channels // reduction, 1)
        self.weigh_volume = _channel_weights(2 * channels, hidden, channels, nn.PReLU())
        self.weigh_plane = _channel_weights(2 * channels, hidden, channels, nn.PReLU())

    def weigh(self, features_3d: torch.Tensor, features_2d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each map times weights that depend on both."""
        descriptor = torch.cat([features_3d.mean(dim=(2, 3)), features_2d.mean(dim=(2, 3))], dim=1)
        return features_3d * self.weigh_volume(descriptor), features_2d * self.weigh_plane(descriptor)


def make_fusion(channels: int, slices: int, settings: SliceStackUNetSettings) -> Fusion:
    """Return the join that the settings ask for.

    Args:
        channels: C of both feature maps.
        slices: S of the 3D features.
        settings: of the network.
    """
    if settings.fusion == "squeeze_excitation":
        return SqueezeExcitationFusion(channels, slices)
    concatenate = settings.fusion in ("cff_concatenate", "concatenate")
    if settings.fusion in ("cff", "cff_concatenate"):
        return CrossDimensionFusion(channels, slices, settings.fusion_reduction, concatenate)
    return Fusion(channels, slices, concatenate)
