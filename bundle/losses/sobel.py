"""Sobel boundary loss (thesis 3.5.3)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from bundle.losses.regions import RegionLoss

__all__ = ["SobelLoss", "sobel_magnitude"]

# Under the square root, so that the gradient is finite where the image is constant.
_EPSILON = 1e-6


def sobel_magnitude(image: torch.Tensor) -> torch.Tensor:
    """Return ``sqrt(gx^2 + gy^2 + 1e-6)`` of the 3x3 Sobel kernels, with replicated borders, which have no edge.

    MONAI's ``SobelGradients`` takes one channel-first image and reflects it; this is one convolution for a batch.

    Args:
        image: ``(B, C, H, W)``.

    Returns:
        magnitudes ``(B, C, H, W)``.
    """
    smooth, derive = image.new_tensor([1.0, 2.0, 1.0]), image.new_tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([torch.outer(smooth, derive), torch.outer(derive, smooth)]).unsqueeze(1)
    batch, channels, height, width = image.shape
    padded = F.pad(image.reshape(-1, 1, height, width), (1, 1, 1, 1), mode="replicate")
    gradients = F.conv2d(padded, kernels)
    return torch.sqrt(gradients.square().sum(dim=1) + _EPSILON).view(batch, channels, height, width)


class SobelLoss(RegionLoss):
    """Mean absolute difference of the Sobel gradient magnitudes of prediction and target (eq. 3.14).

    Its arguments are those of :class:`RegionLoss`.
    """

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: logits ``(B, C, H, W)``.
            target: 0 and 1, of the same shape.

        Returns:
            a scalar, or ``(B, C, H, W)`` without reduction.

        Raises:
            ValueError: when the input is not 2D.
        """
        if input.dim() != 4:
            raise ValueError(f"The Sobel loss is 2D: the prediction must be (B, C, H, W), got {list(input.shape)}.")
        logits, target = self.prepare(input, target)
        with torch.autocast(logits.device.type, enabled=False):
            predicted, true = sobel_magnitude(torch.sigmoid(logits)), sobel_magnitude(target)
        return F.l1_loss(predicted, true, reduction=self.reduction)
