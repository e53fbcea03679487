"""``python -m scripts.simulate`` as a user runs it: what it writes, twice the same, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from bundle.data.simulate.parts import masks_of
from bundle.errors import InputError
from bundle.files import bundle_root
from bundle.mni import TEMPLATE, atlas_grid
from scripts import simulate as command

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


@pytest.mark.slow
def test_images_labels_records_and_pictures_are_there(training: Path) -> None:
    names = [f"sim_{number:04d}" for number in range(3)]
    expected = {f"{kind}/{name}.nii.gz" for kind in ("images", "labels") for name in names}
    expected |= {f"records/{name}.json" for name in names} | {"simulation.json", "montage.png", "volumes.png"}
    assert {str(file.relative_to(training)) for file in training.rglob("*") if file.is_file()} == expected


@pytest.mark.slow
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


@pytest.mark.slow
def test_records_say_what_the_labels_show(training: Path) -> None:
    told = json.loads((training / "simulation.json").read_text())
    assert (told["seed"], told["part"]) == (4, "training")
    for record in told["cases"]:
        assert record == json.loads((training / "records" / f"{record['name']}.json").read_text())
        label = np.asarray(nib.load(training / "labels" / f"{record['name']}.nii.gz").dataobj)
        assert record["volume_ml"] == int(label.sum()) / 1000 > 0
        assert record["head"] == "one.nii.gz"


@pytest.mark.slow
def test_again_and_with_other_workers_every_file_has_the_same_bytes(training: Path, sources: Path) -> None:
    again = run(sources, sources / "again", "--cases", 3, "--workers", 1, "--seed", 4)
    for file in training.rglob("*"):
        if file.name.endswith((".nii.gz", ".json")):
            assert file.read_bytes() == (again / file.relative_to(training)).read_bytes(), file.name


@pytest.mark.slow
def test_a_stopped_simulation_continues_with_the_cases_that_are_missing(training: Path, sources: Path) -> None:
    stopped = Path(shutil.copytree(training, sources / "stopped"))
    missing = stopped / "records" / "sim_0001.json"
    missing.unlink()
    (stopped / "labels" / "sim_0001.nii.gz").unlink()
    told = json.loads((stopped / "simulation.json").read_text())
    (stopped / "simulation.json").write_text(json.dumps({**told, "cases": []}))
    before = {file: file.stat().st_mtime_ns for file in (stopped / "images").iterdir()}
    run(sources, stopped, "--cases", 3, "--seed", 4)
    rewritten = [file.name for file, time in before.items() if file.stat().st_mtime_ns != time]
    assert rewritten == ["sim_0001.nii.gz"]
    for file in ("simulation.json", "records/sim_0001.json", "images/sim_0001.nii.gz", "labels/sim_0001.nii.gz"):
        assert (stopped / file).read_bytes() == (training / file).read_bytes(), file


EARLIER = {"seed": 4, "part": "training", "count": 3, "healthy": 0.0, "further_lesions": 0.0, "varied": False}


@pytest.mark.parametrize(
    ("more", "changed"),
    [
        ({"seed": 5}, "seed"),
        ({"cases": 4}, "count"),
        ({"healthy": 0.5, "varied": True}, "healthy, varied"),
        ({"heads": "two.nii.gz"}, "heads"),
        ({"masks": [str(TEMPLATE)] * 5}, "masks"),
    ],
)
def test_other_settings_than_those_of_the_folder_are_refused_before_anything_is_written(
    more: dict[str, Any], changed: str, tmp_path: Path
) -> None:
    for name in HEADS:
        (tmp_path / name).symlink_to(TEMPLATE)
    folder, told = tmp_path / "cohort", json.dumps({**EARLIER, "heads": ["one.nii.gz"], "masks": [], "cases": []})
    folder.mkdir()
    (folder / "simulation.json").write_text(told)
    words = {"seed": 4, "cases": 3, "heads": "one.nii.gz", **more}
    words["heads"] = [str(tmp_path / words["heads"])]
    sentence = (
        f"{folder} holds simulated cases of seed 4 with other {changed}: choose another folder, repeat the settings in "
        f"{folder / 'simulation.json'}, or remove the folder to replace its cases."
    )
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        command.simulate(output=str(folder), **words)
    assert [file.name for file in folder.iterdir()] == ["simulation.json"]
    assert (folder / "simulation.json").read_text() == told


@pytest.mark.parametrize("content", ["[]", "{}", '{"part": "training"}', '"seed"', "3"])
def test_a_file_that_holds_no_settings_is_refused_in_a_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "simulation.json").write_text(content)
    with pytest.raises(InputError, match=r"simulation\.json does not hold the settings of simulated cases, .*\.$"):
        command.simulate(heads=[str(TEMPLATE)], output=str(tmp_path), cases=3)
    assert [file.name for file in tmp_path.iterdir()] == ["simulation.json"]


@pytest.mark.slow
def test_the_parts_share_no_head_and_no_mask(training: Path, sources: Path) -> None:
    test = run(sources, sources / "test", "--part", "test", "--cases", 2, "--healthy", 0.0, "--seed", 4)
    files = sorted(str(file) for file in (sources / "masks").iterdir())
    for output, part in ((training, "training"), (test, "test")):
        allowed = {Path(file).name for file in masks_of(part, files, 0.2)}  # type: ignore[arg-type]
        used = {record["mask"] for record in records(output)}
        assert used <= allowed | {"procedural"}
        assert used & allowed
    assert {record["head"] for record in records(test)} == {"two.nii.gz"}


@pytest.mark.slow
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


@pytest.mark.slow
def test_further_lesions_are_added(training: Path, sources: Path) -> None:
    more = run(sources, sources / "more", "--cases", 3, "--seed", 4, "--further_lesions", 20)
    components = [
        sum(ndimage.label(nib.load(file).get_fdata())[1] for file in (output / "labels").iterdir())
        for output in (training, more)
    ]
    assert components[1] > components[0] + 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("empty", "out"), r"empty holds no image; expected: files ending in \.nii\.gz"),
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
