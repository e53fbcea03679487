"""``python -m scripts.simulate`` as a user runs it: what it writes, twice the same, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bundle.data.simulate.parts import masks_of
from bundle.files import bundle_root
from bundle.transforms import TEMPLATE, atlas_grid

pytestmark = pytest.mark.slow

MASKS = 20
HEADS = ("one.nii.gz", "two.nii.gz")


def simulate(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "scripts.simulate", *map(str, words)]
    return subprocess.run(command, cwd=bundle_root(), capture_output=True, text=True, timeout=900, check=False)


@pytest.fixture(scope="module")
def sources(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template under two names in heads/, real masks in masks/."""
    folder = tmp_path_factory.mktemp("sources")
    real = sorted((shared_data / "lesion_masks" / "soop").iterdir())[:MASKS]
    files = {f"heads/{name}": TEMPLATE for name in HEADS} | {f"masks/{file.name}": file for file in real}
    for name, file in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(file)
    return folder


def run(sources: Path, output: Path, *words: object) -> Path:
    """Simulates with the heads and masks, of which ``two`` and four are for the test."""
    arguments = (sources / "heads", output, "--masks", sources / "masks", "--test_heads", "two*", *words)
    done = simulate(*arguments, "--heads_cache", sources / "cache")
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"simulated cases are in {output}; look at montage.png" in done.stdout
    return output


@pytest.fixture(scope="module")
def training(sources: Path) -> Path:
    return run(sources, sources / "training", "--cases", 3, "--workers", 2, "--seed", 4)


def records(output: Path) -> list[dict]:
    return json.loads((output / "simulation.json").read_text())["cases"]


def test_images_labels_records_and_pictures_are_there(training: Path) -> None:
    names = [f"sim_{number:04d}" for number in range(3)]
    expected = {f"{kind}/{name}.nii.gz" for kind in ("images", "labels") for name in names}
    expected |= {f"records/{name}.json" for name in names} | {"simulation.json", "montage.png", "volumes.png"}
    assert {str(file.relative_to(training)) for file in training.rglob("*") if file.is_file()} == expected


def test_images_are_int16_and_labels_uint8_on_the_grid_of_atlas(training: Path) -> None:
    affine, shape = atlas_grid()
    for kind, dtype in (("images", np.int16), ("labels", np.uint8)):
        for file in (training / kind).iterdir():
            image = nib.load(file)
            assert image.shape == shape
            assert image.get_data_dtype() == dtype
            assert np.array_equal(image.affine, affine)
            voxels = np.asarray(image.dataobj)
            if kind == "labels":
                assert set(np.unique(voxels)) == {0, 1}
            else:
                assert 900 < np.percentile(voxels[voxels > 0], 90) < 1300  # white matter is about 1000


def test_records_say_what_the_labels_show(training: Path) -> None:
    told = json.loads((training / "simulation.json").read_text())
    assert (told["seed"], told["part"]) == (4, "training")
    for record in told["cases"]:
        assert record == json.loads((training / "records" / f"{record['name']}.json").read_text())
        label = np.asarray(nib.load(training / "labels" / f"{record['name']}.nii.gz").dataobj)
        assert record["volume_ml"] == int(label.sum()) / 1000 > 0
        assert record["head"] == "one.nii.gz"


def test_again_and_with_other_workers_every_file_has_the_same_bytes(training: Path, sources: Path) -> None:
    again = run(sources, sources / "again", "--cases", 3, "--workers", 1, "--seed", 4)
    for file in training.rglob("*"):
        if file.name.endswith((".nii.gz", ".json")):
            assert file.read_bytes() == (again / file.relative_to(training)).read_bytes(), file.name


def test_the_parts_share_no_head_and_no_mask(training: Path, sources: Path) -> None:
    test = run(sources, sources / "test", "--part", "test", "--cases", 2, "--healthy", 0.0, "--seed", 4)
    files = sorted(str(file) for file in (sources / "masks").iterdir())
    for output, part in ((training, "training"), (test, "test")):
        allowed = {Path(file).name for file in masks_of(part, files, 0.2)}  # type: ignore[arg-type]
        used = {record["mask"] for record in records(output)}
        assert used <= allowed | {"procedural"}
        assert used & allowed
    assert {record["head"] for record in records(test)} == {"two.nii.gz"}


def test_without_masks_shapes_are_procedural_and_healthy_cases_have_none(sources: Path) -> None:
    output = sources / "procedural"
    head = sources / "heads" / HEADS[0]
    words = ("--cases", 2, "--healthy", 0.5, "--seed", 1, "--workers", 1, "--heads_cache", sources / "cache")
    done = simulate(head, output, *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {record["mask"] for record in records(output)} <= {None, "procedural"}
    for record in records(output):
        label = np.asarray(nib.load(output / "labels" / f"{record['name']}.nii.gz").dataobj)
        assert bool(label.any()) == (record["mask"] is not None)


def test_further_lesions_come_on_top(training: Path, sources: Path) -> None:
    more = run(sources, sources / "more", "--cases", 3, "--seed", 4, "--further_lesions", 20)
    pieces = [
        sum(ndimage.label(nib.load(file).get_fdata())[1] for file in (output / "labels").iterdir())
        for output in (training, more)
    ]
    assert pieces[1] > pieces[0] + 20


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("empty", "out"), r"empty holds no image: files ending in \.nii\.gz"),
        ((TEMPLATE, "out", "--test_heads", "chris*"), r"No head is called chris\*: a pattern of file names among"),
    ],
    ids=["no head", "a pattern that fits none"],
)
def test_bad_input_ends_in_one_sentence(words: tuple, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    places = [tmp_path / word if word in ("empty", "out") else word for word in words]
    done = simulate(*places)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = re.findall(r"^Error: .*", done.stderr, re.MULTILINE)
    assert len(told) == 1, done.stderr[-2000:]
    assert re.search(sentence, told[0])
    assert not (tmp_path / "out").exists()
