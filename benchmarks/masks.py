"""What faster backends change in the masks of a simulated cohort: ``python -m benchmarks.masks COHORT``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import LoadImage
from tqdm import tqdm

from bundle.acceleration.backends import BackendName
from bundle.files import bundle_root
from bundle.inferers import SliceStackInferer
from bundle.transforms import LogitsToMask
from scripts.command import run_command

__all__ = ["masks"]

# Backend, and whether it computes in bfloat16.
_WAYS: dict[str, tuple[BackendName, bool]] = {
    "torch, float32": ("torch", False),
    "torch, bfloat16": ("torch", True),
    "OpenVINO, bfloat16": ("openvino", True),
    "OpenVINO, int8 and bfloat16": ("openvino_int8", True),
}


def _parser(weights: str | None) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(Path(bundle_root()) / "configs" / "inference.json"))
    if weights is not None:
        parser.update({"ckpt_path": weights})
    return parser


def _dice(mask: torch.Tensor, other: torch.Tensor) -> float:
    """Return the Dice of two masks; 1 if both are empty."""
    voxels = int(mask.sum() + other.sum())
    return 2 * int((mask & other).sum()) / voxels if voxels else 1.0


@torch.inference_mode()
def masks(cohort: str, weights: str | None = None, output: str = "runs/bench/masks.json") -> None:
    """Print the Dice of each backend's masks with float32's, and of both with the truth.

    With the lowest Dice comes the volume of float32's mask there, in mL: a few voxels change a small one completely.

    Args:
        cohort: a folder with images/ and labels/, of ``scripts.simulate``.
        weights: other weights than models/model.pt.
        output: the JSON to write.
    """
    parser = _parser(weights)
    network, preprocessing = parser.get_parsed_content("network"), parser.get_parsed_content("preprocessing")
    network.load_state_dict(torch.load(parser.get_parsed_content("ckpt_path")))
    network.eval()
    to_mask = LogitsToMask(preprocessing, parser.get_parsed_content("threshold"))
    inferers = {
        name: SliceStackInferer(device="cpu", backend=backend, amp=amp, preprocessing=preprocessing)
        for name, (backend, amp) in _WAYS.items()
    }
    overlaps: dict[str, list[tuple[int, int]]] = {name: [] for name in _WAYS}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in _WAYS}
    volumes_ml = []
    for file in tqdm(sorted((Path(cohort) / "images").glob("*.nii.gz")), desc="volumes"):
        truth = LoadImage(image_only=True, ensure_channel_first=True)(Path(cohort) / "labels" / file.name) > 0
        image = preprocessing({"image": str(file)})["image"]
        drawn = {
            name: to_mask(inferer(image.as_tensor()[None], network)[0], image).mask.as_tensor() > 0
            for name, inferer in inferers.items()
        }
        exact = drawn["torch, float32"]
        for name, mask in drawn.items():
            overlaps[name].append((int((mask & exact).sum()), int(mask.sum() + exact.sum())))
            found[name].append((_dice(mask, exact), _dice(mask, truth)))
        volumes_ml.append(int(exact.sum()) * float(truth.pixdim.prod()) / 1000)
    results = {}
    for name in _WAYS:
        (both, either), (dice, dsc) = np.array(overlaps[name]).sum(axis=0), np.array(found[name]).T
        results[name] = {
            "cases": len(dice),
            "dice_pooled": float(2 * both / either),
            "dice_mean": float(dice.mean()),
            "dice_median": float(np.median(dice)),
            "dice_least": float(dice.min()),
            "least_ml": volumes_ml[int(dice.argmin())],
            "dsc": float(dsc.mean()),
        }
        told = ", ".join(f"{key} {value:.4f}" for key, value in results[name].items() if key != "cases")
        print(f"{name:<28} {told}")
    path = Path(output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    run_command(masks)
