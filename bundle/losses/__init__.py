"""Losses: the thesis's own, and the totals of the two networks. The field's others come from MONAI and torch."""

from bundle.losses.enhanced_mixing import EnhancedMixingLoss
from bundle.losses.patch_prior import PatchPriorLoss
from bundle.losses.sobel import SobelLoss
from bundle.losses.target_aware import TargetAwareLoss
from bundle.losses.totals import AGMRLoss, SupervisedTotalLoss, TSRLLoss

__all__ = [
    "AGMRLoss",
    "EnhancedMixingLoss",
    "PatchPriorLoss",
    "SobelLoss",
    "SupervisedTotalLoss",
    "TSRLLoss",
    "TargetAwareLoss",
]
