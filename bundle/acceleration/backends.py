"""Backends that compute a network at inference: torch, or OpenVINO on a CPU if it is installed."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, get_args
from xml.etree import ElementTree

import numpy as np
import torch

from bundle.acceleration.folding import inference_form
from bundle.acceleration.quantization import SimulatedQuantization
from bundle.errors import InputError
from bundle.files import replacing, write_atomically
from bundle.networks import SliceStackUNet
from bundle.options import BackendName
from bundle.transforms.preprocessing import VolumePreprocessing
from bundle.transforms.slices import OFFSETS, Plane

__all__ = [
    "Backend",
    "BackendName",
    "OpenVINOBackend",
    "TorchBackend",
    "choose_backend",
    "convert_to_openvino",
    "openvino_files",
]

_log = logging.getLogger(__name__)

Quantization = Callable[[Any], Any]

# In bfloat16, rounding of the image's intensities and of the logits changes masks most. These two convolutions have
# 0.2 % of a slice's multiply-accumulates.
_IN_FLOAT32 = re.compile(r"__module\.(encoder\.0\.conv\.conv_0\.conv|head)/")


class Backend(Protocol):
    """Conversion of a network in ``eval()`` to a callable with the same signature, ``(N, S, H, W)`` to logits.

    ``batch_size`` is the number of slices to give it at once; None leaves that to the caller.
    """

    name: str
    batch_size: int | None

    def __call__(self, network: SliceStackUNet) -> Callable[..., torch.Tensor]:
        """Return the callable that replaces the network."""


class TorchBackend:
    """torch, on the network's form for inference, which is made at each call because the weights may change.

    The gain was measured on CPUs only, not on CUDA.
    """

    name = "torch"
    batch_size: int | None = None

    def __call__(self, network: SliceStackUNet) -> Callable[..., torch.Tensor]:
        """Return the network's form for inference."""
        return inference_form(network)


class OpenVINOBackend:
    """OpenVINO on a CPU, one slice per thread. In bfloat16 the first and the last convolution stay in float32.

    It takes many slices at once because its threads wait for each other at the end of a batch.

    A network is converted once, which takes longer than a volume, and cached in the user's cache folder by a hash of
    its weights. Nothing is sent anywhere: OpenVINO's own ``convert_model`` reports each use to its vendor, so its
    lower-level functions are used instead.

    Args:
        amp: compute in bfloat16 where the processor has it, else in float32.
        quantization: converts a float32 ``openvino.Model`` to integers; its ``repr`` is part of the cache key.
        cache: folder for converted networks; ``stroke-lesion-bundle`` in ``$XDG_CACHE_HOME`` or ``~/.cache`` if None.

    Raises:
        InputError: if OpenVINO is not installed.
    """

    batch_size: int | None = 64

    def __init__(
        self, amp: bool = False, quantization: Quantization | None = None, cache: str | Path | None = None
    ) -> None:
        if find_spec("openvino") is None:
            raise InputError("OpenVINO is not installed: pip install -r requirements/openvino.txt, or backend torch.")
        import openvino

        self.core = openvino.Core()
        has_bfloat16 = "BF16" in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = "bf16" if amp and has_bfloat16 else "f32"
        self.quantization = quantization
        integers = "" if quantization is None else "int8 and "
        self.name = f"OpenVINO {openvino.get_version()}, {integers}{self.precision}"
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.cache = Path(cache) if cache is not None else home / "stroke-lesion-bundle"
        self._latest: tuple[str, _OpenVINONetwork] | None = None

    def __call__(self, network: SliceStackUNet) -> Callable[..., torch.Tensor]:
        """Return the converted network, which is kept until the weights change."""
        lean = inference_form(network)
        key = _content_hash(lean, self.quantization)
        if self._latest is None or self._latest[0] != key:
            self._latest = key, _OpenVINONetwork(self.core, self._converted(lean, key), self.precision)
        return self._latest[1]

    def _converted(self, network: SliceStackUNet, key: str) -> Any:
        """Return the ``openvino.Model``, from the cache if it is there."""
        import openvino

        file = self.cache / f"{key}.xml"
        try:
            return self.core.read_model(file)
        except RuntimeError:  # missing or damaged
            _log.info("Converting the network for OpenVINO (only once).")
        model = convert_to_openvino(network)
        if self.quantization is not None:
            model = self.quantization(model)
        structure, weights = openvino_files(model)
        try:
            # The weights are written first: an .xml in the cache always has its .bin.
            with replacing(file.with_suffix(".bin")) as unfinished:
                unfinished.write_bytes(weights)
            write_atomically(structure, file)
        except OSError as error:
            _log.warning("The converted network could not be cached in %s: %s", self.cache, error)
        return self.core.read_model(structure, openvino.Tensor(np.frombuffer(weights, dtype=np.uint8)))


class _OpenVINONetwork:
    """A converted network that is compiled for the size of the first slices, and again if the size changes."""

    def __init__(self, core: Any, model: Any, precision: str) -> None:
        self.core, self.model, self.precision = core, model, precision
        self.shape: tuple[int, ...] = ()

    def __call__(self, stacks: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(N, out, H, W)`` of stacks ``(N, S, H, W)``, float32."""
        slices = stacks.float().numpy(force=True)
        self._compile(slices.shape[1:])
        logits = np.empty((len(slices), *self.output_shape), dtype=np.float32)

        def keep(request: Any, number: int) -> None:
            logits[number] = request.get_output_tensor().data[0]

        self.queue.set_callback(keep)
        for number in range(len(slices)):
            self.queue.start_async([np.ascontiguousarray(slices[number : number + 1])], number)
        self.queue.wait_all()
        return torch.from_numpy(logits)

    def _compile(self, shape: tuple[int, ...]) -> None:
        """Compile for one slice per request, one request per thread: this is faster than batches of slices."""
        if shape == self.shape:
            return
        import openvino

        self.model.reshape([1, *shape])
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        compiled = self.core.compile_model(self.model, "CPU", settings)
        self.queue = openvino.AsyncInferQueue(compiled)
        self.output_shape = tuple(compiled.output().shape)[1:]
        self.shape = shape


def _content_hash(network: SliceStackUNet, quantization: Quantization | None) -> str:
    """Return the cache key: library versions, architecture, quantization and weights."""
    from openvino import get_version

    content = hashlib.sha256(f"{get_version()} {torch.__version__} {network!r} {quantization!r} {_IN_FLOAT32}".encode())
    for name, values in network.state_dict().items():
        content.update(name.encode())
        content.update(values.numpy(force=True).tobytes())
    return content.hexdigest()[:32]


def convert_to_openvino(network: SliceStackUNet) -> Any:
    """Convert a network to an ``openvino.Model`` like ``openvino.convert_model``, without its usage reports.

    Args:
        network: in ``eval()``; the result of :func:`bundle.acceleration.folding.inference_form` is faster.

    Returns:
        the model, for stacks ``(B, S, H, W)`` of any B, H and W that the network accepts.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros(1, network.in_channels, network.min_size, network.min_size)
    with warnings.catch_warnings(action="ignore"):  # the input's checks are not traced
        decoder = TorchScriptPythonDecoder(network, example_input=example)
    frontend = FrontEndManager().load_by_framework("pytorch")
    return frontend.convert(frontend.load(decoder))


def openvino_files(model: Any) -> tuple[str, bytes]:
    """Return the content of an ``openvino.Model``'s two files, with the layers that stay in float32 marked.

    From Python this mark can be set in the file only.

    Returns:
        the text of the ``.xml`` and the bytes of the ``.bin``, which must have the same stem.
    """
    import openvino

    with TemporaryDirectory() as folder:
        file = Path(folder) / "network.xml"
        openvino.save_model(model, file, compress_to_fp16=False)
        tree, weights = ElementTree.parse(file), file.with_suffix(".bin").read_bytes()
    for layer in tree.getroot().iter("layer"):
        if layer.get("type") != "Const" and _IN_FLOAT32.match(layer.get("name", "")):
            info = layer.find("rt_info")
            if info is None:
                info = ElementTree.Element("rt_info")
                layer.insert(0 if layer.find("data") is None else 1, info)
            ElementTree.SubElement(info, "attribute", name="precise", version="0")
    return ElementTree.tostring(tree.getroot(), encoding="unicode"), weights


def choose_backend(
    name: BackendName,
    amp: bool = False,
    device: torch.device | None = None,
    preprocessing: VolumePreprocessing | None = None,
    offsets: Sequence[int] = OFFSETS,
    plane: Plane = "axial",
) -> Backend:
    """Return the backend of a name.

    Args:
        name: ``"auto"`` is OpenVINO for a CPU if it is installed, else torch; it never is ``"openvino_int8"``, whose
            logits differ slightly.
        amp: let OpenVINO compute in bfloat16 where the processor has it; torch uses autocast instead.
        device: of the network; ``"auto"`` is torch if None.
        preprocessing: of the volumes that ``"openvino_int8"`` is calibrated on.
        offsets: of the stacks that it is calibrated on.
        plane: of the slices that it is calibrated on.

    Raises:
        InputError: if there is no such backend, it is not installed, or it does not support the device.
        ValueError: if ``"openvino_int8"`` has no preprocessing.
    """
    if name not in get_args(BackendName):
        raise InputError(f"There is no backend {name!r}: choose {', '.join(get_args(BackendName))}.")
    on_cpu = device is not None and device.type == "cpu"
    if name.startswith("openvino") and device is not None and not on_cpu:
        raise InputError(f"The backend {name} is for CPUs, and the device is {device}: choose auto or torch.")
    if name == "openvino_int8":
        if preprocessing is None:
            raise ValueError("The backend openvino_int8 needs the preprocessing for its quantization.")
        return OpenVINOBackend(amp, SimulatedQuantization(preprocessing, offsets, plane=plane))
    if name == "openvino" or (name == "auto" and on_cpu and find_spec("openvino") is not None):
        return OpenVINOBackend(amp)
    return TorchBackend()
