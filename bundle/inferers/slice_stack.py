"""Inference of 2.5D networks on volumes, and mixed precision on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from monai.inferers import Inferer, SimpleInferer
from monai.utils import convert_to_dst_type
from tqdm import tqdm

from bundle.networks import SliceStackUNet
from bundle.transforms.preprocessing import VolumePreprocessing
from bundle.transforms.slices import OFFSETS, Plane, StackSlices, from_plane, pad_slices, stack_padded, to_plane

if TYPE_CHECKING:
    from bundle.acceleration.backends import Backend, BackendName
    from bundle.acceleration.quantization import SimulatedQuantization

__all__ = ["AutocastInferer", "SliceStackInferer"]


def _has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16; a CPU that only emulates it is slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return any(present for name, present in torch.cpu.get_capabilities().items() if str(name).endswith("bf16"))


def _autocast(device: torch.device, enabled: bool) -> torch.autocast:
    """bfloat16 on CPU and CUDA alike, where the device has it: it needs no loss scaling."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled and _has_bfloat16(device))


class AutocastInferer(SimpleInferer):
    """Runs the network under bfloat16 autocast; MONAI's engines know only CUDA's.

    Args:
        amp: use bfloat16 where the device has it, else float32.
    """

    def __init__(self, amp: bool = True) -> None:
        super().__init__()
        self.amp = amp

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """What the network gives for ``inputs``."""
        with _autocast(inputs.device, self.amp):
            return super().__call__(inputs, network, *args, **kwargs)


class SliceStackInferer(Inferer):
    """A 2.5D network over a volume: every slice with its neighbours, in batches of slices.

    To every tool that calls it the network looks like a 3D one: ``(B, 1, H, W, D)`` in, ``(B, out, H, W, D)`` out.
    Stacks in which no voxel is inside the head (that is, not 0) are not computed one by one: all of them get the
    network's answer to one stack of zeros, which is what each would have got.

    Args:
        batch_size: slices in a batch, where the backend does not want more.
        offsets: the stack's slices relative to its own.
        tta_flips: test-time augmentation: in-plane axes to flip for each further pass, 0 left-right, 1 of axial slices
            front-back; the logits of all passes are averaged. ``[[0]]`` is one more pass, mirrored. Slices are never
            flipped: that would turn the stack's order around.
        device: where the network is; the input's device if None. The volume and the output stay where the input is.
        amp: run the network under bfloat16 autocast where the device has it.
        progress: show a bar over the slices.
        backend: what computes a :class:`bundle.networks.SliceStackUNet` in ``eval()``: ``"torch"``, ``"openvino"``,
            ``"openvino_int8"`` or ``"auto"``, see :func:`bundle.acceleration.backends.choose_backend`. Other
            networks are called as they are.
        preprocessing: of the volumes, which ``"openvino_int8"`` is calibrated with.
        plane: of the slices that the network is for.
        ensemble: networks whose logits are averaged with the network's, each with its plane: three planes see a volume
            from three sides. Each of them takes as long again.

    Raises:
        ValueError: when an argument is out of its range.
        InputError: when there is no such backend, or it is not installed, or not for the device.

    Example::

        inferer = SliceStackInferer(batch_size=8)
        logits = inferer(volume, network.eval())  # (1, 1, 192, 192, 189) to (1, 1, 192, 192, 189)
    """

    def __init__(
        self,
        batch_size: int = 16,
        offsets: Sequence[int] = OFFSETS,
        tta_flips: Sequence[Sequence[int]] = (),
        device: str | torch.device | None = None,
        amp: bool = False,
        progress: bool = False,
        backend: BackendName = "torch",
        preprocessing: VolumePreprocessing | None = None,
        plane: Plane = "axial",
        ensemble: Sequence[tuple[Plane, torch.nn.Module]] = (),
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        if any(axis not in (0, 1) for axes in tta_flips for axis in axes):
            raise ValueError(
                f"tta_flips may name the in-plane axes 0 and 1 only, got {[list(axes) for axes in tta_flips]}."
            )
        if tta_flips and "sagittal" in (plane, *(each for each, _ in ensemble)):
            raise ValueError("tta_flips are for axial and coronal slices: they would turn sagittal ones front to back.")
        self.batch_size = batch_size
        self.offsets = StackSlices(offsets).offsets  # checked
        self.tta_flips = [(), *(tuple(axes) for axes in tta_flips)]
        self.device = None if device is None else torch.device(device)
        self.amp = amp
        self.progress = progress
        self.plane = plane
        self.ensemble = tuple(ensemble)

        from bundle.acceleration.backends import choose_backend

        # One backend for each network: each keeps the network that it converted last.
        self.backend, *self.ensemble_backends = (
            choose_backend(backend, amp, self.device, self._quantization(preprocessing, each))
            for each in (plane, *(each for each, _ in ensemble))
        )

    def _quantization(
        self, preprocessing: VolumePreprocessing | None, plane: Plane
    ) -> Callable[[], SimulatedQuantization] | None:
        if preprocessing is None:
            return None
        from bundle.acceleration.quantization import SimulatedQuantization

        return partial(SimulatedQuantization, preprocessing, self.offsets, plane=plane)

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """
        Args:
            inputs: volumes ``(B, 1, H, W, D)``, 0 outside the head.
            network: takes stacks ``(N, S, H, W)`` and gives logits ``(N, out, H, W)``.
            args: further arguments of the network.
            kwargs: further keyword arguments of the network.

        Returns:
            logits ``(B, out, H, W, D)`` in the input's dtype, on its device, of its type (a MetaTensor stays one).

        Raises:
            ValueError: when the input is not ``(B, 1, H, W, D)``.
        """
        if inputs.dim() != 5 or inputs.shape[1] != 1:
            raise ValueError(f"The input must be (B, 1, H, W, D), got {list(inputs.shape)}.")
        volumes = inputs.as_subclass(torch.Tensor)
        passes = [self._pass(volumes, self.plane, network, self.backend, *args, **kwargs)]
        for (plane, other), backend in zip(self.ensemble, self.ensemble_backends, strict=True):
            passes.append(self._pass(volumes, plane, other, backend, *args, **kwargs))
        return convert_to_dst_type(torch.stack(passes).mean(dim=0), inputs, dtype=inputs.dtype)[0]

    def _pass(
        self,
        volumes: torch.Tensor,
        plane: Plane,
        network: Callable[..., torch.Tensor],
        backend: Backend,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Logits of one network, ``(B, out, H, W, D)``."""
        batch_size = self.batch_size
        if isinstance(network, SliceStackUNet) and not network.training:
            # Each time anew, as the weights of a network in training change; next to a volume it is nothing.
            network, batch_size = backend(network), backend.batch_size or self.batch_size
        found = []
        for volume in volumes:
            logits = self._infer(to_plane(volume[0], plane), batch_size, network, *args, **kwargs)
            found.append(from_plane(logits, plane, volume.shape[-1]))
        return torch.stack(found)

    def _infer(
        self, volume: torch.Tensor, batch_size: int, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """``(H, W, D)`` to logits ``(out, H, W, D)``."""
        padded = pad_slices(volume, self.offsets)
        stacks = stack_padded(padded, self.offsets)
        occupied = stack_padded(padded.flatten(1).any(dim=1), self.offsets).any(dim=1)
        head = torch.nonzero(occupied).flatten()

        def predict(batch: torch.Tensor) -> torch.Tensor:
            return self._predict(batch.to(self.device or batch.device), network, *args, **kwargs).to(padded.device)

        empty = predict(torch.zeros_like(stacks[:1]))
        logits = empty.repeat(len(stacks), 1, 1, 1)
        batches = head.split(batch_size) if len(head) else ()
        for chosen in tqdm(batches, desc="batches of slices", leave=False, disable=not self.progress):
            logits[chosen] = predict(stacks[chosen])
        return logits.permute(1, 2, 3, 0)

    def _predict(
        self, stacks: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Mean logits ``(N, out, H, W)`` over the flips, float32."""
        passes = []
        for flip in self.tta_flips:
            axes = [axis + 2 for axis in flip]
            with _autocast(stacks.device, self.amp):
                predicted = network(stacks.flip(axes) if axes else stacks, *args, **kwargs)
            passes.append(predicted.float().flip(axes) if axes else predicted.float())
        return torch.stack(passes).mean(dim=0) if len(passes) > 1 else passes[0]
