"""Losses of the thesis, and the totals of the two networks. Other losses come from MONAI and torch."""

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
