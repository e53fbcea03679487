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
    from bundle.acceleration.backends import BackendName

__all__ = ["AutocastInferer", "SliceStackInferer"]


def _has_bfloat16(device: torch.device) -> bool:
    """Return whether the device computes in bfloat16; a CPU that emulates it is slower than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return any(present for name, present in torch.cpu.get_capabilities().items() if str(name).endswith("bf16"))


def _autocast(device: torch.device, enabled: bool) -> torch.autocast:
    """Return bfloat16 autocast for CPU or CUDA, which needs no loss scaling; disabled where the device has none."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled and _has_bfloat16(device))


class AutocastInferer(SimpleInferer):
    """Inferer that runs the network under bfloat16 autocast on any device; MONAI's engines support CUDA only.

    Args:
        amp: use bfloat16 where the device has it, else float32.
    """

    def __init__(self, amp: bool = True) -> None:
        super().__init__()
        self.amp = amp

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """Return the network's output for ``inputs``."""
        with _autocast(inputs.device, self.amp):
            return super().__call__(inputs, network, *args, **kwargs)


class SliceStackInferer(Inferer):
    """Inferer that runs a 2.5D network over a volume: every slice with its neighbours, in batches of slices.

    A caller sees a 3D network: ``(B, 1, H, W, D)`` in, ``(B, out, H, W, D)`` out. Stacks that are 0 everywhere, that
    is, outside the head, are computed once and get the same logits.

    Args:
        batch_size: slices in a batch, unless the backend has a batch size of its own.
        offsets: the stack's slices relative to its own.
        tta_flips: test-time augmentation: the in-plane axes to flip in each additional pass, 0 is left-right, 1 is
            front-back in axial slices; the logits of all passes are averaged. ``[[0]]`` is one additional, mirrored
            pass. The slice axis cannot be flipped: that would reverse the order of the stack.
        device: of the network; the input's device if None. The volume and the output stay on the input's device.
        amp: run the network under bfloat16 autocast where the device has it.
        progress: show a progress bar over the batches of slices.
        backend: runtime of a :class:`bundle.networks.SliceStackUNet` in ``eval()``: ``"torch"``, ``"openvino"``,
            ``"openvino_int8"`` or ``"auto"``, see :func:`bundle.acceleration.backends.choose_backend`. Other
            networks are called as they are.
        preprocessing: of the volumes, for the calibration of ``"openvino_int8"``.
        plane: of the slices that the network was trained on.
        ensemble: planes and networks whose logits are averaged with the network's. Each of them takes as long again.

    Raises:
        ValueError: if an argument is out of its range.
        InputError: if there is no such backend, it is not installed, or it does not support the device.

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
        if not all(isinstance(axes, Sequence) for axes in tta_flips):
            raise ValueError(f"tta_flips must be a list of lists of axes, such as [[0]], got {tta_flips}.")
        if any(axis not in (0, 1) for axes in tta_flips for axis in axes):
            raise ValueError(f"tta_flips may name the in-plane axes 0 and 1 only, got {[*map(list, tta_flips)]}.")
        if tta_flips and "sagittal" in (plane, *(each for each, _ in ensemble)):
            raise ValueError("tta_flips are for axial and coronal slices: they would turn sagittal ones front to back.")
        self.batch_size = batch_size
        self.offsets = StackSlices(offsets).offsets  # checked
        self.tta_flips = [(), *(tuple(axes) for axes in tta_flips)]
        self.device = None if device is None else torch.device(device)
        self.amp = amp
        self.progress = progress

        # Imported late: readers of this module do not need it.
        from bundle.acceleration.backends import choose_backend

        # One backend for each network, because a backend keeps the network that it converted last.
        self.members = [
            (each, network, choose_backend(backend, amp, self.device, preprocessing, self.offsets, each))
            for each, network in ((plane, None), *ensemble)
        ]
        self.backend = self.members[0][2]

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """
        Args:
            inputs: volumes ``(B, 1, H, W, D)``, 0 outside the head.
            network: takes stacks ``(N, S, H, W)`` and returns logits ``(N, out, H, W)``.
            args: further arguments of the network.
            kwargs: further keyword arguments of the network.

        Returns:
            logits ``(B, out, H, W, D)`` in the input's dtype, on its device, of its type (a MetaTensor stays one).

        Raises:
            ValueError: if the input is not ``(B, 1, H, W, D)``.
        """
        if inputs.dim() != 5 or inputs.shape[1] != 1:
            raise ValueError(f"The input must be (B, 1, H, W, D), got {list(inputs.shape)}.")
        passes = []
        for plane, other, backend in self.members:
            compute, batch_size = network if other is None else other, self.batch_size
            if isinstance(compute, SliceStackUNet) and not compute.training:
                # At each call, because the weights may change in between; compared with a volume it takes no time.
                compute, batch_size = backend(compute), backend.batch_size or batch_size
            predict = partial(self._predict, compute, args, kwargs)
            logits = [
                from_plane(self._infer(to_plane(volume[0], plane), batch_size, predict), plane, volume.shape[-1])
                for volume in inputs.as_subclass(torch.Tensor)
            ]
            passes.append(torch.stack(logits))
        return convert_to_dst_type(torch.stack(passes).mean(dim=0), inputs, dtype=inputs.dtype)[0]

    def _infer(
        self, volume: torch.Tensor, batch_size: int, predict: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Return the logits ``(out, H, W, D)`` of a volume ``(H, W, D)``."""
        padded = pad_slices(volume, self.offsets)
        stacks = stack_padded(padded, self.offsets)
        occupied = stack_padded(padded.flatten(1).any(dim=1), self.offsets).any(dim=1)
        head = torch.nonzero(occupied).flatten()
        logits = predict(torch.zeros_like(stacks[:1])).repeat(len(stacks), 1, 1, 1)
        batches = head.split(batch_size) if len(head) else ()
        for chosen in tqdm(batches, desc="batches of slices", leave=False, disable=not self.progress):
            logits[chosen] = predict(stacks[chosen])
        return logits.permute(1, 2, 3, 0)

    def _predict(
        self, network: Callable[..., torch.Tensor], args: Sequence[Any], kwargs: dict[str, Any], stacks: torch.Tensor
    ) -> torch.Tensor:
        """Return the mean logits ``(N, out, H, W)`` over the flips, float32, on the stacks' device."""
        inputs = stacks.to(self.device or stacks.device)
        passes = []
        for flip in self.tta_flips:
            axes = [axis + 2 for axis in flip]
            with _autocast(inputs.device, self.amp):
                predicted = network(inputs.flip(axes) if axes else inputs, *args, **kwargs)
            passes.append(predicted.float().flip(axes) if axes else predicted.float())
        return (torch.stack(passes).mean(dim=0) if len(passes) > 1 else passes[0]).to(stacks.device)
