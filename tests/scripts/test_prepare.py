"""``python -m scripts.prepare``: the datalists that it writes, what it prints and what it refuses."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.data import check_datalist, load_datalist
from bundle.errors import InputError
from scripts.prepare import prepare

SHAPE = (6, 7, 5)
MNI = np.array([[1.0, 0, 0, -98], [0, 1, 0, -134], [0, 0, 1, -72], [0, 0, 0, 1]])
TWO_SESSIONS, TWO_MASKS = range(9), range(100, 120)


def save(path: Path, voxels: int = 0, value: float = 1, affine: np.ndarray = MNI) -> Path:
    """Write an image, or a mask with this many voxels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    if voxels:
        array = np.where(array < voxels, value, 0).astype(np.float64 if value != 1 else np.uint8)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def atlas_r1(root: Path, subjects: range) -> Path:
    """Make a small ATLAS R1.1: nine sites, the first nine subjects with two sessions, some cases with two masks."""
    for number in subjects:
        for session in ("t01", "t02") if number in TWO_SESSIONS else ("t01",):
            subject = f"{31768 + number:06d}"
            stem = f"Site{number % 9 + 1}/{subject}/{session}/{subject}"
            save(root / f"{stem}_t1w_deface_stx.nii.gz")
            save(root / f"{stem}_LesionSmooth_stx.nii.gz", voxels=number + 1 if number < 50 else 2)
            if number in TWO_MASKS:
                save(root / f"{stem}_LesionSmooth_1_stx.nii.gz", voxels=3, value=254.9999999406282)
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """229 cases of 220 subjects, unpacked into ATLAS_R1.1."""
    root = tmp_path_factory.mktemp("downloads") / "ATLAS_R1.1"
    atlas_r1(root, range(220))
    (root / "ATLAS_Meta-Data_Release_1.1_standard_mni.csv").write_text("INDI Site ID,INDI Subject ID,Session")
    return root


@pytest.fixture(scope="module")
def prepared(whole: Path) -> Path:
    output = whole.parent / "prepared"
    prepare("atlas_r1", str(whole), str(output))
    return output


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Twelve cases of ten subjects: eight with one session."""
    return atlas_r1(tmp_path / "small", range(7, 17))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_atlas_r1_becomes_one_datalist_of_183_and_46(prepared: Path) -> None:
    sides = [load_datalist(prepared / "datalist.json", key) for key in ("training", "test")]
    assert [len(side) for side in sides] == [183, 46]
    subjects = [{item["subject"] for item in side} for side in sides]
    assert not subjects[0] & subjects[1]
    assert len(subjects[0] | subjects[1]) == 220
    assert {item["site"] for item in sides[0]} == {f"Site{number}" for number in range(1, 10)}


def test_the_datalist_is_what_training_and_evaluation_read(prepared: Path) -> None:
    # As configs/train.json does with --dataset_dir OUTPUT/datalist.json.
    file = prepared / "datalist.json"
    for key in ("training", "test"):
        items = check_datalist(load_datalist(file, key, base_dir=file))
        assert items == load_datalist(file, key)
        assert all(item["image"].endswith("_t1w_deface_stx.nii.gz") for item in items)
        for item in items:
            name = f"{item['site']}/{item['subject']}/{item['session']}"
            assert name in item["image"]
            assert item["case"] == name.replace("/", "_")


def test_united_masks_are_written_and_single_masks_used_in_place(prepared: Path, whole: Path) -> None:
    file = prepared / "datalist.json"
    labels = {item["case"]: Path(item["label"]) for key in ("training", "test") for item in load_datalist(file, key)}
    written = [label for label in labels.values() if label.is_relative_to(prepared)]
    assert sorted(written) == sorted((prepared / "labels").iterdir())
    assert len(written) == len(TWO_MASKS)
    assert all(label.is_relative_to(whole) for label in labels.values() if label not in written)
    united = nib.load(written[0])
    assert united.get_data_dtype() == np.uint8
    assert np.array_equal(united.affine, MNI)
    assert np.array_equal(np.asarray(united.dataobj).ravel(), [1] * 3 + [0] * (np.prod(SHAPE) - 3))


def test_the_summary_has_cases_volumes_and_sizes(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    prepare("atlas_r1", str(small), str(tmp_path / "out"))
    assert lines_of(capsys) == [
        "ATLAS R1.1: 12 cases of 10 subjects at 9 sites",
        # Subjects 7 to 16 have 8 to 17 voxels of 1 mm3, 7 and 8 twice: 8 8 9 9 10 11 | 12 13 14 15 16 17.
        "lesions: 0.01 to 0.02 mL, median 0.01 mL",
        f"labels: 0 written to {tmp_path}/out/labels, 12 used in place",
        "note: the release has 229 cases",
        f"{tmp_path}/out/datalist.json: 10 training, 2 test",
    ]


def test_isles_becomes_five_folds_of_28_cases(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in range(1, 29):
        for volume in ("MR_T1", "MR_Flair", "OT"):
            name = f"VSD.Brain.XX.O.{volume}.{70610 + number}"
            save(tmp_path / f"SISS2015_Training/{number}/{name}/{name}.nii", voxels=2 if volume == "OT" else 0)
    output = tmp_path / "isles"
    prepare("isles_2015", str(tmp_path / "SISS2015_Training"), str(output), split="folds")
    assert lines_of(capsys)[3:] == [
        f"{output}/fold_{number}.json: {28 - test} training, {test} test"
        for number, test in enumerate((6, 6, 6, 5, 5), start=1)
    ]
    assert sorted(file.name for file in output.iterdir()) == [f"fold_{number}.json" for number in range(1, 6)]
    tested = [item["case"] for file in output.iterdir() for item in load_datalist(file, "test")]
    assert sorted(tested, key=int) == [str(number) for number in range(1, 29)]


def test_each_site_is_left_out_in_a_datalist_of_its_own(small: Path, tmp_path: Path) -> None:
    prepare("atlas_r1", str(small), str(tmp_path / "out"), split="sites")
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == [f"without_Site{number}.json" for number in range(1, 10)]
    for file in files:
        training, test = (load_datalist(file, key) for key in ("training", "test"))
        assert {f"without_{item['site']}.json" for item in test} == {file.name}
        assert len(training) + len(test) == 12
        assert file.name not in {f"without_{item['site']}.json" for item in training}


@pytest.mark.parametrize("split", ["holdout", "folds", "sites"])
def test_the_same_settings_give_the_same_bytes(tmp_path: Path, split: str) -> None:
    source = atlas_r1(tmp_path / "source", range(96, 104))
    runs = []
    for _ in range(2):
        prepare("atlas_r1", str(source), str(tmp_path / "out"), split=split, seed=5)
        runs.append(contents(tmp_path / "out"))
    assert runs[0] == runs[1]
    assert len([name for name in runs[0] if name.startswith("labels/")]) == 4
    assert not any("/." in name or name.startswith(".") for name in runs[0])


def test_several_splits_fit_into_one_folder(small: Path, tmp_path: Path) -> None:
    for split in ("holdout", "folds", "sites"):
        prepare("atlas_r1", str(small), str(tmp_path / "out"), split=split)
    assert len(list((tmp_path / "out").glob("*.json"))) == 1 + 5 + 9


@pytest.mark.parametrize(
    ("first", "second", "changed"),
    [
        ({}, {"seed": 1}, "seed, training, test"),
        ({"split": "folds"}, {"split": "folds", "folds": 3}, "folds, training, test"),
    ],
)
def test_another_split_is_not_written_over_the_first(
    small: Path, tmp_path: Path, first: dict, second: dict, changed: str
) -> None:
    output = tmp_path / "out"
    prepare("atlas_r1", str(small), str(output), **first)
    before = contents(output)
    with pytest.raises(InputError, match=rf"json exists with other {changed}: choose another folder, or remove it"):
        prepare("atlas_r1", str(small), str(output), **second)
    assert contents(output) == before


def test_a_split_with_other_cases_is_not_written_over_the_first(small: Path, tmp_path: Path) -> None:
    prepare("atlas_r1", str(small), str(tmp_path / "out"))
    atlas_r1(small, range(17, 18))
    with pytest.raises(InputError, match=r"datalist\.json exists with other training"):
        prepare("atlas_r1", str(small), str(tmp_path / "out"))


@pytest.mark.parametrize("text", ["not JSON", "[]", '{"training": [{"image": "a"}], "test": []}'])
def test_a_datalist_of_another_origin_is_not_overwritten(small: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/datalist.json").write_text(text)
    with pytest.raises(InputError, match=r"exists with other name, layout, split, seed, training, test: choose"):
        prepare("atlas_r1", str(small), str(tmp_path / "out"))
    assert (tmp_path / "out/datalist.json").read_text() == text


def test_all_problems_are_listed_and_no_datalist_is_written(small: Path, tmp_path: Path) -> None:
    folders = sorted(small.glob("Site*/*/t01"))
    images = [next(folder.glob("*t1w*")) for folder in folders]
    masks = [next(folder.glob("*Lesion*")) for folder in folders]
    images[0].unlink()
    masks[1].unlink()
    images[2].write_bytes(images[2].read_bytes()[:-20])
    save(masks[3], voxels=2, affine=np.eye(4))
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), MNI), masks[4])
    nib.save(nib.Nifti1Image(np.ones((6, 7, 4), np.uint8), MNI), masks[5])
    with pytest.raises(InputError) as caught:
        prepare("atlas_r1", str(small), str(tmp_path / "out"))
    headline, *sentences = str(caught.value).split("\n")
    assert headline == "6 problems in the cohort; no datalist was written."
    expected = [
        f"{folders[0]} has no T1w image",
        f"{folders[1]} has no lesion mask",
        f"{images[2]} is a damaged gzip file",
        f"{masks[3]} is not aligned with its image {images[3].name}",
        f"{masks[4]} has no lesion voxel",
        f"{masks[5]} is (6, 7, 4) and its image {images[5].name} (6, 7, 5)",
    ]
    assert all(told.startswith(start) for told, start in zip(sentences, expected, strict=True))
    assert not list((tmp_path / "out").glob("*.json"))


def bids(root: Path, sessions: int, unlabelled: int = 0) -> Path:
    """Make subjects with two sessions each, the last ones without masks."""
    for number in range(sessions):
        name = f"sub-{number // 2}_ses-{number % 2}"
        save(root / f"sub-{number // 2}/ses-{number % 2}/anat/{name}_T1w.nii.gz")
        if number < sessions - unlabelled:
            save(root / f"derivatives/lesions/{name}_label-lesion_mask.nii.gz", voxels=1)
    return root


def test_sessions_that_do_not_allow_8_to_2_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    prepare("bids", str(bids(tmp_path / "even", 8)), str(tmp_path / "of_8"))  # 1.6 would be tested
    assert lines_of(capsys)[-1] == f"{tmp_path}/of_8/datalist.json: 6 training, 2 test"
    prepare("bids", str(bids(tmp_path / "odd", 14)), str(tmp_path / "of_14"))  # 2.8 would be tested
    assert lines_of(capsys)[-2:] == [
        f"{tmp_path}/of_14/datalist.json: 12 training, 2 test",
        "note: 8:2 would be 3 test cases, which the subjects' sessions do not allow",
    ]


def test_sessions_without_mask_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    prepare("bids", str(bids(tmp_path / "bids", 14, unlabelled=4)), str(tmp_path / "out"))
    assert lines_of(capsys)[-2:] == [
        "left out: sessions without a lesion mask of a T1w image (4): sub-5_ses-0_T1w.nii.gz, "
        "sub-5_ses-1_T1w.nii.gz, sub-6_ses-0_T1w.nii.gz, sub-6_ses-1_T1w.nii.gz",
        f"{tmp_path}/out/datalist.json: 8 training, 2 test",
    ]


@pytest.mark.parametrize("inside", ["", "/prepared"])
def test_the_download_is_not_written_to(small: Path, inside: str) -> None:
    before = contents(small)
    with pytest.raises(InputError, match=r" is in .*: choose a folder outside, so that the download stays unchanged"):
        prepare("atlas_r1", str(small), f"{small}{inside}")
    assert contents(small) == before


def test_folds_without_the_split_into_folds_are_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folds goes with --split folds, and the split is 'holdout'"):
        prepare("atlas_r1", str(small), str(tmp_path / "out"), folds=3)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that runs the module as a program, in this process."""

    def run(*words: object) -> None:
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # put back afterwards
        monkeypatch.setattr(sys, "argv", ["prepare", *map(str, words)])
        runpy.run_path(str(Path(__file__).parents[2] / "scripts/prepare.py"), run_name="__main__")

    return run


def test_the_command_writes_a_datalist(small: Path, tmp_path: Path, command: Callable[..., None]) -> None:
    command("atlas_r1", small, tmp_path / "out", "--split", "folds", "--folds", 3, "--seed", 2)
    fold = json.loads((tmp_path / "out/fold_1.json").read_text())
    assert [fold[key] for key in ("name", "layout", "split", "seed", "folds")] == [
        "ATLAS R1.1",
        "atlas_r1",
        "folds",
        2,
        3,
    ]


def test_an_error_ends_the_command_with_code_1_and_a_sentence(
    tmp_path: Path, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as ended:
        command("isles_2015", tmp_path / "empty", tmp_path / "out")
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"Error: {tmp_path}/empty holds no case of ISLES 2015")
