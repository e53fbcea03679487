"""What computes a network at inference: torch, or OpenVINO, where it is installed, on a CPU."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol, get_args
from xml.etree import ElementTree

import numpy as np
import torch

from bundle.acceleration.folding import inference_form
from bundle.errors import InputError
from bundle.files import replacing, write_atomically
from bundle.networks import SliceStackUNet

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

BackendName = Literal["auto", "torch", "openvino", "openvino_int8"]
Quantization = Callable[[Any], Any]

# The image's intensities and the logits, at which masks are cut off, are what bfloat16's rounding moves masks by most;
# of the multiply-accumulates of a slice the two convolutions are 0.2 %.
_IN_FLOAT32 = re.compile(r"__module\.(encoder\.0\.conv\.conv_0\.conv|head)/")


class Backend(Protocol):
    """Makes of a network in ``eval()`` what is called in its place: ``(N, S, H, W)`` to logits ``(N, out, H, W)``.

    Its ``batch_size`` is how many slices it wants at once, None for what the caller likes.
    """

    name: str
    batch_size: int | None

    def __call__(self, network: SliceStackUNet) -> Callable[..., torch.Tensor]:
        """What computes the network."""


class TorchBackend:
    """torch, on the network's form for inference. It keeps nothing: the weights may change between two volumes.

    What that form gains is measured on CPUs only, not on CUDA.
    """

    name = "torch"
    batch_size: int | None = None

    def __call__(self, network: SliceStackUNet) -> Callable[..., torch.Tensor]:
        """The network with less to compute."""
        return inference_form(network)


class OpenVINOBackend:
    """OpenVINO on a CPU: one slice a thread at a time. In bfloat16 the first and the last convolution stay in float32.

    Many slices are given to it at once, as its threads wait for each other at the end.

    A network is converted once, which takes longer than a volume, and kept in the user's cache folder by a hash of all
    its weights; later programs read it. Nothing is sent anywhere: OpenVINO's own ``convert_model`` reports each
    use to its maker, so that the way below it is taken here.

    Args:
        amp: compute in bfloat16 where the processor has it, else in float32.
        quantization: makes of a float32 ``openvino.Model`` one with integers; its ``repr`` says how.
        cache: the folder for converted networks; ``$XDG_CACHE_HOME/stroke-lesion-bundle`` or that in ``~/.cache``.

    Raises:
        InputError: when OpenVINO is not installed.
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
        """The network, converted where it is not the one of the last call."""
        lean = inference_form(network)
        key = _content_hash(lean, self.quantization)
        if self._latest is None or self._latest[0] != key:
            self._latest = key, _OpenVINONetwork(self.core, self._converted(lean, key), self.precision)
        return self._latest[1]

    def _converted(self, network: SliceStackUNet, key: str) -> Any:
        """The ``openvino.Model``, from the cache if it is there."""
        import openvino

        file = self.cache / f"{key}.xml"
        try:
            return self.core.read_model(file)
        except RuntimeError:  # it is not there, or damaged
            _log.info("The network is converted for OpenVINO, once.")
        model = convert_to_openvino(network)
        if self.quantization is not None:
            model = self.quantization(model)
        structure, weights = openvino_files(model)
        try:
            # The weights' file is there first.
            with replacing(file.with_suffix(".bin")) as unfinished:
                unfinished.write_bytes(weights)
            write_atomically(structure, file)
        except OSError as error:
            _log.warning("The converted network could not be kept in %s: %s", self.cache, error)
        return self.core.read_model(structure, openvino.Tensor(np.frombuffer(weights, dtype=np.uint8)))


class _OpenVINONetwork:
    """A converted network; it is compiled when the first slices of a size come."""

    def __init__(self, core: Any, model: Any, precision: str) -> None:
        self.core, self.model, self.precision = core, model, precision
        self.shape: tuple[int, ...] = ()

    def __call__(self, stacks: torch.Tensor) -> torch.Tensor:
        """``(N, S, H, W)`` to logits ``(N, out, H, W)``, float32."""
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
        """A request computes one slice, and each thread has its own: that is faster than slices in batches."""
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
    """Of all that the converted network depends on."""
    from openvino import get_version

    content = hashlib.sha256(f"{get_version()} {torch.__version__} {network!r} {quantization!r} {_IN_FLOAT32}".encode())
    for name, values in network.state_dict().items():
        content.update(name.encode())
        content.update(values.numpy(force=True).tobytes())
    return content.hexdigest()[:32]


def convert_to_openvino(network: SliceStackUNet) -> Any:
    """A network as an ``openvino.Model``, by what ``openvino.convert_model`` does without its reports.

    Args:
        network: in ``eval()``, of :func:`bundle.acceleration.folding.inference_form` to be quick.

    Returns:
        the model, for stacks ``(B, S, H, W)`` of any B, H and W that the network takes.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros(1, network.in_channels, network.min_size, network.min_size)
    with warnings.catch_warnings(action="ignore"):  # of the checks of the input, which are not traced
        decoder = TorchScriptPythonDecoder(network, example_input=example)
    frontend = FrontEndManager().load_by_framework("pytorch")
    return frontend.convert(frontend.load(decoder))


def openvino_files(model: Any) -> tuple[str, bytes]:
    """An ``openvino.Model`` as its two files have it, with what stays in float32 marked.

    OpenVINO knows such a mark, but from Python it can only be set in the file.

    Returns:
        the text of the ``.xml`` and the bytes of the ``.bin``, which have one stem.
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
    quantization: Callable[[], Quantization] | None = None,
) -> Backend:
    """The backend of a name.

    Args:
        name: ``"auto"`` is OpenVINO for a CPU where it is installed, and torch elsewhere; ``"openvino_int8"`` is
            never chosen by it, as its answers differ a little.
        amp: let OpenVINO compute in bfloat16 where the processor has it; torch is told by autocast.
        device: where the network is; None is not known, for which ``"auto"`` is torch.
        quantization: makes the one for ``"openvino_int8"``.

    Raises:
        InputError: when there is no such backend, or it is not installed, or not for the device.
        ValueError: when ``"openvino_int8"`` has no quantization.
    """
    if name not in get_args(BackendName):
        raise InputError(f"There is no backend {name!r}: choose {', '.join(get_args(BackendName))}.")
    on_cpu = device is not None and device.type == "cpu"
    if name.startswith("openvino") and device is not None and not on_cpu:
        raise InputError(f"The backend {name} is for CPUs, and the device is {device}: choose auto or torch.")
    if name == "openvino_int8":
        if quantization is None:
            raise ValueError("The backend openvino_int8 needs a quantization.")
        return OpenVINOBackend(amp, quantization())
    if name == "openvino" or (name == "auto" and on_cpu and find_spec("openvino") is not None):
        return OpenVINOBackend(amp)
    return TorchBackend()
