"""What is inside a trained network on one slice: attention maps, channel weights, features."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import nn

from bundle.networks import SliceStackUNet
from bundle.networks.attention import CoarsePatchAttention
from bundle.networks.fusion import CrossDimensionFusion
from bundle.networks.residual import CoarseResidual, ReverseAttention
from bundle.transforms.slices import pad_slices, stack_padded

__all__ = ["Slice", "channel_weights", "load_network", "patch_attention", "read_slice", "residuals", "side_outputs"]


class Slice(NamedTuple):
    """One slice of a case, as a network sees it.

    Attributes:
        stack: ``(1, S, H, W)``.
        image: ``(H, W)``.
        truth: ``(H, W)``, bool.
        number: its index in the volume that the network sees.
    """

    stack: torch.Tensor
    image: np.ndarray
    truth: np.ndarray
    number: int


def read_slice(parser: ConfigParser, item: dict[str, Any]) -> Slice:
    """Return the slice of a case with most lesion.

    Args:
        parser: of the run's training.
        item: the case's ``image`` and ``label``.
    """
    data = parser.get_parsed_content("train::preprocessing")({key: item[key] for key in ("image", "label")})
    image, label = (data[key][0].as_tensor() for key in ("image", "label"))  # (H, W, D)
    number = int((label > 0).sum(dim=(0, 1)).argmax())
    offsets = parser.get_parsed_content("offsets")
    stack = stack_padded(pad_slices(image, offsets), offsets)[number : number + 1]
    return Slice(stack, image[..., number].numpy(), label[..., number].numpy() > 0, number)


def load_network(parser: ConfigParser, weights: Path) -> SliceStackUNet:
    """Return the trained network of a run, in ``eval()``."""
    network: SliceStackUNet = parser.get_parsed_content("network_def")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network.load_state_dict({name: values.float() for name, values in state.items()})
    return network.eval()


def _calls(network: nn.Module, modules: Iterable[nn.Module], stack: torch.Tensor) -> list[tuple[tuple, Any]]:
    """Return the input and output of each of the modules for one slice."""
    calls: dict[nn.Module, tuple[tuple, Any]] = dict.fromkeys(modules, ((), None))
    handles = [
        module.register_forward_hook(lambda module, given, made: calls.update({module: (given, made)}))
        for module in calls
    ]
    with torch.inference_mode():
        network(stack)
    for handle in handles:
        handle.remove()
    return list(calls.values())


def _mean(features: torch.Tensor) -> np.ndarray:
    """Return the mean of the channels, ``(H, W)``."""
    return features[0].mean(dim=0).numpy()


def _of_kind(network: nn.Module, *kinds: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kinds)]


def patch_attention(network: SliceStackUNet, stack: torch.Tensor) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return for each encoder level the features before, the patch scores ``(6, 6)``, and the features after.

    The features are means of the channels.
    """
    calls = _calls(network, _of_kind(network, CoarsePatchAttention), stack)
    return [(_mean(given[0]), scores[0, 0].numpy(), _mean(after)) for given, (after, [scores]) in calls]


def channel_weights(network: SliceStackUNet, stack: torch.Tensor) -> list[np.ndarray]:
    """Return the weights ``(C,)`` that each CFF gives to the channels of the 2D features."""
    fusions = cast(list[CrossDimensionFusion], _of_kind(network, CrossDimensionFusion))
    return [made.flatten().numpy() for _, made in _calls(network, (f.weigh_plane for f in fusions), stack)]


def residuals(network: SliceStackUNet, stack: torch.Tensor) -> list[dict[str, np.ndarray]]:
    """Return for each decoder level, from the deepest, the features in CRL by name, means of the channels."""
    maps = []
    for (skip, found, _), made in _calls(network, _of_kind(network, CoarseResidual), stack):
        square = skip * skip
        reverse = square * (1 - found)
        features = {"encoder, C": skip, "C x C": square, "RA": reverse, "PA": made - reverse, "CRL": made}
        maps.append({name: _mean(values) for name, values in features.items()})
    return maps


def side_outputs(network: SliceStackUNet, stack: torch.Tensor) -> list[np.ndarray]:
    """Return the probabilities of each decoder level from the deepest, and the final ones."""
    parts = _of_kind(network, CoarseResidual, ReverseAttention)
    sides = [found[0, 0].numpy() for (_, found, _), _ in _calls(network, parts, stack)]
    with torch.inference_mode():
        final = torch.sigmoid(cast(torch.Tensor, network(stack)))
    return [*sides, final[0, 0].numpy()]
