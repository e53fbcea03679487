"""Which files are the volumes of a batch, and that the names of their results are unique."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bundle.errors import InputError
from bundle.volumes.inputs import find_volumes
from bundle.volumes.sources import folders_left_out


def make(folder: Path, *names: str) -> list[Path]:
    files = [folder / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return files


def named(source: str | Path, output: str | Path = "nowhere") -> dict[str, str]:
    """Names of the results, and of the files."""
    return {volume.name: volume.file.name for volume in find_volumes(source, output)}


# Folders


def test_a_folder_is_searched_with_its_subfolders_and_names_keep_them(tmp_path: Path) -> None:
    make(tmp_path, "b.nii", "a.nii.gz", "site one/Müller 頭.nii.gz", "x/y/z.mgz", "notes.txt", "._a.nii.gz", "x/c.dcm")
    assert named(tmp_path) == {
        "a": "a.nii.gz",
        "b": "b.nii",
        "site one/Müller 頭": "Müller 頭.nii.gz",
        "x/y/z": "z.mgz",
    }


def test_files_of_one_name_in_different_folders_or_with_different_suffixes_get_different_names(tmp_path: Path) -> None:
    make(tmp_path, "one/scan.nii.gz", "two/scan.nii.gz", "two/scan.nii", "two/SCAN.mgz")
    assert named(tmp_path) == {
        "one/scan": "scan.nii.gz",
        "two/SCAN": "SCAN.mgz",
        "two/scan.nii": "scan.nii",
        "two/scan.nii.gz": "scan.nii.gz",
    }


def test_names_do_not_depend_on_what_else_is_there(tmp_path: Path) -> None:
    files = make(tmp_path, "deep/down/a.nii.gz", "deep/b.nii.gz")
    assert set(named(tmp_path)) == {"deep/down/a", "deep/b"}
    files[1].unlink()
    assert set(named(tmp_path)) == {"deep/down/a"}


def test_results_in_the_folder_of_the_volumes_are_not_volumes(tmp_path: Path) -> None:
    make(tmp_path, "a.nii.gz", "results/a_mask.nii.gz", "results/more/b.nii.gz")
    assert named(tmp_path, tmp_path / "results") == {"a": "a.nii.gz"}


def test_links_are_followed_and_a_circle_ends(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/a.nii.gz", "in/own.nii.gz")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.nii.gz").symlink_to(tmp_path / "nothing")
    assert named(tmp_path / "in") == {"gone": "gone.nii.gz", "linked/a": "a.nii.gz", "own": "own.nii.gz"}


def test_names_of_results_are_utf8_and_short_whatever_the_bytes_of_the_sources(tmp_path: Path) -> None:
    cyrillic = b"\xe3\xee\xeb" * 60
    names = (b"caf\xe9.nii.gz", b"caf%E9.nii.gz", b"d\xe9p/a.nii", cyrillic + b"/" + cyrillic + b".nii")
    make(tmp_path, *map(os.fsdecode, names))
    long, *given = sorted(named(tmp_path))
    assert given == ["caf%E9", "caf%E9.nii.gz", "d%E9p/a"]
    assert long.isascii()
    assert max(len(part) for part in long.split("/")) <= 180


# BIDS


def test_in_a_bids_dataset_only_the_t1w_images_of_the_subjects_are_found(tmp_path: Path) -> None:
    make(
        tmp_path,
        "dataset_description.json",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-fast_T1w.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_T2w.nii.gz",
        "sub-02/anat/sub-02_run-1_T1w.nii.gz",
        "sub-02/anat/sub-02_run-2_T1w.nii",
        "derivatives/tool/sub-01/anat/sub-01_T1w.nii.gz",
        "sourcedata/sub-03/anat/sub-03_T1w.nii.gz",
    )
    assert list(named(tmp_path)) == [
        "sub-01/ses-1/anat/sub-01_ses-1_acq-fast",
        "sub-02/anat/sub-02_run-1",
        "sub-02/anat/sub-02_run-2",
    ]


# One file, patterns, lists


def test_one_file_and_a_pattern(tmp_path: Path) -> None:
    a, *_ = make(tmp_path, "s/a.nii.gz", "s/t/b.nii.gz", "s/t/c.mgz")
    assert named(a) == {"a": "a.nii.gz"}
    assert named(f"{tmp_path}/s/*/*.nii.gz") == {"t/b": "b.nii.gz"}
    assert named(f"{tmp_path}/**/*.nii.gz") == {"s/a": "a.nii.gz", "s/t/b": "b.nii.gz"}


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("s*", "matches folders such as {0}/study, and no file: give a folder itself; {0} is searched with its subfol"),
        ("*/", "matches folders such as {0}/images, and no file: give a folder itself; {0} is searched"),
    ],
)
def test_a_pattern_of_folders_says_what_to_give_instead(pattern: str, sentence: str, tmp_path: Path) -> None:
    make(tmp_path, "images/a.nii.gz", "results/b.nii.gz", "study/1.dcm")
    with pytest.raises(InputError) as told:
        find_volumes(f"{tmp_path}/{pattern}", tmp_path / "results")
    assert str(told.value).startswith(f"{tmp_path}/{pattern} " + sentence.format(tmp_path))


@pytest.mark.parametrize(
    ("pattern", "left_out"), [("*", 1), ("**/*", 0), ("*.nii.gz", 0), ("a.nii.gz", 0), ("", 0), ("images*", 0)]
)
def test_folders_that_a_pattern_leaves_out_are_named(pattern: str, left_out: int, tmp_path: Path) -> None:
    make(tmp_path, "a.nii.gz", "images.nii", "results/b.nii.gz", ".cache/c", "study/more/.keep")
    lines = folders_left_out(f"{tmp_path}/{pattern}", tmp_path / "results")
    assert len(lines) == left_out
    assert all("left out: " in line and f"such as {tmp_path}/study: give a folder itself" in line for line in lines)


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    (file,) = make(tmp_path, "scan [1].nii.gz")
    assert named(file) == {"scan [1]": "scan [1].nii.gz"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "a.nii.gz\n\n  s/b c.nii.gz \ngone.nii\ns/../a.nii.gz\n"),
        ("list.csv", 'age,Image\n70,a.nii.gz\n60,"s/b c.nii.gz"\n50,gone.nii\n40,\n'),
        ("list.tsv", "\ufefffile\tage\na.nii.gz\t70\ns/b c.nii.gz\t60\ngone.nii\t50\n"),
    ],
)
def test_a_list_gives_its_order_and_its_folder(name: str, text: str, tmp_path: Path) -> None:
    make(tmp_path, "a.nii.gz", "s/b c.nii.gz")
    (tmp_path / name).write_text(text, encoding="utf-8")
    volumes = find_volumes(tmp_path / name, "nowhere")
    assert [volume.name for volume in volumes] == ["a", "s/b c", "gone"]
    assert [volume.file for volume in volumes] == [
        tmp_path / "a.nii.gz",
        tmp_path / "s/b c.nii.gz",
        tmp_path / "gone.nii",
    ]


def test_a_list_of_files_from_everywhere(tmp_path: Path) -> None:
    make(tmp_path, "lists/l.txt", "disk one/p/scan.nii.gz", "disk two/scan.nii.gz")
    (tmp_path / "lists" / "l.txt").write_text(f"{tmp_path}/disk one/p/scan.nii.gz\n{tmp_path}/disk two/scan.nii.gz\n")
    assert list(named(tmp_path / "lists" / "l.txt")) == ["disk one/p/scan", "disk two/scan"]


# Nothing to do


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "absent",
            r"/absent does not exist: a T1w image .* a folder of them, a BIDS dataset, a pattern .* is expected\.$",
        ),
        ("empty", r"/empty holds no image; expected: files ending in \.nii\.gz, .*\.$"),
        ("bids", r"/bids holds no image; expected: T1w images named sub-<label>\.\.\._T1w\.$"),
        ("*.nii.gz", r"/\*\.nii\.gz holds no image; expected: files that match the pattern\.$"),
        ("empty.txt", r"/empty\.txt holds no image; expected: one path per line\.$"),
        ("ages.csv", r"/ages\.csv has no column of paths: one called image, file, path, filename is expected\.$"),
    ],
)
def test_a_source_without_images_is_reported_in_a_sentence(source: str, sentence: str, tmp_path: Path) -> None:
    make(tmp_path, "empty/notes.md", "bids/dataset_description.json", "bids/scan.nii.gz", "empty.txt")
    (tmp_path / "ages.csv").write_text("age\n70\n")
    with pytest.raises(InputError, match=sentence):
        find_volumes(tmp_path / source, "nowhere")
