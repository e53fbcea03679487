"""How two versions of the counting tool ``thop`` count operations, restated; the thesis's FLOPs come from them.

No way to measure work: both versions count a transposed convolution at its output size, which is
four times what it does at stride 2. ``docs/complexity.md`` has the rules in words.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import nn

__all__ = ["THOP_0_0_31", "THOP_0_1_1", "Rules", "counted_operations", "counted_parameters"]


@dataclass(frozen=True)
class Rules:
    """What one version of the tool charges per element.

    Attributes:
        bias: an output element of a convolution with a bias, on top of its products.
        norm: an input element of a batch norm with scale and shift.
        nearest: an output element of a nearest ``nn.Upsample``.
        prelu: an element of a ``nn.PReLU``.
        knows_prelu: whether ``nn.PReLU`` has a rule; layers without one lose their parameters, too.
    """

    bias: int
    norm: int
    nearest: int
    prelu: int
    knows_prelu: bool


THOP_0_0_31 = Rules(bias=1, norm=2, nearest=0, prelu=0, knows_prelu=False)
THOP_0_1_1 = Rules(bias=0, norm=4, nearest=1, prelu=1, knows_prelu=True)

_BILINEAR = 11  # an output element of any other ``nn.Upsample``, in both

# Kinds of layers with a rule. The tools look a layer up by its exact class; here a subclass counts as its class.
_KINDS = {
    "convolution": (nn.Conv2d, nn.Conv3d),
    "transposed convolution": (nn.ConvTranspose2d,),
    "linear": (nn.Linear,),
    "norm": (nn.BatchNorm2d, nn.BatchNorm3d),
    "prelu": (nn.PReLU,),
    "upsample": (nn.Upsample,),
    "adaptive pooling": (nn.AdaptiveAvgPool2d,),
}


def _operations(kind: str, layer: Any, given: torch.Tensor, made: torch.Tensor, rules: Rules) -> int:
    """Operations charged for one call of ``layer``."""
    if kind in ("convolution", "transposed convolution"):
        bias = rules.bias if layer.bias is not None else 0
        return made.numel() * (layer.in_channels // layer.groups * prod(layer.kernel_size) + bias)
    if kind == "linear":
        return made.numel() * layer.in_features
    if kind == "norm":
        return given.numel() * rules.norm
    if kind == "prelu":
        return given.numel() * rules.prelu
    if kind == "upsample":
        return made.numel() * (rules.nearest if layer.mode == "nearest" else _BILINEAR)
    window = prod(size // cells for size, cells in zip(given.shape[2:], made.shape[2:], strict=True))
    return made.numel() * (window + 1)


def counted_operations(network: nn.Module, x: torch.Tensor, rules: Rules) -> Counter[str]:
    """Operations that the tool reports for one call in ``eval()``, by kind of layer; other layers cost nothing.

    Args:
        network: any network; its functional calls are invisible to the tool.
        x: its input; a meta tensor is enough.
        rules: the version.
    """
    operations: Counter[str] = Counter()

    def add(kind: str, layer: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        operations[kind] += _operations(kind, layer, given[0], made, rules)

    handles = [
        layer.register_forward_hook(partial(add, kind))
        for layer in network.modules()
        for kind, classes in _KINDS.items()
        if isinstance(layer, classes)
    ]
    try:
        with torch.no_grad():
            network.eval()(x)
    finally:
        for handle in handles:
            handle.remove()
    return operations


def counted_parameters(network: nn.Module, rules: Rules) -> int:
    """Parameters that the tool reports: all, or all but those of PReLU, which 0.0.31 has no rule for."""
    left_out = () if rules.knows_prelu else (nn.PReLU,)
    layers = (module for module in network.modules() if not isinstance(module, left_out))
    return sum(parameter.numel() for layer in layers for parameter in layer.parameters(recurse=False))
