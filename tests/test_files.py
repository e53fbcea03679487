"""One search of folders for the whole project: what is there is found, what cannot be read is named with its remedy."""

from __future__ import annotations

import gzip
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bundle.data import check_datalist, find_images, load_datalist
from bundle.data.cohorts import prepare_label, read_cohort
from bundle.data.simulate import LesionMasks, load_head
from bundle.errors import InputError, explain, missing_content
from bundle.files import read_json, write_json
from bundle.volumes.inputs import find_volumes

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 8388608\n"
ANNEX = "../.git/annex/objects/X9/6J/MD5E-s8--b1/MD5E-s8--b1.nii.gz"

Damage = Callable[[Path], Any]
NIFTI = b"\\\1\0\0" + bytes(340) + b"n+1\0" + bytes(99)
ABSENT: dict[str, tuple[Damage, str]] = {
    "annex link": (
        lambda file: file.symlink_to(ANNEX),
        "is a link of git-annex whose content is not here: fetch it with `datalad get`",
    ),
    "annex pointer": (
        lambda file: file.write_text("/annex/objects/MD5E-s8--b1.nii.gz\n"),
        "is a pointer of git-annex, .* `datalad get`",
    ),
    "LFS pointer": (lambda file: file.write_bytes(LFS), "is a pointer of git LFS, .*: fetch it with `git lfs pull`"),
    "dead link": (
        lambda file: file.symlink_to("/nowhere/t1.nii"),
        "is a link to /nowhere/t1.nii, which does not exist",
    ),
    "link to itself": (lambda file: file.symlink_to(file.name), "is a link to .*, which does not exist"),
    "zip": (lambda file: file.write_bytes(b"PK\3\4" + bytes(99)), "is a ZIP archive: unpack it"),
    "login page": (lambda file: file.write_text("<!DOCTYPE html>Sign in"), "is a web page: download the file itself"),
    "text": (lambda file: file.write_text("age\n"), "is not compressed by gzip, although its name says so: copy or"),
    "NIfTI": (lambda file: file.write_bytes(NIFTI), r"is not compressed by gzip.*: rename it to \w+\.nii\."),
    "cut gzip": (
        lambda file: file.write_bytes(gzip.compress(bytes(9999))[:30]),
        "is a damaged gzip file .*: copy or export it again",
    ),
}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small T1w image, or a mask, below ``tmp_path``."""

    def written(name: str, mask: bool = False) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        voxels = np.random.default_rng(0).integers(0, 2 if mask else 900, (9, 9, 9)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2, 2, 1])), file)
        return file

    return written


Save = Callable[..., Path]


@pytest.mark.parametrize("kind", ABSENT)
def test_a_file_without_its_content_is_named_with_the_remedy_on_every_way_in(
    kind: str, save: Save, tmp_path: Path
) -> None:
    damage, sentence = ABSENT[kind]
    for name in ("images/a.nii.gz", "images/b.nii.gz"):
        save(name)
    save("labels/a.nii.gz", mask=True)
    (tmp_path / "images" / "b.nii.gz").unlink()
    damage(tmp_path / "images" / "b.nii.gz")
    damage(tmp_path / "labels" / "b.nii.gz")
    file, label = tmp_path / "images" / "b.nii.gz", tmp_path / "labels" / "b.nii.gz"
    expected = rf"(?s){file} {sentence}"
    # Found by the segment command and by monai.bundle run, where each file fails for itself.
    assert file in [volume.file for volume in find_volumes(tmp_path / "images", tmp_path / "out")]
    assert str(file) in find_images(tmp_path / "images")
    # Training and evaluation, preparation, simulation.
    with pytest.raises(InputError, match=expected):
        check_datalist(load_datalist(tmp_path))
    with pytest.raises(InputError, match=rf"(?s){label} {sentence}"):
        check_datalist([{"image": tmp_path / "images" / "a.nii.gz", "label": label}])
    case = read_cohort("plain", tmp_path).cases[1]
    with pytest.raises(InputError, match=expected):
        prepare_label(case, tmp_path / "new")
    with pytest.raises(InputError, match=expected):
        load_head(str(file))
    with pytest.raises(InputError, match=rf"(?s){label} {sentence}"):
        LesionMasks([str(label)], progress=False)


def test_linked_subfolders_are_found_and_loops_end(save: Save, tmp_path: Path) -> None:
    save("elsewhere/one/a.nii.gz")
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "deep" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in" / "deep")
    (tmp_path / "in" / "self").symlink_to("self")
    expected = ["in/linked/one/a.nii.gz"]
    assert [Path(file).relative_to(tmp_path).as_posix() for file in find_images(tmp_path / "in")[:1]] == expected
    assert len(find_volumes(tmp_path / "in", tmp_path / "out")) == 2  # and the link that leads nowhere, to fail


def test_a_subject_whose_folder_is_a_dead_link_is_not_silently_left_out(save: Save, tmp_path: Path) -> None:
    save("bids/sub-01/anat/sub-01_T1w.nii.gz")
    (tmp_path / "bids" / "sub-02").symlink_to("/mnt/unplugged/sub-02")
    (tmp_path / "bids" / "sub-02_T1w.json").symlink_to("/mnt/unplugged/sub-02_T1w.json")
    assert [Path(file).name for file in find_images(tmp_path / "bids")] == ["sub-01_T1w.nii.gz", "sub-02"]
    with pytest.raises(InputError, match=r"bids/sub-02 is a link to /mnt/unplugged/sub-02, which does not exist"):
        read_cohort("bids", tmp_path / "bids")


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that cannot be entered, also by root, who runs the tests in some places."""
    folder = tmp_path / "in" / "closed"
    folder.mkdir(parents=True)
    listing = os.scandir

    def refuse(path: Any = ".") -> Any:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(Path, "iterdir", lambda self: (Path(entry.path) for entry in refuse(self)))
    yield folder
    monkeypatch.undo()


def test_a_folder_that_cannot_be_entered_is_named(closed: Path, save: Save, tmp_path: Path) -> None:
    save("in/a.nii.gz")
    assert [volume.file for volume in find_volumes(tmp_path / "in", tmp_path / "out")] == [
        tmp_path / "in" / "a.nii.gz",
        closed,
    ]
    assert explain(closed, OSError()) == f"{closed} cannot be read: give this user read permission."
    with pytest.raises(InputError, match=r"in/closed cannot be read: give this user read permission"):
        read_cohort("bids", tmp_path / "in")


@pytest.mark.parametrize("archive", ["scans.zip", "SCANS.ZIP", "sub-01.tar.gz", "scans.tgz", "a.7z"])
def test_archives_are_counted_and_named(
    archive: str, save: Save, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / archive).touch()
    for search in (find_images, lambda folder: find_volumes(folder, tmp_path / "out")):
        with pytest.raises(
            InputError, match=rf"/in holds no image, but 1 archives such as .*/in/{archive}: unpack them"
        ):
            search(tmp_path / "in")
    save("in/a.nii.gz")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert len(find_images(tmp_path / "in")) == 1
    assert f"Archives are not read; unpack them: 1, such as {tmp_path / 'in' / archive}." in caplog.text


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("scans", r"/scans lies in \S*scans, where results are written: write them to another folder"),
        (".", r"/scans lies in \S+, where results are written: write them to another folder"),
        ("scans/a", r"/scans holds images only in \S+/scans/a, where results are written: choose another"),
    ],
)
def test_results_in_or_above_the_scans_are_refused_by_their_cause(
    output: str, sentence: str, save: Save, tmp_path: Path
) -> None:
    save("scans/a/t1.nii.gz")
    for search in (lambda source, out: find_images(source, outside=out), find_volumes):
        with pytest.raises(InputError, match=sentence):
            search(tmp_path / "scans", tmp_path / output)


def test_a_pattern_does_not_match_results_of_an_earlier_run(save: Save, tmp_path: Path) -> None:
    save("scans/a.nii.gz")
    save("scans/a_space-orig_label-L_desc-lesion_mask.nii.gz", mask=True)
    assert [volume.name for volume in find_volumes(f"{tmp_path}/scans/*.nii.gz", tmp_path / "scans")] == ["a"]


@pytest.mark.parametrize(
    "content",
    ["image;age\na.nii.gz;70\n", "age;Image;side\n70;a.nii.gz;left, right\n", "image\ta\na.nii.gz\t1\n"],
)
def test_a_table_is_read_by_whatever_separates_its_columns(content: str, save: Save, tmp_path: Path) -> None:
    save("a.nii.gz")
    (tmp_path / "list.csv").write_text(content)
    assert [volume.name for volume in find_volumes(tmp_path / "list.csv", "nowhere")] == ["a"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_of_windows_programs_is_read(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_bytes(
        json.dumps({"training": [{"image": "a.nii", "label": "ä.nii"}]}).encode(encoding)
    )
    assert load_datalist(tmp_path / "list.json")[0]["label"] == str(tmp_path / "ä.nii")


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"[" * 100_000, LFS])
def test_what_is_not_json_is_refused_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_bytes(content)
    with pytest.raises(InputError, match=r"list\.json is (not JSON|a pointer of git LFS)"):
        read_json(tmp_path / "list.json")


def test_numbers_that_json_does_not_have_are_null(tmp_path: Path) -> None:
    content = {"dice": float("nan"), "of": [1.5, float("inf"), {"sd": np.float64("nan")}], "pair": (1, -float("inf"))}
    write_json(content, tmp_path / "a.json")

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert found == {"dice": None, "of": [1.5, None, {"sd": None}], "pair": [1, None]}


def test_a_whole_file_misses_nothing(save: Save, tmp_path: Path) -> None:
    assert missing_content(save("a.nii.gz")) == missing_content(tmp_path) == ""
