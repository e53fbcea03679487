"""The packaged bundle with only its declared packages installed, run from another folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bundle.networks import TSRLNet
from scripts.package import NAME
from tests.package.conftest import ROOT

pytestmark = pytest.mark.package


def run(words: list[str | Path], cwd: Path, **environment: str) -> str:
    """Return the output of a command, which must succeed."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        words, cwd=cwd, env=inherited | environment, capture_output=True, text=True, timeout=3600, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def requirements(packaged: Path) -> list[str]:
    """Return the requirements in metadata.json, as the Model Zoo's get_bundle_requirements.py reads them."""
    metadata = json.loads((packaged / "configs" / "metadata.json").read_text())
    versions = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    return [
        *(f"{name}=={metadata[key]}" for name, key in versions.items()),
        *(f"{name}=={version}" for name, version in metadata["required_packages_version"].items()),
    ]


@pytest.fixture(scope="module")
def python(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Python of an environment that is made for these tests and removed after them."""
    environment = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", environment], ROOT)
    made = environment / "bin" / "python"
    run([made, "-m", "pip", "install", "--quiet", *requirements(packaged)], environment)
    yield made
    shutil.rmtree(environment)


def masked(python: str | Path, root: Path, scan: Path, output: Path, *words: str) -> np.ndarray:
    """Return the mask of the scan by the bundle in ``root``, run in the output folder."""
    output.mkdir()
    command: list[str | Path] = [python, "-m", "monai.bundle", "run", "inference", "--backend", "torch"]
    command += ["--config_file", root / "configs" / "inference.json", "--dataset_dir", scan, "--output_dir", output]
    run([*command, *words], cwd=output)
    return np.asanyarray(nib.load(output / "scan_lesion.nii.gz").dataobj)


@pytest.fixture(scope="module")
def expected(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The mask that this repository gives."""
    mask = masked(sys.executable, ROOT, scan, tmp_path_factory.mktemp("expected") / "masks")
    assert 10_000 < mask.sum() < 60_000  # of 35,000 mm3
    return mask


def test_only_declared_packages_are_installed_and_their_versions_fit(
    python: Path, packaged: Path, tmp_path: Path
) -> None:
    run([python, "-m", "pip", "check"], tmp_path)
    installed = {
        line["name"].lower() for line in json.loads(run([python, "-m", "pip", "list", "--format", "json"], tmp_path))
    }
    assert {line.split("==")[0] for line in requirements(packaged)} <= installed
    assert installed.isdisjoint(
        {"jsonschema", "nilearn", "onnx", "openvino", "pandas", "pytest", "scikit-image", "scikit-learn"}
    )


def test_declared_packages_are_those_of_requirements_txt(packaged: Path) -> None:
    assert sorted(requirements(packaged)) == sorted((packaged / "requirements.txt").read_text().split())


LOADED = f"""
import sys, torch, monai.bundle
network = monai.bundle.load("{NAME}", bundle_dir=sys.argv[1], workflow_type="inference", device="cpu").eval()
with torch.no_grad():
    torch.save(network(torch.load(sys.argv[2])), sys.argv[3])
"""


def test_the_loaded_network_computes_the_same_logits(python: Path, packaged: Path, tmp_path: Path) -> None:
    stacks = torch.rand(2, 4, 96, 96, generator=torch.Generator().manual_seed(0))
    torch.save(stacks, tmp_path / "stacks.pt")
    words = [packaged.parent, tmp_path / "stacks.pt", tmp_path / "logits.pt"]
    run([python, "-c", LOADED, *words], cwd=tmp_path, PYTHONPATH=str(packaged))
    network = TSRLNet().eval()
    network.load_state_dict(torch.load(ROOT / "models" / "model.pt", weights_only=True))
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), network(stacks))


def test_inference_gives_the_repository_s_mask(
    python: Path, packaged: Path, scan: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    np.testing.assert_array_equal(masked(python, packaged, scan, tmp_path / "masks"), expected)


def test_the_exported_network_gives_the_same_mask(python: Path, packaged: Path, scan: Path, tmp_path: Path) -> None:
    """In float32: TorchScript rounds bfloat16 at other places."""
    configs, file = packaged / "configs", tmp_path / "model.ts"
    words = ["--net_id", "network_def", "--filepath", file, "--ckpt_file", packaged / "models" / "model.pt"]
    words += ["--meta_file", configs / "metadata.json", "--config_file", configs / "inference.json"]
    run([python, "-m", "monai.bundle", "ckpt_export", *words], cwd=tmp_path, PYTHONPATH=str(packaged))
    precise = ("--amp", "False")
    overrides = ("--network_def", f"$torch.jit.load('{file}')", "--handlers", "[]", *precise)
    exported = masked(python, packaged, scan, tmp_path / "exported", *overrides)
    np.testing.assert_array_equal(exported, masked(python, packaged, scan, tmp_path / "plain", *precise))


def test_the_batch_command_gives_the_same_mask(
    python: Path, packaged: Path, scan: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    run([python, "-m", "scripts.segment", scan, tmp_path, "--backend", "torch"], cwd=packaged)
    (mask,) = tmp_path.rglob("*_mask.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(nib.load(mask).dataobj), expected)


def test_training_writes_weights_that_inference_reads(python: Path, packaged: Path, scan: Path, tmp_path: Path) -> None:
    """A narrow network is trained on the slices of one case, which needs every package of the handlers."""
    truth = tmp_path / "data" / "labels" / scan.name
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    shutil.copy(scan, tmp_path / "data" / "images")
    image = nib.load(scan)
    nib.save(nib.Nifti1Image((image.get_fdata() > 900).astype(np.uint8), image.affine), truth)
    features = ["--network_def::features", "[8,16,16,32,32]"]
    words = ["--config_file", packaged / "configs" / "train.json", "--dataset_dir", tmp_path / "data"]
    words += ["--output_dir", tmp_path / "out", "--val_fraction", "0", "--epochs", "1", "--samples_per_epoch", "16"]
    words += ["--space", "native", "--spacing_mm", "2", "--batch_size", "8", *features]
    run([python, "-m", "monai.bundle", "run", "training", *words], cwd=tmp_path)
    trained = ["--ckpt_path", str(tmp_path / "out" / "model.pt"), "--threshold", "0", *features]
    assert json.loads((tmp_path / "out" / "model.json").read_text())["spacing_mm"] == 2
    assert masked(python, packaged, scan, tmp_path / "masks", *trained).all()  # every probability is over 0
