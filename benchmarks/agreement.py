"""One head in six copies, and how well their masks agree: ``python -m benchmarks.agreement IMAGES LABELS OUTPUT``.

A volume in MNI space is brought into a scanner's space by a known map, and written as six copies that differ in how
the head lies or how it is sampled. Each is segmented with registration and without. The masks are brought back by the
known maps and compared with the truth and with the first copy's mask.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from monai.transforms.utils import create_rotate, create_scale, create_translate
from nibabel.orientations import axcodes2ornt
from nibabel.processing import resample_from_to, resample_to_output, smooth_image

from bundle.data import find_images
from scripts.command import run_command

__all__ = ["COPIES", "Agreement", "Copy", "agreement", "compare_copies", "write_copies"]

_SCANNER = (
    create_translate(3, (3.0, -15.0, 22.0))
    @ create_rotate(3, (np.deg2rad(8.0), 0.0, np.deg2rad(-4.0)))
    @ create_scale(3, (0.94, 0.97, 0.92))
)
"""From MNI space to that of a scanner, in mm: a smaller head, tilted and off the centre."""

SPACES = {"registered": "mni", "where it lies": "native"}


class Copy(NamedTuple):
    """How a copy differs from the head in the scanner: where the head is, how it is sampled and stored."""

    moved: np.ndarray = np.eye(4)
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    axcodes: str = "RAS"

    @property
    def from_mni(self) -> np.ndarray:
        """The map from MNI space to that of the copy, in mm."""
        return self.moved @ _SCANNER


COPIES = {
    "native": Copy(),
    "rotated_by_15_degrees": Copy(create_rotate(3, np.deg2rad((15.0, 0.0, 0.0)))),
    "shifted_by_30_mm": Copy(create_translate(3, (30.0, 0.0, 0.0))),
    "stored_in_lps": Copy(axcodes="LPS"),
    "voxels_of_0.7_mm": Copy(spacing_mm=(0.7, 0.7, 0.7)),
    "slices_of_3_mm": Copy(spacing_mm=(1.0, 1.0, 3.0)),
}


class Agreement(NamedTuple):
    """Dice of a copy's mask with the truth and with the first copy's mask."""

    with_truth: float
    with_native: float


def write_copies(image: nib.Nifti1Image, folder: Path) -> None:
    """Write the copies of a volume in MNI space to ``folder / <name of the copy>.nii.gz``, int16.

    Slices that are thicker than the volume's are blurred to their thickness first, as a scanner's are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    grey = np.asarray(image.dataobj, dtype=np.float32)
    for name, copy in COPIES.items():
        moved = nib.Nifti1Image(grey, copy.from_mni @ image.affine)
        thick = np.where(np.array(copy.spacing_mm) > 1, copy.spacing_mm, 0)
        sampled = resample_to_output(smooth_image(moved, thick) if thick.any() else moved, copy.spacing_mm, order=1)
        turn = axcodes2ornt(copy.axcodes)  # from RAS, which resample_to_output gives
        stored = sampled.as_reoriented(turn)
        stored.set_data_dtype(np.int16)
        nib.save(stored, folder / f"{name}.nii.gz")


def _back(mask: nib.Nifti1Image, copy: Copy, image: nib.Nifti1Image) -> np.ndarray:
    """Return a copy's mask on the grid of the volume in MNI space."""
    soft = nib.Nifti1Image(np.asarray(mask.dataobj, dtype=np.float32), np.linalg.inv(copy.from_mni) @ mask.affine)
    found: np.ndarray = resample_from_to(soft, image, order=1).get_fdata() >= 0.5
    return found


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / max(first.sum() + second.sum(), 1))


def _segment(folder: Path, output: Path, space: str) -> None:
    words = [sys.executable, "-m", "scripts.segment", str(folder), str(output), f"--space={space}", "--noprogress"]
    code = subprocess.run(words, cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL, check=False).returncode
    if code > 1:
        raise SystemExit(f"{' '.join(words)} ended with exit code {code}.")


def compare_copies(image_file: Path, label_file: Path, output: Path) -> dict[str, dict[str, Agreement]]:
    """Return how the masks of a head's copies agree, by the copy and by whether it is registered.

    Args:
        image_file: a T1w volume in MNI space.
        label_file: its lesions, on the same grid.
        output: the folder for the copies and their masks.
    """
    image = nib.load(image_file)
    truth = np.asarray(nib.load(label_file).dataobj) > 0
    write_copies(image, output / "copies")
    found: dict[str, dict[str, Agreement]] = {name: {} for name in COPIES}
    for how, space in SPACES.items():
        _segment(output / "copies", output / space, space)
        masks = {}
        for name, copy in COPIES.items():
            mask = output / space / f"{name}_space-orig_label-L_desc-lesion_mask.nii.gz"
            masks[name] = _back(nib.load(mask), copy, image) if mask.exists() else np.zeros(truth.shape, dtype=bool)
            found[name][how] = Agreement(_dice(masks[name], truth), _dice(masks[name], masks["native"]))
    return found


def agreement(images: str, labels: str, output: str, count: int = 3) -> None:
    """Print the mean Dice of each copy over some volumes, as a table in Markdown.

    Args:
        images: a folder of T1w volumes in MNI space, ``images/`` of scripts.simulate for instance.
        labels: a folder of their lesions, by the same names.
        output: the folder for copies and masks.
        count: how many of the volumes: those of the largest lesions, in which differences show best.
    """
    files = find_images(Path(images))
    volumes = {file: np.count_nonzero(np.asarray(nib.load(Path(labels) / Path(file).name).dataobj)) for file in files}
    chosen = sorted(files, key=lambda file: -volumes[file])[:count]
    tables = [
        compare_copies(Path(file), Path(labels) / Path(file).name, Path(output) / Path(file).name.split(".")[0])
        for file in chosen
    ]
    print(f"| Dice, mean of {len(tables)} | {' | '.join(f'{how}, truth | {how}, native' for how in SPACES)} |")
    print("|---|" + "---|" * 2 * len(SPACES))
    for name in COPIES:
        means = [np.mean([table[name][how] for table in tables], axis=0) for how in SPACES]
        cells = " | ".join(f"{value:.3f}" for pair in means for value in pair)
        print(f"| {name.replace('_', ' ')} | {cells} |")


if __name__ == "__main__":
    run_command(agreement)
