"""A demonstration on the MNI head with simulated lesions: ``python -m scripts.demo OUTPUT``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bundle.files import bundle_root, stem
from scripts.command import run_command

__all__ = ["demo"]

_VOLUMES_ML = (12.0, 35.0, 90.0)


def _simulate(images: Path, labels: Path) -> None:
    """Place simulated lesions of three sizes in the MNI head."""
    from bundle.data.simulate import load_head, simulate_case
    from bundle.mni import TEMPLATE, atlas_grid

    head, affine = load_head(str(TEMPLATE)), atlas_grid()[0]
    for folder in (images, labels):
        folder.mkdir(parents=True, exist_ok=True)
    for seed, volume_ml in enumerate(_VOLUMES_ML):
        case = simulate_case(head, np.random.default_rng(seed), volume_ml=volume_ml)
        name = f"simulated_{volume_ml:.0f}_ml.nii.gz"
        nib.save(nib.Nifti1Image(case.image, affine), images / name)
        nib.save(nib.Nifti1Image(case.label, affine), labels / name)


def _segment(images: Path, masks: Path) -> None:
    """Run configs/inference.json, as ``python -m monai.bundle run`` does."""
    from monai.bundle import ConfigWorkflow

    config = Path(bundle_root()) / "configs" / "inference.json"
    workflow = ConfigWorkflow(str(config), workflow_type="inference", dataset_dir=str(images), output_dir=str(masks))
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def demo(output: str = "demo") -> None:
    """Simulate lesions in the MNI head, segment them, and write masks, a table and a picture to OUTPUT.

    The numbers show that the software works, not how accurate it is on patients.

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
        print("  {case:<28} DSC {dsc:.3f}  {volume_ml:6.1f} mL of {true_volume_ml:6.1f} mL".format(**row))
    print(f"Masks: {masks}\nTable: {folder / 'cases.csv'}\nPicture: {folder / 'montage.png'}")


def _compare(images: Path, labels: Path, masks: Path, folder: Path) -> list[dict[str, Any]]:
    """Write a table and a picture of the masks against the truth, and return the rows of the table."""
    import torch

    from bundle.metrics import case_metrics
    from bundle.volumes.picture import save_montage

    rows: list[dict[str, Any]] = []
    cases = {}
    for file in sorted(images.iterdir()):
        name = stem(file)
        volumes = (nib.load(path) for path in (file, labels / file.name, masks / f"{name}_lesion.nii.gz"))
        image, truth, mask = (np.asarray(volume.dataobj) for volume in volumes)
        spacing_mm = nib.load(file).header.get_zooms()
        metrics = case_metrics(torch.from_numpy(mask), torch.from_numpy(truth), spacing_mm)
        rows.append({"case": file.name, **metrics})
        cases[f"{name.replace('_', ' ')}\nDSC {metrics['dsc']:.2f}"] = (image, truth, mask)
    with (folder / "cases.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    save_montage(cases, folder / "montage.png")
    return rows


if __name__ == "__main__":
    run_command(demo)
