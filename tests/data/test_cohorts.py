"""Cohorts as they are downloaded, in miniature and with the archives' odd names: cases, labels, splits, refusals."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.data.cohorts import Case, Cohort, prepare_label, read_cohort, split_cases
from bundle.errors import InputError

SHAPE = (6, 7, 5)
MNI = np.array([[1.0, 0, 0, -98], [0, 1, 0, -134], [0, 0, 1, -72], [0, 0, 0, 1]])  # ATLAS's, whole size or not
ATLAS_1 = "_t1w_deface_stx.nii.gz"
ATLAS_2 = "_space-MNI152NLin2009aSym_T1w.nii.gz"
ATLAS_2_MASK = "_space-MNI152NLin2009aSym_label-L_desc-T1lesion_mask.nii.gz"

Voxels = Sequence[tuple[int, int, int]]
Write = Callable[..., Path]


def mask_of(*voxels: tuple[int, int, int], value: float = 1, dtype: type = np.uint8) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype)
    for voxel in voxels:
        mask[voxel] = value
    return mask


def save(path: Path, array: np.ndarray, affine: np.ndarray = MNI) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes an image (float32), or a mask where voxels or an array are given, below ``tmp_path``."""

    def written(name: str, *voxels: tuple[int, int, int], array: np.ndarray | None = None, **options: object) -> Path:
        image = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
        chosen = mask_of(*voxels) if voxels else image
        return save(tmp_path / name, chosen if array is None else array, **options)  # type: ignore[arg-type]

    return written


@pytest.fixture
def case(write: Write) -> Case:
    """One mask of 0 and 1, two voxels large."""
    return Case("a", "a", write("a_T1w.nii.gz"), (write("a_mask.nii.gz", (1, 2, 3), (1, 2, 4)),))


def names(cases: Sequence[Case]) -> list[str]:
    return [case.name for case in cases]


def only(cohort: Cohort) -> Case:
    assert cohort.problems == []
    [case] = cohort.cases
    return case


def problem_of(layout: str, folder: Path) -> str:
    [problem] = read_cohort(layout, folder).problems
    return problem


# ATLAS R1.1


@pytest.fixture
def atlas_r1(tmp_path: Path, write: Write) -> Path:
    """Two sites, a subject with two sessions, a case with two masks, one unpacked by 7-Zip, and what lies about."""
    root = tmp_path / "ATLAS_R1.1"
    for name in ("ATLAS_Meta-Data_Release_1.1_standard_mni.csv", ".DS_Store", "Site1/.DS_Store"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("INDI Site ID,INDI Subject ID,Session")
    write("ATLAS_R1.1/MNI152_T1_1mm.nii.gz")
    for place in ("Site1/031768/t01", "Site1/031769/t01", "Site2/031844/t01", "Site2/031844/t02"):
        subject = place.split("/")[1]
        folder = f"/{subject}{ATLAS_1[:-3]}" if subject == "031769" else ""
        write(f"ATLAS_R1.1/{place}{folder}/{subject}{ATLAS_1}")
        write(f"ATLAS_R1.1/{place}/{subject}_LesionSmooth_stx.nii.gz", (1, 2, 3))
        write(f"ATLAS_R1.1/__MACOSX/{place}/._{subject}{ATLAS_1}")
        write(f"ATLAS_R1.1/{place}/._{subject}_LesionSmooth_stx.nii.gz", (1, 2, 3))
    write("ATLAS_R1.1/Site1/031769/t01/031769_LesionSmooth_1_stx.nii.gz", (4, 5, 2))
    return root


def test_atlas_r1_gives_every_session_with_its_site_and_subject(atlas_r1: Path) -> None:
    cohort = read_cohort("atlas_r1", atlas_r1)
    assert (cohort.problems, cohort.notes) == ([], [])
    assert [(case.name, case.site, case.subject, case.session) for case in cohort.cases] == [
        ("Site1_031768_t01", "Site1", "031768", "t01"),
        ("Site1_031769_t01", "Site1", "031769", "t01"),
        ("Site2_031844_t01", "Site2", "031844", "t01"),
        ("Site2_031844_t02", "Site2", "031844", "t02"),
    ]
    first = cohort.cases[0]
    folder = atlas_r1 / "Site1/031768/t01"
    assert (first.image, first.masks) == (folder / f"031768{ATLAS_1}", (folder / "031768_LesionSmooth_stx.nii.gz",))
    assert [file.name for file in cohort.cases[1].masks] == [
        "031769_LesionSmooth_1_stx.nii.gz",
        "031769_LesionSmooth_stx.nii.gz",
    ]


@pytest.mark.parametrize("source", ["..", "Site1", "Site1/031768", "Site1/031768/t01"])
def test_atlas_r1_is_read_from_a_folder_above_and_from_one_within(atlas_r1: Path, source: str) -> None:
    [first, *_] = read_cohort("atlas_r1", atlas_r1 / source).cases
    assert (first.name, first.site, first.subject) == ("Site1_031768_t01", "Site1", "031768")


def test_atlas_in_folders_of_other_years_is_read_too(tmp_path: Path, write: Write) -> None:
    write("c0003/c0003s0002t01/c0003s0002t01_t1w_stx.nii.gz")
    write("c0003/c0003s0002t01/c0003s0002t01_LesionSmooth_stx.nii.gz", (1, 1, 1))
    case = only(read_cohort("atlas_r1", tmp_path))
    assert (case.name, case.site, case.subject, case.session) == ("c0003_c0003s0002_t01", "c0003", "c0003s0002", "t01")


def test_results_of_the_bundle_beside_an_image_are_neither_images_nor_masks(atlas_r1: Path, write: Write) -> None:
    before = read_cohort("atlas_r1", atlas_r1)
    write("ATLAS_R1.1/Site1/031768/t01/031768_t1w_deface_stx_lesion.nii.gz", (0, 0, 0))
    assert read_cohort("atlas_r1", atlas_r1) == before


def test_atlas_r1_without_t1w_or_mask_or_with_two_t1w_is_reported(atlas_r1: Path, write: Write) -> None:
    folders = [atlas_r1 / place for place in ("Site1/031768/t01", "Site2/031844/t01", "Site2/031844/t02")]
    (folders[0] / f"031768{ATLAS_1}").unlink()
    (folders[1] / "031844_LesionSmooth_stx.nii.gz").unlink()
    write("ATLAS_R1.1/Site2/031844/t02/031844_t1w_stx.nii.gz")
    cohort = read_cohort("atlas_r1", atlas_r1)
    assert cohort.problems == [
        f"{folders[0]} has no T1w image: one is expected beside its lesion masks.",
        f"{folders[1]} has no lesion mask: one or more are expected beside 031844{ATLAS_1}.",
        f"{folders[2]} has 2 T1w images, 031844{ATLAS_1} and 031844_t1w_stx.nii.gz: one is expected.",
    ]
    assert names(cohort.cases) == ["Site1_031769_t01"]


def test_an_archive_unpacked_twice_is_reported(atlas_r1: Path, write: Write) -> None:
    write(f"ATLAS_R1.1/Only_Data/Site1/031768/t01/031768{ATLAS_1}")
    write("ATLAS_R1.1/Only_Data/Site1/031768/t01/031768_LesionSmooth_stx.nii.gz", (1, 2, 3))
    one, two = (atlas_r1 / f"{above}Site1/031768/t01/031768{ATLAS_1}" for above in ("Only_Data/", ""))
    assert problem_of("atlas_r1", atlas_r1) == (
        f"Case Site1_031768_t01 exists 2 times, as {one} and {two}: once is expected."
    )


def test_an_image_outside_the_folders_of_sessions_is_reported(atlas_r1: Path, write: Write) -> None:
    file = write(f"ATLAS_R1.1/Site3/031999/031999{ATLAS_1}")
    assert problem_of("atlas_r1", atlas_r1) == (
        f"{file} is not in the folder of a session: a path like Site1/031768/t01/{file.name} is expected."
    )


# ATLAS R2.0


@pytest.fixture
def atlas_r2(tmp_path: Path, write: Write) -> Path:
    """Two sites, and a hidden test case."""
    (tmp_path / "ATLAS_2").mkdir()
    (tmp_path / "ATLAS_2/20220425_ATLAS_2.0_MetaData.xlsx").write_bytes(b"PK")
    write("ATLAS_2/MNI152NLin2009aSym.nii.gz")
    for site, subject in (("R001", "r001s001"), ("R001", "r001s002"), ("R052", "r052s032")):
        stem = f"ATLAS_2/Training/{site}/sub-{subject}/ses-1/anat/sub-{subject}_ses-1"
        write(stem + ATLAS_2)
        write(stem + ATLAS_2_MASK, (1, 2, 3))
    write(f"ATLAS_2/Testing/R003/sub-r003s001/ses-1/anat/sub-r003s001_ses-1{ATLAS_2}")
    return tmp_path / "ATLAS_2"


def test_atlas_r2_gives_the_public_cases_and_reports_those_left_out(atlas_r2: Path) -> None:
    cohort = read_cohort("atlas_r2", atlas_r2)
    assert cohort.problems == []
    assert cohort.notes == ["left out: images in a Testing folder, whose masks are not public (1)"]
    assert [(case.name, case.site, case.subject, case.session) for case in cohort.cases] == [
        ("sub-r001s001_ses-1", "R001", "sub-r001s001", "1"),
        ("sub-r001s002_ses-1", "R001", "sub-r001s002", "1"),
        ("sub-r052s032_ses-1", "R052", "sub-r052s032", "1"),
    ]
    for case in cohort.cases:
        assert case.image.name == case.name + ATLAS_2
        assert [mask.name for mask in case.masks] == [case.name + ATLAS_2_MASK]


def test_atlas_r2_without_t1w_or_mask_or_with_two_masks_is_reported(atlas_r2: Path, write: Write) -> None:
    stems = [f"R001/sub-{one}/ses-1/anat/sub-{one}_ses-1" for one in ("r001s001", "r001s002")]
    stems.append("R052/sub-r052s032/ses-1/anat/sub-r052s032_ses-1")
    one, two, three = (str(atlas_r2 / "Training" / stem) for stem in stems)
    Path(one + ATLAS_2).unlink()
    Path(two + ATLAS_2_MASK).unlink()
    second = write(f"ATLAS_2/Training/{stems[2]}_space-MNI152NLin2009aSym_label-R_desc-T1lesion_mask.nii.gz", (1, 1, 1))
    cohort = read_cohort("atlas_r2", atlas_r2)
    assert cohort.problems == [
        f"{one}{ATLAS_2_MASK} has no T1w image: one of the same subject, session and space is expected, "
        "like sub-01_ses-1_T1w.nii.gz.",
        f"{three}{ATLAS_2} has 2 lesion masks, {three}{ATLAS_2_MASK} and {second}: one is expected.",
        f"{two}{ATLAS_2} has no lesion mask: {Path(two).name}{ATLAS_2_MASK} is expected beside it.",
    ]
    assert cohort.cases == []


# ISLES 2015


def siss(write: Write, number: int, first_id: int) -> None:
    """A case as the challenge gave it out, sequences in no order."""
    for offset, sequence in enumerate(("DWI", "Flair", "T1", "T2")):
        volume = f"VSD.Brain.XX.O.MR_{sequence}.{first_id + offset}"
        write(f"SISS2015_Training/{number}/{volume}/{volume}.nii")
    volume = f"VSD.Brain.XX.O.OT.{first_id + 4}"
    write(f"SISS2015_Training/{number}/{volume}/{volume}.nii", (1, 2, 3))


@pytest.fixture
def isles(tmp_path: Path, write: Write) -> Path:
    siss(write, 1, 70613)
    siss(write, 2, 70619)
    (tmp_path / "SISS2015_Training/license.txt").write_text("")
    return tmp_path


def test_isles_gives_t1_and_truth_of_each_case(isles: Path) -> None:
    cohort = read_cohort("isles_2015", isles)
    assert (cohort.problems, cohort.notes) == ([], [])
    assert [(case.name, case.subject, case.session, case.site) for case in cohort.cases] == [
        ("1", "1", None, None),
        ("2", "2", None, None),
    ]
    assert [case.image.name for case in cohort.cases] == [f"VSD.Brain.XX.O.MR_T1.{n}.nii" for n in (70615, 70621)]
    assert [[mask.name for mask in case.masks] for case in cohort.cases] == [
        [f"VSD.Brain.XX.O.OT.{n}.nii"] for n in (70617, 70623)
    ]


def test_isles_without_a_folder_for_each_volume_is_read_too(tmp_path: Path, write: Write) -> None:
    for sequence in ("MR_DWI", "MR_Flair", "MR_T1", "MR_T1c", "MR_T2"):
        write(f"01/VSD.Brain.01.O.{sequence}_reg.nii.gz")
    mask = write("01/VSD.Brain.01.O.OT_reg.nii.gz", (1, 2, 3))
    case = only(read_cohort("isles_2015", tmp_path))
    assert (case.name, case.image.name, case.masks) == ("01", "VSD.Brain.01.O.MR_T1_reg.nii.gz", (mask,))


def test_isles_s_test_cases_are_left_out_and_it_is_said(isles: Path, write: Write) -> None:
    write("SISS2015_Testing/1/VSD.Brain.XX.O.MR_T1.70700/VSD.Brain.XX.O.MR_T1.70700.nii")
    cohort = read_cohort("isles_2015", isles)
    assert (names(cohort.cases), cohort.problems) == (["1", "2"], [])
    assert cohort.notes == ["left out: images in a Testing folder, whose masks are not public (1)"]


def test_isles_without_t1_or_truth_or_with_two_t1_is_reported(isles: Path, write: Write) -> None:
    siss(write, 3, 70625)
    folder = isles / "SISS2015_Training"
    next(folder.glob("1/*T1*/*.nii")).unlink()
    next(folder.glob("2/*OT*/*.nii")).unlink()
    write("SISS2015_Training/3/VSD.Brain.XX.O.MR_T1.9/VSD.Brain.XX.O.MR_T1.9.nii")
    assert sorted(read_cohort("isles_2015", isles).problems) == [
        f"{folder}/1 has no T1w image: one is expected beside its lesion masks.",
        f"{folder}/2 has no lesion mask: one or more are expected beside VSD.Brain.XX.O.MR_T1.70621.nii.",
        f"{folder}/3 has 2 T1w images, VSD.Brain.XX.O.MR_T1.70627.nii and VSD.Brain.XX.O.MR_T1.9.nii: one is expected.",
    ]


# BIDS


@pytest.mark.parametrize(
    "mask",
    [
        "sub-01/anat/sub-01_lesion_roi.nii.gz",
        "sub-01/anat/sub-01_T1w_label-lesion_roi.nii.gz",
        "derivatives/manual_masks/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
        "derivatives/lesions/sub-01/anat/sub-01_space-T1w_desc-lesion_mask.nii.gz",
        "derivatives/lesions/sub-01_T1w_lesion.nii.gz",
    ],
)
def test_bids_masks_are_found_in_derivatives_and_beside_the_image(tmp_path: Path, write: Write, mask: str) -> None:
    image = write("sub-01/anat/sub-01_T1w.nii.gz")
    write("sub-01/anat/sub-01_T1w_defacemask.nii.gz", (0, 0, 0))
    write("derivatives/fmriprep/sub-01/anat/sub-01_desc-brain_mask.nii.gz", (0, 0, 0))
    write("derivatives/fmriprep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz")
    write(".git/annex/objects/sub-01_T1w.nii.gz")
    expected = Case("sub-01", "sub-01", image, (write(mask, (1, 2, 3)),))
    assert only(read_cohort("bids", tmp_path)) == expected


def test_every_bids_session_with_a_mask_is_a_case_and_the_others_are_named(tmp_path: Path, write: Write) -> None:
    for entities in ("sub-01_ses-a", "sub-01_ses-b", "sub-02_ses-a", "sub-03_ses-a"):
        subject, session = entities.split("_")
        write(f"{subject}/{session}/anat/{entities}_T1w.nii.gz")
        if subject != "sub-03":
            write(f"derivatives/lesions/{subject}/{session}/anat/{entities}_label-lesion_mask.nii.gz", (1, 2, 3))
    cohort = read_cohort("bids", tmp_path)
    assert [(case.name, case.subject, case.session) for case in cohort.cases] == [
        ("sub-01_ses-a", "sub-01", "a"),
        ("sub-01_ses-b", "sub-01", "b"),
        ("sub-02_ses-a", "sub-02", "a"),
    ]
    assert cohort.problems == []
    assert cohort.notes == ["left out: sessions without a lesion mask of a T1w image (1): sub-03_ses-a_T1w.nii.gz"]


@pytest.mark.parametrize(
    ("mask", "image"),
    [
        ("sub-01_label-lesion_mask.nii.gz", "sub-01_run-1_T1w.nii.gz"),
        ("sub-01_run-2_label-lesion_mask.nii.gz", "sub-01_run-2_T1w.nii.gz"),
        ("sub-01_acq-highres_run-2_label-lesion_mask.nii.gz", "sub-01_acq-highres_run-2_T1w.nii.gz"),
        ("sub-01_space-MNI152_label-lesion_mask.nii.gz", "sub-01_space-MNI152_desc-preproc_T1w.nii.gz"),
    ],
)
def test_of_several_t1w_the_mask_s_own_is_taken_and_else_the_first_run(
    tmp_path: Path, write: Write, mask: str, image: str
) -> None:
    for name in ("run-2", "run-1", "acq-highres_run-2", "space-MNI152_desc-preproc"):
        write(f"sub-01/anat/sub-01_{name}_T1w.nii.gz")
    write(f"derivatives/lesions/{mask}", (1, 2, 3))
    assert only(read_cohort("bids", tmp_path)).image.name == image


def test_of_pairs_in_several_spaces_the_native_one_is_taken(tmp_path: Path, write: Write) -> None:
    for space in ("", "space-MNI152NLin6Asym_"):
        write(f"sub-01/anat/sub-01_{space}T1w.nii.gz")
        write(f"sub-01/anat/sub-01_{space}label-lesion_mask.nii.gz", (1, 2, 3))
    case = only(read_cohort("bids", tmp_path))
    assert (case.image.name, [mask.name for mask in case.masks]) == (
        "sub-01_T1w.nii.gz",
        ["sub-01_label-lesion_mask.nii.gz"],
    )


def test_a_mask_drawn_on_another_sequence_is_none_of_the_t1w(tmp_path: Path, write: Write) -> None:
    write("sub-01/anat/sub-01_T1w.nii.gz")
    write("derivatives/lesion_masks/sub-01_acq-spc3p2_run-4_T2w_desc-lesion_mask.nii.gz", (1, 2, 3))
    with pytest.raises(InputError, match=f"^{tmp_path} holds no case of BIDS"):
        read_cohort("bids", tmp_path)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (["sub-01_space-TRACE_desc-lesion_mask"], r"desc-lesion_mask\.nii\.gz has no T1w image: one of the same"),
        (
            ["sub-01_ses-2_label-lesion_mask"],
            r"label-lesion_mask\.nii\.gz has no T1w image: one of the same subject, ses",
        ),
        (
            ["sub-01_desc-raterA_label-lesion_mask", "sub-01_desc-raterB_label-lesion_mask"],
            r"sub-01_T1w\.nii\.gz has 2 lesion masks, .*raterA\S+ and .*raterB\S+: one is expected\.$",
        ),
    ],
)
def test_bids_masks_without_t1w_and_two_masks_are_reported(
    tmp_path: Path, write: Write, files: list[str], problem: str
) -> None:
    write("sub-01/anat/sub-01_T1w.nii.gz")
    for file in files:
        write(f"derivatives/lesions/{file}.nii.gz", (1, 2, 3))
    assert re.search(problem, problem_of("bids", tmp_path))


# images/ and labels/


def test_names_pair_images_with_labels_and_give_the_subjects(tmp_path: Path, write: Write) -> None:
    for name in ("sub-01_ses-1", "sub-01_ses-2", "anna"):
        write(f"images/{name}.nii.gz")
        write(f"labels/{name}_lesion.nii.gz", (1, 2, 3))
    cohort = read_cohort("plain", tmp_path)
    assert [(case.name, case.subject) for case in cohort.cases] == [
        ("anna", "anna"),
        ("sub-01_ses-1", "sub-01"),
        ("sub-01_ses-2", "sub-01"),
    ]
    assert cohort.cases[0].masks == (tmp_path / "labels/anna_lesion.nii.gz",)


def test_images_without_label_are_reported(tmp_path: Path, write: Write) -> None:
    write("images/a.nii.gz")
    write("labels/b.nii.gz", (1, 2, 3))
    with pytest.raises(InputError, match=r"has 2 images or labels without a partner of the same name: a, b\.$"):
        read_cohort("plain", tmp_path)


def test_two_images_of_a_name_are_reported(tmp_path: Path, write: Write) -> None:
    one, two = write("images/one/a.nii.gz"), write("images/two/a.nii.gz")
    write("labels/a.nii.gz", (1, 2, 3))
    assert problem_of("plain", tmp_path) == f"Case a exists 2 times, as {one} and {two}: once is expected."


# Wrong folders, all layouts


@pytest.mark.parametrize(
    ("layout", "example"),
    [
        ("atlas_r1", "ATLAS R1.1, such as Site1/031768/t01/031768_t1w_deface_stx.nii.gz with 031768_Lesion"),
        ("atlas_r2", "ATLAS R2.0, such as Training/R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI"),
        ("isles_2015", "ISLES 2015 SISS, such as 1/VSD.Brain.XX.O.MR_T1.70615/VSD.Brain.XX.O.MR_T1.70615.nii"),
        ("bids", "BIDS, such as sub-01/anat/sub-01_T1w.nii.gz with a mask like sub-01_label-lesion_mask.nii"),
        ("plain", "images/ and labels/, such as images/case_1.nii.gz with labels/case_1.nii.gz"),
    ],
)
def test_a_wrong_folder_is_refused_with_an_example_of_the_right_one(
    tmp_path: Path, write: Write, layout: str, example: str
) -> None:
    (tmp_path / "empty").mkdir()
    write("scans/brain.nii.gz")
    for name in ("empty", "scans"):
        with pytest.raises(InputError, match="^" + re.escape(f"{tmp_path / name} holds no case of {example}")):
            read_cohort(layout, tmp_path / name)
    with pytest.raises(InputError, match=r"is not a folder: .* is expected there, unpacked"):
        read_cohort(layout, tmp_path / "none")


def test_an_unknown_layout_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no layout 'atlas': choose from atlas_r1, atlas_r2, isles_2015, bids, plain"):
        read_cohort("atlas", tmp_path)


# Labels


def test_masks_are_united_into_one_of_0_and_1_on_the_image_s_grid(tmp_path: Path, write: Write) -> None:
    # What the masks of ATLAS R1.1 hold: 0.9999999997671694, or 255 and at some rims 252 to 254; they may overlap.
    first = mask_of((1, 2, 3), (1, 2, 4), value=0.9999999997671694, dtype=np.float64)
    second = mask_of((1, 2, 4), (5, 6, 0), value=254.9999999406282, dtype=np.float64)
    second[0, 0, 0] = 252.99999994109385
    masks = (write("a_1.nii.gz", array=first), write("a_2.nii.gz", array=second))
    label, volume_ml = prepare_label(Case("a", "a", write("a.nii.gz"), masks), tmp_path / "labels")
    assert label == tmp_path / "labels/a.nii.gz"
    stored = nib.load(label)
    assert stored.get_data_dtype() == np.uint8
    assert np.array_equal(stored.affine, MNI)
    assert np.array_equal(np.asarray(stored.dataobj), mask_of((0, 0, 0), (1, 2, 3), (1, 2, 4), (5, 6, 0)))
    assert volume_ml == pytest.approx(0.004)


def test_a_single_mask_of_0_and_1_is_the_label_as_it_lies(tmp_path: Path, case: Case) -> None:
    assert prepare_label(case, tmp_path / "labels") == (case.masks[0], pytest.approx(0.002))
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize("value", [255, 254.9999, 0.9995, 2])
def test_a_single_mask_of_other_values_becomes_one_of_0_and_1(tmp_path: Path, write: Write, value: float) -> None:
    mask = mask_of((1, 2, 3), value=value, dtype=np.float32)
    case = Case("a", "a", write("a.nii.gz"), (write("m.nii.gz", array=mask),))
    label, _ = prepare_label(case, tmp_path / "labels")
    assert np.array_equal(np.asarray(nib.load(label).dataobj), mask_of((1, 2, 3)))


@pytest.mark.parametrize("value", [0.25, 0.75, -1, np.nan, np.inf, 254.5])
def test_a_mask_of_anything_between_is_refused_as_in_training(tmp_path: Path, write: Write, value: float) -> None:
    mask = mask_of((1, 2, 3), dtype=np.float32)
    mask[4, 4, 4] = value
    case = Case("a", "a", write("a.nii.gz"), (write("m.nii.gz", array=mask),))
    with pytest.raises(InputError, match=r"m\.nii\.gz has 1 voxels such as .*: a mask of 0 and 1 is expected"):
        prepare_label(case, tmp_path / "labels")
    assert not (tmp_path / "labels").exists()


def test_volumes_are_in_ml_of_the_image_s_voxels(tmp_path: Path, write: Write) -> None:
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, 6], [0, 0, 4.0, 7], [0, 0, 0, 1]])  # 12 mm3, axes swapped
    case = Case("a", "a", write("a.nii", affine=affine), (write("m.nii", (1, 2, 3), (1, 2, 4), affine=affine),))
    assert prepare_label(case, tmp_path)[1] == pytest.approx(0.024)


def test_a_trailing_axis_of_length_one_is_accepted(tmp_path: Path, write: Write) -> None:
    mask = write("m.nii.gz", array=mask_of((1, 2, 3))[..., None])
    label, volume_ml = prepare_label(Case("a", "a", write("a.nii.gz"), (mask,)), tmp_path)
    assert (label, volume_ml) == (mask, pytest.approx(0.001))


def refusal_of(case: Case, folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        prepare_label(case, folder)
    assert not any(folder.glob("*"))
    return str(caught.value)


AWAY = "is not aligned with its image a.nii.gz, from which it is up to 1 mm away: resample it to the grid of the image."


def test_masks_of_another_shape_or_place_or_without_voxels_are_refused(tmp_path: Path, write: Write) -> None:
    image, good, moved = write("a.nii.gz"), write("good.nii.gz", (1, 2, 3)), MNI.copy()
    moved[0, 3] += 1
    bad = {
        "is (6, 7, 4) and its image a.nii.gz (6, 7, 5): they must have the same shape.": write(
            "small.nii.gz", array=np.ones((6, 7, 4), np.uint8)
        ),
        AWAY: write("moved.nii.gz", (1, 2, 3), affine=moved),
        "holds 2 volumes (4D): one 3D volume is expected.": write("four.nii.gz", array=np.ones((*SHAPE, 2), np.uint8)),
    }
    for sentence, mask in bad.items():
        assert refusal_of(Case("a", "a", image, (good, mask)), tmp_path / "labels") == f"{mask} {sentence}"
    empty = write("empty.nii.gz", array=mask_of())
    assert refusal_of(Case("a", "a", image, (empty,)), tmp_path / "labels") == (
        f"{empty} has no lesion voxel: some above 0 are expected."
    )
    assert prepare_label(Case("a", "a", image, (empty, good)), tmp_path)[1] == pytest.approx(0.001)


@pytest.mark.parametrize("which", ["image", "mask"])
@pytest.mark.parametrize(
    ("suffix", "sentence"),
    [(".nii.gz", "is a damaged gzip file (Compressed file ended before"), (".nii", "could not be processed: ")],
)
def test_files_cut_short_are_refused(tmp_path: Path, write: Write, which: str, suffix: str, sentence: str) -> None:
    noise = np.random.default_rng(0).random(SHAPE)
    files = {"image": write(f"a{suffix}"), "mask": write(f"m{suffix}", array=noise)}
    file = files[which]
    file.write_bytes(file.read_bytes()[:-60])
    assert refusal_of(Case("a", "a", files["image"], (files["mask"],)), tmp_path / "labels").startswith(
        f"{file} {sentence}"
    )


def test_a_file_that_is_not_an_image_is_refused(tmp_path: Path, case: Case) -> None:
    case.image.with_name("notes.nii").write_text("not an image")
    bad = Case("a", "a", case.image.with_name("notes.nii"), case.masks)
    assert refusal_of(bad, tmp_path / "labels") == (
        f"{bad.image} is not an image that can be read: NIfTI (.nii, .nii.gz) or MGH (.mgz) is expected."
    )


def test_each_file_is_decompressed_once_to_check_it_and_no_image_is_kept(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked, read = [], []
    proxy = nib.arrayproxy.ArrayProxy
    whole = proxy.__array__
    monkeypatch.setattr("bundle.headers.check_gzip", checked.append)
    monkeypatch.setattr(
        proxy, "__array__", lambda self, *given: read.append(Path(self.file_like)) or whole(self, *given)
    )
    prepare_label(case, tmp_path / "labels")
    assert checked == [case.image, case.masks[0]]
    assert read == [case.masks[0]]


# Splits


def people(sizes: Sequence[int], sites: int = 1) -> list[Case]:
    """Subject 0 has ``sizes[0]`` sessions, and so on; they take turns with the sites."""
    return [
        Case(f"{subject:03d}_{session}", f"{subject:03d}", Path("a"), (), str(session), f"Site{subject % sites}")
        for subject, sessions in enumerate(sizes)
        for session in range(sessions)
    ]


R1_SIZES = [2] * 9 + [1] * 211
"""Sessions of the 220 subjects of ATLAS R1.1, in 229 images."""


def assert_is_a_partition(cases: Sequence[Case], training: Sequence[Case], test: Sequence[Case]) -> None:
    assert sorted(names(training) + names(test)) == sorted(names(cases))
    assert not {case.subject for case in training} & {case.subject for case in test}


@pytest.mark.parametrize("seed", range(20))
def test_atlas_r1_is_split_into_183_and_46_whatever_the_seed(seed: int) -> None:
    cases = people(R1_SIZES)
    [(training, test)] = split_cases(cases, "holdout", seed).values()
    assert (len(training), len(test)) == (183, 46)
    assert_is_a_partition(cases, training, test)


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ([1] * 655, 131),  # ATLAS R2.0
        ([1, 1], 1),
        ([3, 2, 2, 2, 2, 2, 2, 2, 3], 4),  # two of 2, never a 3 and then nothing that fits
        ([2] * 13, 4),  # 5 of 26 would be 8:2 and cannot be
    ],
)
def test_the_test_has_a_fifth_of_the_cases_or_the_nearest_number_below(sizes: list[int], wanted: int) -> None:
    cases = people(sizes)
    for seed in range(10):
        [(training, test)] = split_cases(cases, "holdout", seed).values()
        assert len(test) == wanted
        assert_is_a_partition(cases, training, test)


def test_subjects_with_two_sessions_are_in_the_test_as_often_as_the_others() -> None:
    tests = [split_cases(people([2] * 20 + [1] * 20), "holdout", seed)["datalist"][1] for seed in range(300)]
    twice = np.mean([len({case.subject for case in test if case.subject < "020"}) for test in tests])
    once = np.mean([len({case.subject for case in test if case.subject >= "020"}) for test in tests])
    assert twice == pytest.approx(4, abs=0.5)
    assert once == pytest.approx(4, abs=0.5)


def test_28_cases_give_folds_of_6_6_6_5_5_in_which_each_is_tested_once() -> None:
    cases = people([1] * 28)
    parts = split_cases(cases, "folds", 0)
    assert list(parts) == ["fold_1", "fold_2", "fold_3", "fold_4", "fold_5"]
    assert [len(test) for _, test in parts.values()] == [6, 6, 6, 5, 5]
    assert sorted(name for _, test in parts.values() for name in names(test)) == names(cases)
    for training, test in parts.values():
        assert_is_a_partition(cases, training, test)


@pytest.mark.parametrize(
    ("sizes", "folds", "expected"), [(R1_SIZES, 5, [46, 46, 46, 46, 45]), ([5, 1, 1, 1, 1, 1], 2, [5, 5])]
)
def test_folds_are_equal_in_cases_with_sessions_together(sizes: list[int], folds: int, expected: list[int]) -> None:
    cases = people(sizes)
    parts = split_cases(cases, "folds", 3, folds)
    assert [len(test) for _, test in parts.values()] == expected
    for training, test in parts.values():
        assert_is_a_partition(cases, training, test)


def test_each_site_is_left_out_once() -> None:
    cases = people([2, 1, 1, 2, 1, 1, 1], sites=3)
    parts = split_cases(cases, "sites")
    assert list(parts) == ["without_Site0", "without_Site1", "without_Site2"]
    for name, (training, test) in parts.items():
        assert_is_a_partition(cases, training, test)
        assert {f"without_{case.site}" for case in test} == {name}


@pytest.mark.parametrize("split", ["holdout", "folds"])
def test_a_split_depends_on_seed_and_names_alone(split: str) -> None:
    cases = people(R1_SIZES)
    one = split_cases(cases, split, 1)
    assert split_cases(cases, split, 1) == one
    shuffled = split_cases(cases[::-1], split, 1)
    assert all(names(shuffled[name][1][::-1]) == names(test) for name, (_, test) in one.items())
    assert split_cases(cases, split, 2) != one


def test_the_split_of_seed_0_never_changes() -> None:
    [(_, test)] = split_cases(people([1] * 20), "holdout", 0).values()
    assert names(test) == ["001_0", "008_0", "018_0", "019_0"]  # numpy's RandomState(0).permutation(20)[:4]


@pytest.mark.parametrize(
    ("cases", "arguments", "sentence"),
    [
        (people([1] * 9), ("random",), "no split 'random': choose from holdout, folds, sites"),
        (people([1]), ("holdout",), "1 cases of 1 subjects cannot be split 8:2 without one subject on both sides"),
        (people([9, 9]), ("holdout",), "18 cases of 2 subjects cannot be split 8:2"),
        (people([1] * 9), ("holdout", -1), "seed must be an integer of 0 or more, got -1"),
        (people([1] * 9), ("folds", 0.5), "seed must be an integer of 0 or more, got 0.5"),
        (people([1] * 4), ("folds", 0, 5), "folds must be 2 to the number of subjects, 4, got 5"),
        (people([1] * 4), ("folds", 0, 1), "folds must be 2 to the number of subjects, 4, got 1"),
        (people([1] * 4), ("sites",), "All cases are of site Site0: two sites or more are needed"),
        ([Case("a", "a", Path("a"), ())], ("sites",), "The site of a is unknown: only ATLAS can be split by site"),
        (
            [Case(site, "anna", Path("a"), (), site=site) for site in ("R001", "R002")],
            ("sites",),
            "Subject anna is at several sites: one site for each subject is expected",
        ),
    ],
)
def test_splits_that_cannot_be_are_refused(cases: list[Case], arguments: tuple, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        split_cases(cases, *arguments)
