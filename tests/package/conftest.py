"""Fixtures of the package's tests: the package, the shipped network, slices through a simulated lesion."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bundle.data.simulate import Head, simulate_case
from bundle.files import bundle_root
from bundle.mni import atlas_grid
from bundle.networks import TSRLNet
from bundle.transforms import VolumePreprocessing
from bundle.transforms.slices import pad_slices, stack_padded
from scripts.package import write_package

ROOT = Path(bundle_root())


def dice(one: np.ndarray, two: np.ndarray) -> float:
    """Return the Dice score of two masks that are not both empty."""
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder and the zip of this repository."""
    return write_package(ROOT, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def packaged(package: tuple[Path, Path]) -> Path:
    """The folder of the package."""
    return package[0]


@pytest.fixture(scope="session")
def scan(template_head: Head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MNI head with 35 mL of simulated lesion."""
    case = simulate_case(template_head, np.random.default_rng(1), volume_ml=35.0)
    file = tmp_path_factory.mktemp("scans") / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.round(1000 * case.image).astype(np.int16), atlas_grid()[0]), file)
    return file


@pytest.fixture(scope="session")
def network() -> TSRLNet:
    """The shipped network, float32, in ``eval()``."""
    made = TSRLNet().eval()
    made.load_state_dict(torch.load(ROOT / "models" / "model.pt", weights_only=True))
    return made


@pytest.fixture(scope="session")
def stacks(scan: Path, network: TSRLNet) -> torch.Tensor:
    """The 16 stacks ``(16, 4, 96, 96)`` of the scan in which the network sees most lesion, in increasing order."""
    image = VolumePreprocessing("image", spacing_mm=2.0, slice_size=96, space="native")({"image": str(scan)})["image"]
    every = stack_padded(pad_slices(image.as_tensor()[0]))
    with torch.no_grad():
        lesion = torch.cat([(network(part) > 0).sum(dim=(1, 2, 3)) for part in every.split(8)])
    chosen = lesion.argsort()[-16:]
    assert lesion[chosen[0]] > 20
    return every[chosen].contiguous()
