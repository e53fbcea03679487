"""Export of the network for OpenVINO's own tools and servers: ``python -m scripts.export FILE.xml``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bundle.errors import InputError
from bundle.files import replacing, write_atomically
from scripts.command import run_command

__all__ = ["export"]


def export(file: str, weights: str | None = None) -> None:
    """Write the network as OpenVINO's FILE.xml and, beside it, FILE.bin.

    Its input are stacks of slices, float32 (B, 4, H, W), with H and W multiples of 16 and at least 96, preprocessed as
    in configs/inference.json; its output are logits (B, 1, H, W).

    Args:
        file: the file to write, ending in .xml; an existing file is replaced.
        weights: a file of weights instead of models/model.pt.
    """
    target = Path(file)
    if target.suffix != ".xml":
        raise InputError(f"{target} does not end in .xml: OpenVINO keeps a network as FILE.xml and FILE.bin.")
    if find_spec("openvino") is None:
        raise InputError("OpenVINO is not installed: pip install -r requirements/openvino.txt.")
    from bundle.acceleration.backends import convert_to_openvino, openvino_files
    from bundle.acceleration.folding import inference_form
    from bundle.networks import SliceStackUNet
    from bundle.options import SegmentOptions
    from bundle.segmenter import inference_config, load_network

    network = load_network(inference_config(SegmentOptions(weights=weights), device="cpu"))
    assert isinstance(network, SliceStackUNet)  # as the config has it
    structure, weights_bytes = openvino_files(convert_to_openvino(inference_form(network)))
    with replacing(target.with_suffix(".bin")) as unfinished:
        unfinished.write_bytes(weights_bytes)
    write_atomically(structure, target)
    print(f"Network: {target}, weights: {target.with_suffix('.bin')}")


if __name__ == "__main__":
    run_command(export)
