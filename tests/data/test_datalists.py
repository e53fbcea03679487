"""Datalists: both forms, a sentence for every problem, and the split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bundle.data import check_datalist, find_images, load_datalist, split_datalist
from bundle.errors import InputError

WriteNifti = Callable[..., Path]
MakeCase = Callable[..., dict[str, str]]


@pytest.fixture
def make_case(write_nifti: WriteNifti) -> MakeCase:
    """Writes ``images/<name>.nii.gz`` and ``labels/<name>.nii.gz``, 6 x 7 x 8 voxels by default."""

    def make(
        name: str,
        label: np.ndarray | None = None,
        label_affine: np.ndarray | None = None,
        label_name: str | None = None,
    ) -> dict[str, str]:
        lesion = np.zeros((6, 7, 8), dtype=np.uint8)
        lesion[2:4, 3, 4] = 1
        image = np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8)
        label = lesion if label is None else label
        return {
            "image": str(write_nifti(f"images/{name}.nii.gz", image)),
            "label": str(write_nifti(f"labels/{label_name or name}.nii.gz", label, label_affine)),
        }

    return make


@pytest.fixture
def write_json(tmp_path: Path) -> Callable[[object], Path]:
    def write(content: object) -> Path:
        path = tmp_path / "datalist.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


WriteJson = Callable[[object], Path]


def problems_of(data: list[dict], allow_empty_labels: bool = False) -> list[str]:
    """The sentences on a datalist, without the headline."""
    with pytest.raises(InputError) as caught:
        check_datalist(data, allow_empty_labels)
    headline, *sentences = str(caught.value).split("\n")
    assert headline.startswith(f"{len(sentences)} problem")
    return sentences


# The JSON form


def test_paths_in_json_start_from_its_folder(tmp_path: Path, write_json: WriteJson) -> None:
    cases = [{"image": "images/a.nii.gz", "label": "labels/a.nii.gz"}, {"image": "b.nii", "label": "b_mask.nii"}]
    path = write_json({"name": "cohort", "training": cases, "validation": cases[:1]})
    expected = [{key: str(tmp_path / file) for key, file in case.items()} for case in cases]
    assert load_datalist(path) == expected
    assert load_datalist(path, key="validation") == expected[:1]


def test_paths_in_json_start_from_the_folder_given(write_json: WriteJson) -> None:
    path = write_json({"training": [{"image": "a.nii", "label": "m/a.nii"}]})
    assert load_datalist(path, base_dir="/cohort") == [{"image": "/cohort/a.nii", "label": "/cohort/m/a.nii"}]


@pytest.mark.parametrize("content", ['{"training": [', "", "image,label\na.nii,b.nii"])
def test_bad_json_is_refused(write_json: WriteJson, content: str) -> None:
    path = write_json(content)
    with pytest.raises(InputError, match=rf"^{path} is not a datalist in JSON: "):
        load_datalist(path)


def test_an_image_in_place_of_a_datalist_is_refused(make_case: MakeCase) -> None:
    file = make_case("a")["image"]
    with pytest.raises(InputError, match=f"^{file} is not a datalist in JSON: "):
        load_datalist(file)


@pytest.mark.parametrize(
    ("content", "sections"), [({"train": [], "test": []}, "train, test"), ({"training": []}, "training"), ([], "none")]
)
def test_a_missing_or_empty_section_is_refused_and_the_others_named(
    write_json: WriteJson, content: object, sections: str
) -> None:
    with pytest.raises(InputError, match=f"has no cases under 'training'; its sections are: {sections}\\.$"):
        load_datalist(write_json(content))


@pytest.mark.parametrize("cases", [["a.nii", "b.nii"], {"image": "a.nii"}, "a.nii", 3])
def test_a_section_of_something_else_than_cases_is_refused(write_json: WriteJson, cases: object) -> None:
    with pytest.raises(InputError, match="'training' must be a list of cases like"):
        load_datalist(write_json({"training": cases}))


@pytest.mark.parametrize("value", [None, ["a.nii", "b.nii"], 3, "", "  ", {"file": "a.nii"}, True])
@pytest.mark.parametrize("part", ["image", "label"])
def test_a_case_whose_file_is_not_one_path_is_named(write_json: WriteJson, part: str, value: object) -> None:
    good = {"image": "a.nii", "label": "m.nii"}
    path = write_json({"training": [good, {**good, part: value}]})
    with pytest.raises(
        InputError, match=rf"case 2 of 'training' has .+ as its {part}: the path of one file is expected"
    ):
        load_datalist(path)


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none does not exist: a datalist in JSON or a folder with images/ and labels"):
        load_datalist(tmp_path / "none")


# The folder form


def test_a_folder_s_images_and_labels_are_paired_by_name(tmp_path: Path, make_case: MakeCase) -> None:
    cases = [make_case("c"), make_case("a", label_name="a_lesion"), make_case("b", label_name="b_mask")]
    cases.append(make_case("d", label_name="d_label"))
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    assert load_datalist(tmp_path) == sorted(cases, key=lambda case: case["image"])
    assert check_datalist(load_datalist(tmp_path)) == load_datalist(tmp_path)


def test_images_without_label_and_labels_without_image_are_refused(tmp_path: Path, make_case: MakeCase) -> None:
    make_case("a", label_name="x")
    make_case("b")
    with pytest.raises(InputError, match=r"has 2 images or labels without a partner of the same name: a, x\.$"):
        load_datalist(tmp_path)


def test_of_many_unpaired_names_five_are_given(tmp_path: Path, make_case: MakeCase) -> None:
    for number in range(4):
        make_case(f"i{number}", label_name=f"l{number}")
    with pytest.raises(InputError, match=r"has 8 images .*: i0, i1, i2, i3, l0 \.\.\.\.$"):
        load_datalist(tmp_path)


def test_two_labels_for_one_image_are_refused(tmp_path: Path, make_case: MakeCase) -> None:
    first, second = make_case("a"), make_case("a", label_name="a_mask")
    with pytest.raises(InputError, match=f"^{first['label']} and {second['label']} are both labels of a: one label"):
        load_datalist(tmp_path)


@pytest.mark.parametrize("missing", ["images", "labels"])
def test_a_folder_without_images_or_labels_is_refused(tmp_path: Path, make_case: MakeCase, missing: str) -> None:
    make_case("a")
    for file in (tmp_path / missing).iterdir():
        file.unlink()
    with pytest.raises(
        InputError, match=f"{missing} holds no image; expected: files ending in .nii.gz, .nii, .mgz, .mgh"
    ):
        load_datalist(tmp_path)
    (tmp_path / missing).rmdir()
    with pytest.raises(InputError, match=f"{missing} does not exist: a folder of T1w images"):
        load_datalist(tmp_path)


def test_images_are_found_in_subfolders_and_sorted(tmp_path: Path) -> None:
    for name in ("b/t1.nii.gz", "a/t1.MGZ", "t1.nii", "a/t1.json", "readme.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.nii").mkdir()
    assert find_images(tmp_path) == [str(tmp_path / name) for name in ("a/t1.MGZ", "b/t1.nii.gz", "t1.nii")]
    assert find_images(tmp_path / "t1.nii") == [str(tmp_path / "t1.nii")]


def test_the_folder_of_the_results_does_not_count(tmp_path: Path) -> None:
    for name in ("t1.nii", "out/t1_mask.nii", "output/t1.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_images(tmp_path, outside=tmp_path / "out") == [
        str(tmp_path / "output/t1.nii"),
        str(tmp_path / "t1.nii"),
    ]
    with pytest.raises(InputError, match=r"/out lies in \S+, where results are written: write them to another folder"):
        find_images(tmp_path / "out", outside=tmp_path)


def test_images_that_differ_in_their_suffix_only_are_refused(tmp_path: Path) -> None:
    for name in ("t1.nii", "t1.mgz"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=f"^{tmp_path / 't1'} exists with several suffixes: one image of that name"):
        find_images(tmp_path)


# The check


def test_a_good_datalist_comes_back_as_it_is(make_case: MakeCase) -> None:
    data = [make_case("a"), make_case("b")]
    assert check_datalist(data) == data


@pytest.mark.parametrize("key", ["image", "label"])
def test_a_missing_file_is_reported(make_case: MakeCase, key: str) -> None:
    case = make_case("a")
    Path(case[key]).unlink()
    assert problems_of([case]) == [f"{case[key]} does not exist."]


def test_two_missing_files_of_a_case_are_one_problem(tmp_path: Path) -> None:
    case = {"image": str(tmp_path / "a.nii"), "label": str(tmp_path / "b.nii")}
    [problem] = problems_of([case])
    assert case["image"] in problem
    assert case["label"] in problem


@pytest.mark.parametrize("key", ["image", "label"])
def test_a_case_without_one_of_its_files_is_reported(make_case: MakeCase, key: str) -> None:
    case = make_case("a")
    del case[key]
    assert problems_of([make_case("b"), case]) == [f"Case 2 has no {key!r}: an image and its label are expected."]


def test_a_label_without_lesion_is_reported_unless_allowed(make_case: MakeCase) -> None:
    case = make_case("a", label=np.zeros((6, 7, 8), dtype=np.uint8))
    assert problems_of([case]) == [f"{case['label']} has no lesion voxel: set allow_empty_labels if that is intended."]
    assert check_datalist([case], allow_empty_labels=True) == [case]


def test_a_label_of_another_shape_is_reported(make_case: MakeCase) -> None:
    case = make_case("a", label=np.ones((6, 7, 9), dtype=np.uint8))
    assert problems_of([case]) == [
        f"{case['label']} is (6, 7, 9) and its image {Path(case['image']).name} (6, 7, 8): "
        "they must have the same shape."
    ]


def test_a_label_that_lies_elsewhere_is_reported(make_case: MakeCase) -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[0, 3] = 0.005  # less than anything that matters
    assert check_datalist([make_case("a", label_affine=affine)])
    affine[0, 3] = 1
    case = make_case("b", label_affine=affine)
    assert problems_of([case]) == [
        f"{case['label']} is not aligned with its image {Path(case['image']).name}, from which it is up to 1 mm away: "
        "resample it to the grid of the image."
    ]


def test_an_image_listed_twice_is_reported_however_it_is_written(tmp_path: Path, make_case: MakeCase) -> None:
    case = make_case("a")
    again = {"image": str(tmp_path / "labels" / ".." / "images" / "a.nii.gz"), "label": case["label"]}
    assert problems_of([case, again, make_case("b")]) == [f"{case['image']} is listed 2 times: once is expected."]


@pytest.mark.parametrize("key", ["image", "label"])
def test_a_file_that_is_not_an_image_is_the_one_reported(make_case: MakeCase, key: str) -> None:
    case = make_case("a")
    Path(case[key]).write_text("not an image")
    [problem] = problems_of([case])
    assert problem.startswith(f"{case[key]} is not compressed by gzip, although its name says so")


def test_a_truncated_label_is_reported(make_case: MakeCase) -> None:
    label = np.random.default_rng(0).integers(0, 2, (6, 7, 8), dtype=np.uint8)
    case = make_case("a", label=label)
    file = Path(case["label"])
    file.write_bytes(file.read_bytes()[:-40])
    [problem] = problems_of([case])
    assert problem.startswith(f"{file} is a damaged gzip file (Compressed file ended before")


def test_all_problems_are_reported_at_once(make_case: MakeCase) -> None:
    good, twice = make_case("good"), make_case("twice")
    empty = make_case("empty", label=np.zeros((6, 7, 8), dtype=np.uint8))
    smaller = make_case("smaller", label=np.ones((6, 7, 7), dtype=np.uint8))
    missing = make_case("missing")
    Path(missing["label"]).unlink()
    sentences = problems_of([good, twice, empty, smaller, twice, missing])
    for sentence, named in zip(sentences, ("twice", "empty", "smaller", "missing"), strict=True):
        assert f"{named}.nii.gz" in sentence
    assert not any("good.nii.gz" in sentence for sentence in sentences)


# The split


def cases(count: int) -> list[dict]:
    return [{"image": f"{number}.nii", "label": f"{number}_mask.nii"} for number in range(count)]


def names(part: list[dict]) -> list[str]:
    return sorted(case["image"] for case in part)


@pytest.mark.parametrize(
    ("count", "fraction", "validation"), [(20, 0.2, 4), (229, 0.2, 46), (10, 0.01, 1), (2, 0.5, 1), (3, 0.99, 2)]
)
def test_the_split_covers_all_cases_and_shares_none(count: int, fraction: float, validation: int) -> None:
    first, second = split_datalist(cases(count), fraction)
    assert len(second) == validation
    assert not set(names(first)) & set(names(second))
    assert names(first + second) == names(cases(count))


def test_the_split_depends_on_its_seed_alone() -> None:
    assert split_datalist(cases(20), 0.3, seed=1) == split_datalist(cases(20), 0.3, seed=1)
    assert names(split_datalist(cases(20), 0.3, seed=1)[1]) != names(split_datalist(cases(20), 0.3, seed=2)[1])


def test_without_a_share_all_cases_train() -> None:
    assert split_datalist(cases(3), 0) == (cases(3), [])


def test_a_single_subject_cannot_be_split() -> None:
    with pytest.raises(
        InputError, match=r"val_fraction 0\.2 needs two subjects or more, the datalist has one: set it to 0\."
    ):
        split_datalist(cases(1), 0.2)


@pytest.mark.parametrize("form", ["bids", "key"])
def test_the_sessions_of_a_subject_stay_together(form: str) -> None:
    sessions = [(subject, session) for subject in range(5) for session in (1, 2)]
    data = [
        {"image": f"sub-{subject:02d}/ses-{session}/anat/sub-{subject:02d}_T1w.nii.gz"}
        if form == "bids"
        else {"image": f"{subject}_{session}.nii.gz", "subject": subject}
        for subject, session in sessions
    ]
    training, validation = split_datalist(data, 0.4, seed=1)
    assert (len(training), len(validation)) == (6, 4)
    sides = [{data.index(item) // 2 for item in side} for side in (training, validation)]
    assert not sides[0] & sides[1]


def test_hidden_files_and_other_folders_do_not_count(tmp_path: Path) -> None:
    for name in ("scan.nii.gz", "._scan.nii.gz", "sub/scan.nii.gz", "out/scan_lesion.nii.gz", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_images(tmp_path, outside=tmp_path / "out")
    assert [Path(file).relative_to(tmp_path).as_posix() for file in found] == ["scan.nii.gz", "sub/scan.nii.gz"]


def test_two_images_whose_results_would_have_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("scan.nii.gz", "scan.mgz"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"scan exists with several suffixes"):
        find_images(tmp_path)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5])
def test_a_share_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match=f"val_fraction must be 0 to below 1, got {fraction}"):
        split_datalist(cases(10), fraction)
