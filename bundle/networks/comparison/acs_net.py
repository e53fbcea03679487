"""ACSNet."""

from __future__ import annotations

import torch
from monai.networks.blocks import ChannelSELayer
from torch import nn
from torch.nn import functional as F

from bundle.networks.comparison.parts import conv_row, conv_unit, resize
from bundle.networks.comparison.resnet import ResNetEncoder
from bundle.networks.slice_stack_network import SliceStackNetwork

__all__ = ["ACSNet"]


class NonLocal(nn.Module):
    """Non-local block (Wang et al., CVPR 2018) with max-pooled keys and values; initially the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.query, self.key, self.value = (nn.Conv2d(channels, inner, kernel_size=1) for _ in range(3))
        norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(norm.weight)
        self.out = nn.Sequential(nn.Conv2d(inner, channels, kernel_size=1), norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features of the input's shape ``(B, channels, H, W)``."""
        maps = self.query(x), F.max_pool2d(self.key(x), 2), F.max_pool2d(self.value(x), 2)
        query, key, value = (features.flatten(2).transpose(1, 2) for features in maps)
        found = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return self.out(found.transpose(1, 2).unflatten(2, x.shape[2:])) + x


class GlobalContext(nn.Module):
    """Global context module: the deepest features pooled to several grids and with non-local attention.

    Args:
        in_channels: channels of the deepest features.
        channels: channels of each of the four contexts.
        out_channels: channels of the context of each decoder level.
        grids: cells along each side of the pooled maps.
    """

    def __init__(
        self, in_channels: int, channels: int, out_channels: list[int], grids: tuple[int, ...] = (1, 3, 5)
    ) -> None:
        super().__init__()

        def narrow() -> list[nn.Module]:
            return [nn.Conv2d(in_channels, channels, kernel_size=1), nn.ReLU()]

        self.contexts = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(grid), *narrow()) for grid in grids)
        self.contexts.append(nn.Sequential(*narrow(), NonLocal(channels)))
        joined = channels * (len(grids) + 1)
        self.out = nn.ModuleList(nn.Sequential(nn.Conv2d(joined, c, 3, padding=1), nn.ReLU()) for c in out_channels)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return a map ``(B, out_channels[i], H, W)`` for each decoder level."""
        joined = torch.cat([resize(context(x), x) for context in self.contexts], dim=1)
        return [out(joined) for out in self.out]


class SelectionLevel(nn.Module):
    """Decoder level: local context attention on the skip, adaptive selection of channels, two convolutions.

    Args:
        in_channels: channels from the deeper level.
        skip_channels: channels of the skip and of the global context, each.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        hidden = in_channels // 4
        self.side = nn.Sequential(
            conv_unit(in_channels, hidden), nn.Dropout2d(0.1), nn.Conv2d(hidden, 1, kernel_size=1)
        )
        self.non_local = NonLocal(in_channels)
        joined = in_channels + 2 * skip_channels
        self.select = ChannelSELayer(2, joined, r=16)
        self.convs = conv_row(joined, joined // 4, out_channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return features of the deeper level's ``x``, the encoder's ``skip`` and the ``context``, all of one size."""
        # 1 where the side prediction is 0.5, 0 where it is 0 or 1.
        undecided = 1 - (2 * torch.sigmoid(self.side(x)) - 1).abs()
        joined = torch.cat([skip + undecided * skip, self.non_local(x), context], dim=1)
        return self.convs(self.select(joined))


class ACSNet(SliceStackNetwork):
    """ACSNet (Zhang et al., MICCAI 2020): a ResNet-34 U-Net that attends to where its side predictions are uncertain.

    ``(B, in_channels, H, W)`` to logits ``(B, out_channels, H, W)``, H and W multiples of 32. The thesis gives no
    count; it has 29,446,545 parameters with one input channel and 29,455,953 with four. The paper supervises the side
    predictions; here they learn through the attention that depends on them.

    Args:
        in_channels: stacked slices.
        out_channels: channels of the logits.
        width: channels of the finest scale.
    """

    def __init__(self, in_channels: int = 4, out_channels: int = 1, width: int = 64) -> None:
        super().__init__(in_channels, divisor=32)
        self.encoder = ResNetEncoder(in_channels, width=width)
        *skips, deep = self.encoder.channels
        skips.reverse()  # from the deepest
        self.context = GlobalContext(deep, width, skips)
        self.deepest = conv_row(deep, deep // 4, deep)
        given = [deep, *skips[:-1]]
        made = [*skips[:-1], width]
        self.decoder = nn.ModuleList(SelectionLevel(*c) for c in zip(given, skips, made, strict=True))
        self.head = nn.Sequential(
            conv_unit(width, width // 2), nn.Dropout2d(0.1), nn.Conv2d(width // 2, out_channels, kernel_size=1)
        )

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits; see :meth:`SliceStackNetwork.logits`."""
        *skips, deep = self.encoder(x)
        features = self.deepest(deep)
        for level, skip, context in zip(self.decoder, reversed(skips), self.context(deep), strict=True):
            features = level(resize(features, skip), skip, resize(context, skip))
        return self.head(resize(features, x))
