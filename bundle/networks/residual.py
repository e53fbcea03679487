"""Residual learning on a skip connection: its features weighed by what the deeper decoder level has found."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["CoarseResidual", "ReverseAttention"]


class ReverseAttention(nn.Module):
    """RA alone, ``C * C * (1 - P)``: suppresses what has been found (eq. 4.1-4.2, table 4.7). No parameters."""

    def forward(self, skip: torch.Tensor, found: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        """
        Args:
            skip: encoder features ``C``, ``(B, C, H, W)``.
            found: the side output's probability ``P``, ``(B, 1, H, W)``.
            attention: not used.
        """
        return skip * skip * (1 - found)


class CoarseResidual(nn.Module):
    """Coarse residual learning, CRL (thesis 4.2, eq. 4.1-4.3): ``C * C * (1 - P) + C * A5``. No parameters.

    Reverse attention keeps what has not been found yet; the deepest patch attention, nearest-upsampled, suppresses the
    background in it.
    """

    def forward(self, skip: torch.Tensor, found: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
        """
        Args:
            skip: encoder features ``C``, ``(B, C, H, W)``.
            found: the side output's probability ``P``, ``(B, 1, H, W)``.
            attention: the deepest attention map ``A5``, ``(B, 1, h, w)``.
        """
        positive = F.interpolate(attention, size=skip.shape[-2:], mode="nearest").to(skip.dtype)
        return skip * skip * (1 - found) + skip * positive
