"""The bundle at work on the MNI head with simulated lesions: ``python -m scripts.demo OUTPUT``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bundle.files import bundle_root
from scripts.command import run_command

__all__ = ["demo"]

_VOLUMES_ML = (12.0, 35.0, 90.0)


def _simulate(images: Path, labels: Path) -> None:
    """Places simulated lesions of three sizes in the MNI head."""
    from bundle.data.simulate import load_head, simulate_case
    from bundle.transforms import TEMPLATE, atlas_grid

    head, affine = load_head(str(TEMPLATE)), atlas_grid()[0]
    for folder in (images, labels):
        folder.mkdir(parents=True, exist_ok=True)
    for seed, volume_ml in enumerate(_VOLUMES_ML):
        case = simulate_case(head, np.random.default_rng(seed), volume_ml=volume_ml)
        name = f"simulated_{volume_ml:.0f}_ml.nii.gz"
        nib.save(nib.Nifti1Image(case.image, affine), images / name)
        nib.save(nib.Nifti1Image(case.label, affine), labels / name)


def _segment(images: Path, masks: Path) -> None:
    """Runs configs/inference.json, as ``python -m monai.bundle run`` does."""
    from monai.bundle import ConfigWorkflow

    config = Path(bundle_root()) / "configs" / "inference.json"
    workflow = ConfigWorkflow(str(config), workflow_type="inference", dataset_dir=str(images), output_dir=str(masks))
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def _voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def demo(output: str = "demo") -> None:
    """Simulates lesions in the MNI head, segments them, and writes masks, a table and a picture to OUTPUT.

    The lesions are simulated: the numbers show that the software works, not how well it does on patients.

    Args:
        output: the folder to write to.
    """
    folder = Path(output).resolve()
    print("Simulating lesions in the MNI head ...", flush=True)
    images, labels, masks = folder / "images", folder / "labels", folder / "masks"
    _simulate(images, labels)
    print("Segmenting them ...", flush=True)
    _segment(images, masks)
    rows = _compare(images, labels, masks, folder)
    print(f"\nSimulated lesions, segmented with {Path(bundle_root()) / 'models' / 'model.pt'}:")
    for row in rows:
        print(
            f"  {row['case']:<28} DSC {row['dsc']:.3f}  {row['volume_ml']:6.1f} mL of {row['true_volume_ml']:6.1f} mL"
        )
    print(f"Masks: {masks}\nTable: {folder / 'cases.csv'}\nPicture: {folder / 'montage.png'}")


def _compare(images: Path, labels: Path, masks: Path, folder: Path) -> list[dict[str, Any]]:
    """Writes a table and a picture of the masks against the truth; returns the rows of the table."""
    import torch

    from bundle.metrics import case_metrics
    from bundle.volumes.picture import save_montage

    rows: list[dict[str, Any]] = []
    cases = {}
    for file in sorted(images.iterdir()):
        mask_file = masks / file.name.replace(".nii.gz", "_lesion.nii.gz")
        image, truth, mask = _voxels(file), _voxels(labels / file.name), _voxels(mask_file)
        spacing_mm = nib.load(file).header.get_zooms()
        metrics = case_metrics(torch.from_numpy(mask), torch.from_numpy(truth), spacing_mm)
        rows.append({"case": file.name, **metrics})
        title = file.name.removesuffix(".nii.gz").replace("_", " ")
        cases[f"{title}\nDSC {metrics['dsc']:.2f}"] = (image, truth, mask)
    with (folder / "cases.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    save_montage(cases, folder / "montage.png")
    return rows


if __name__ == "__main__":
    run_command(demo)
