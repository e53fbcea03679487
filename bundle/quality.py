"""How good a mask is likely to be, and whether a lesion is one: learnt on validation cases, kept in ``model.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

__all__ = ["QualityModel", "expected_dice", "fit_quality"]

_EDGE = 1e-3  # of a share, before its logit is taken
_RIDGE = 1e-3  # keeps the weights finite where a feature separates all cases


def expected_dice(mask: np.ndarray, probability: np.ndarray) -> float:
    """Return the Dice that a mask has if each voxel is lesion with its probability, independently of the others.

    Args:
        mask: not 0 is lesion.
        probability: of the same shape, 0..1.

    Returns:
        0..1; 0 for an empty mask.
    """
    inside = mask > 0
    total = float(inside.sum() + probability.sum(dtype=np.float64))
    return 2 * float(probability[inside].sum(dtype=np.float64)) / total if inside.any() else 0.0


def _features(share: np.ndarray | float, volume_ml: np.ndarray | float) -> np.ndarray:
    """Return a constant, the logit of a share and the decimal logarithm of a volume, ``(3, ...)``."""
    clipped = np.clip(np.asarray(share, dtype=float), _EDGE, 1 - _EDGE)
    return np.stack(np.broadcast_arrays(1.0, logit(clipped), np.log10(np.maximum(volume_ml, 1e-3))))


@dataclass(frozen=True)
class QualityModel:
    """Logistic models of a mask's Dice with the truth, and of whether a lesion of a mask touches a true one.

    Args:
        dice: weights of a constant, the logit of :func:`expected_dice` and the decimal logarithm of the mask's mL.
        lesion: weights of a constant, the logit of a lesion's mean probability and the decimal logarithm of its mL.
        least_dice: a mask with a lower predicted Dice should be looked at.
    """

    dice: Sequence[float]
    lesion: Sequence[float]
    least_dice: float

    def __post_init__(self) -> None:
        if not len(self.dice) == len(self.lesion) == 3:
            raise ValueError("A quality model has three weights for masks and three for lesions.")

    def predicted_dice(self, expected: float, volume_ml: float) -> float:
        """Return the Dice that a mask probably has with the truth, from its :func:`expected_dice` and its mL."""
        return float(expit(np.asarray(self.dice) @ _features(expected, volume_ml)))

    def lesion_probability(self, mean_probability: float, volume_ml: float) -> float:
        """Return the probability that a lesion of a mask touches a true one, from its mean probability and its mL."""
        return float(expit(np.asarray(self.lesion) @ _features(mean_probability, volume_ml)))


def _fit(features: np.ndarray, target: np.ndarray) -> list[float]:
    """Return the weights of the lowest cross entropy, as of a logistic regression; the target is 0..1."""

    def loss(weights: np.ndarray) -> float:
        score = weights @ features
        return float(np.mean(np.logaddexp(0, score) - target * score) + _RIDGE * weights[1:] @ weights[1:])

    weights: list[float] = minimize(loss, np.zeros(len(features))).x.round(4).tolist()
    return weights


def fit_quality(
    masks: Sequence[tuple[float, float, float]], lesions: Sequence[tuple[float, float, bool]], least_dice: float
) -> QualityModel:
    """Fit a model to validation cases.

    Args:
        masks: of each mask that is not empty :func:`expected_dice`, mL, and the Dice with the truth.
        lesions: of each lesion of these masks its mean probability, mL, and whether it touches a true one.
        least_dice: see :class:`QualityModel`.
    """
    expected, volumes_ml, dice = np.array(masks, dtype=float).T
    mean_probability, lesions_ml, true = np.array(lesions, dtype=float).T
    return QualityModel(
        _fit(_features(expected, volumes_ml), dice), _fit(_features(mean_probability, lesions_ml), true), least_dice
    )
