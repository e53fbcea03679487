"""``run inference``: the mask lies on the lesion and on its source's grid however that is stored; bad input named."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from nibabel.eulerangles import euler2mat
from nibabel.orientations import axcodes2ornt, ornt_transform
from nibabel.processing import resample_from_to
from scipy import ndimage

from bundle.data.simulate import Head, simulate_case
from bundle.mni import atlas_grid
from bundle.weights import read_settings
from tests.workflows.conftest import CONFIGS, FEATURES, ROOT, Run

AXCODES = ["".join(codes) for axes in permutations(("LR", "PA", "IS")) for codes in product(*axes)]
"""All 48 orders and directions of the axes."""
CODES = [(2, 1), (1, 1), (0, 1), (2, 0), (4, 3), (1, 2)]
"""Sform and qform codes; the orientations take turns."""
GEOMETRY = ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d", "pixdim")
THIN = {"network_def::features": list(FEATURES)}


def segment(dataset_dir: Path, output_dir: Path, space: str = "native", **overrides: object) -> Path:
    """Runs configs/inference.json in this process, with the shipped weights unless told; the folder of the masks.

    Not registered unless told: a slab of a head is too little for that, and stands upright.
    """
    workflow = ConfigWorkflow(
        str(CONFIGS / "inference.json"),
        workflow_type="inference",
        dataset_dir=str(dataset_dir),
        output_dir=str(output_dir),
        space=space,
        amp=False,
        progress=False,
        **overrides,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return output_dir


def save(image: nib.spatialimages.SpatialImage, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def voxels(image: nib.spatialimages.SpatialImage) -> np.ndarray:
    return np.asanyarray(image.dataobj)


def dice(one: np.ndarray, two: np.ndarray) -> float:
    one, two = one > 0, two > 0
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


def assert_on_grid(mask: nib.Nifti1Image, source: nib.spatialimages.SpatialImage) -> None:
    """A mask of 0 and 1 in the shape and place of its source."""
    assert mask.shape == source.shape[:3]
    np.testing.assert_allclose(mask.affine, source.affine, atol=1e-6)
    assert mask.get_data_dtype() == np.uint8
    assert set(np.unique(voxels(mask))) == {0, 1}


@pytest.fixture(scope="module")
def slab(template_head: Head) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """28 mm of the MNI head with 30 mL of simulated lesion, int16 at 1 mm in RAS, and the true mask."""
    affine, _ = atlas_grid()
    case = simulate_case(template_head, np.random.default_rng(0), volume_ml=30.0)
    middle = round(ndimage.center_of_mass(case.label)[2])
    part = np.s_[:, :, middle - 14 : middle + 14]
    return (
        nib.Nifti1Image(np.round(case.image * 1000).astype(np.int16), affine).slicer[part],
        nib.Nifti1Image(case.label, affine).slicer[part],
    )


@pytest.fixture(scope="module")
def orientations(
    slab: tuple[nib.Nifti1Image, nib.Nifti1Image], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The slab in all 48 orders and directions of its axes, segmented in one run: images and masks."""
    folder = tmp_path_factory.mktemp("orientations")
    for number, codes in enumerate(AXCODES):
        turned = slab[0].as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes)))
        sform_code, qform_code = CODES[number % len(CODES)]
        turned.set_qform(turned.affine, qform_code)
        turned.set_sform(turned.affine, sform_code)
        save(turned, folder / "images" / f"{codes}.nii.gz")
    return folder / "images", segment(folder / "images", folder / "masks")


def reference(orientations: tuple[Path, Path]) -> nib.Nifti1Image:
    """The mask of the slab as it is."""
    return nib.load(orientations[1] / "RAS_lesion.nii.gz")


@pytest.mark.slow
def test_the_mask_lies_on_the_simulated_lesion(
    slab: tuple[nib.Nifti1Image, nib.Nifti1Image], orientations: tuple[Path, Path]
) -> None:
    assert dice(voxels(reference(orientations)), voxels(slab[1])) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("codes", AXCODES)
def test_every_orientation_gives_the_same_mask_on_its_own_grid(codes: str, orientations: tuple[Path, Path]) -> None:
    source = nib.load(orientations[0] / f"{codes}.nii.gz")
    mask = nib.load(orientations[1] / f"{codes}_lesion.nii.gz")
    assert "".join(nib.aff2axcodes(source.affine)) == codes
    assert_on_grid(mask, source)
    assert np.array_equal(mask.affine, source.affine)
    for field in GEOMETRY:
        assert mask.header[field].tobytes() == source.header[field].tobytes(), field
    back = nib.as_closest_canonical(mask)
    assert dice(voxels(back), voxels(reference(orientations))) > 0.99


@pytest.mark.slow
def test_the_orientations_had_every_pair_of_form_codes(orientations: tuple[Path, Path]) -> None:
    headers = [nib.load(file).header for file in orientations[1].iterdir()]
    assert {(int(header["sform_code"]), int(header["qform_code"])) for header in headers} == set(CODES)


def on_grid(image: nib.Nifti1Image, matrix: np.ndarray, shape: tuple[int, int, int]) -> nib.Nifti1Image:
    """The image resampled to a grid with these axes (mm per voxel) about its own centre."""
    centre = nib.affines.apply_affine(image.affine, (np.array(image.shape) - 1) / 2)
    affine = nib.affines.from_matvec(matrix, centre - matrix @ ((np.array(shape) - 1) / 2))
    return resample_from_to(image, (shape, affine), order=1)


def with_slope(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Stored int16 of which 0.01 each count, above 5."""
    scaled = nib.Nifti1Image(np.round((image.get_fdata() / 10 - 5) / 0.01).astype(np.int16), image.affine)
    scaled.header.set_slope_inter(0.01, 5)
    return scaled


def sheared(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Axes that are not at right angles, which only an sform can say."""
    skewed = on_grid(image, np.array([[1.0, 0.0, 0.25], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), (207, 233, 40))
    skewed.set_qform(None, 0)
    return skewed


COPIES: dict[str, tuple[Callable[[nib.Nifti1Image], nib.spatialimages.SpatialImage], float]] = {
    "anisotropic.nii.gz": (lambda image: on_grid(image, np.diag([0.9, 0.9, 3.0]), (220, 260, 14)), 0.87),
    "oblique.nii.gz": (lambda image: on_grid(image, euler2mat(0.2, 0.06, 0.08), (240, 260, 76)), 0.8),
    "sheared.nii.gz": (sheared, 0.9),
    "slope.nii.gz": (with_slope, 0.97),
    "uint8.nii": (lambda image: nib.Nifti1Image((image.get_fdata() / 10).astype(np.uint8), image.affine), 0.97),
    "float64.nii.gz": (lambda image: nib.Nifti1Image(image.get_fdata() / 7e3, image.affine), 0.99),
    "freesurfer.mgz": (lambda image: nib.MGHImage(image.get_fdata(dtype=np.float32), image.affine), 0.99),
    "one_of_4d.nii.gz": (lambda image: nib.Nifti1Image(voxels(image)[..., None], image.affine), 0.99),
    "session_1/brain.nii.gz": (lambda image: image, 0.99),
    "session_2/left/brain.nii.gz": (lambda image: image, 0.99),
}
"""How a copy is made, and the least Dice with the mask of the original on the copy's grid."""


@pytest.fixture(scope="module")
def copies(
    slab: tuple[nib.Nifti1Image, nib.Nifti1Image], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The copies in folders and subfolders, segmented in one run with probabilities: images and results."""
    folder = tmp_path_factory.mktemp("copies")
    for name, (make, _) in COPIES.items():
        save(make(slab[0]), folder / "images" / name)
    return folder / "images", segment(
        folder / "images", folder / "masks", save_probability=True, smallest_lesion_ml=0.0
    )


def result(folder: Path, name: str, postfix: str = "lesion") -> Path:
    """Where the result of an image is."""
    return folder / re.sub(r"\.(nii\.gz|nii|mgz)$", f"_{postfix}.nii.gz", name)


@pytest.mark.slow
def test_each_image_has_a_mask_and_a_probability_in_its_subfolder_and_there_is_nothing_else(
    copies: tuple[Path, Path],
) -> None:
    expected = {result(copies[1], name, postfix) for name in COPIES for postfix in ("lesion", "probability")}
    assert {file for file in copies[1].rglob("*") if file.is_file()} == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", COPIES)
def test_a_copy_gives_the_same_lesion_on_its_own_grid(
    name: str, copies: tuple[Path, Path], orientations: tuple[Path, Path]
) -> None:
    source, mask = nib.load(copies[0] / name), nib.load(result(copies[1], name))
    assert_on_grid(mask, source)
    expected = resample_from_to(reference(orientations), mask, order=0)
    assert dice(voxels(mask), voxels(expected)) > COPIES[name][1]


@pytest.mark.slow
@pytest.mark.parametrize("name", COPIES)
def test_the_mask_is_the_probability_from_the_threshold_on(name: str, copies: tuple[Path, Path]) -> None:
    probability, mask = nib.load(result(copies[1], name, "probability")), nib.load(result(copies[1], name))
    assert probability.get_data_dtype() == np.float32
    assert probability.shape == mask.shape
    assert np.array_equal(probability.affine, mask.affine)
    values = voxels(probability)
    assert 0 <= values.min() < 0.1
    assert 0.9 < values.max() <= 1
    threshold = read_settings(ROOT / "models" / "model.pt").threshold
    assert np.array_equal(values >= threshold, voxels(mask) == 1)


@pytest.mark.slow
def test_the_same_image_twice_gives_the_same_bytes(copies: tuple[Path, Path]) -> None:
    for postfix in ("lesion", "probability"):
        first, second = (
            voxels(nib.load(result(copies[1], name, postfix)))
            for name in ("session_1/brain.nii.gz", "session_2/left/brain.nii.gz")
        )
        assert first.tobytes() == second.tobytes()


@pytest.mark.slow
def test_a_mirrored_pass_changes_the_probability_and_not_the_grid(copies: tuple[Path, Path], tmp_path: Path) -> None:
    """One file as the data set; its results are in the output folder itself."""
    name = "session_1/brain.nii.gz"
    segment(copies[0] / name, tmp_path, save_probability=True, tta_flips=[[0]])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["brain_lesion.nii.gz", "brain_probability.nii.gz"]
    plain, mirrored = (
        nib.load(file) for file in (result(copies[1], name, "probability"), tmp_path / "brain_probability.nii.gz")
    )
    assert np.array_equal(mirrored.affine, plain.affine)
    assert np.abs(voxels(mirrored) - voxels(plain)).max() > 0.01
    # A second pass that was not flipped back would put half of the lesion on the other side.
    assert dice(voxels(nib.load(tmp_path / "brain_lesion.nii.gz")), voxels(nib.load(result(copies[1], name)))) > 0.8


@pytest.mark.slow
def test_a_head_that_lies_askew_far_from_the_origin_is_registered_and_gives_the_same_lesion(
    template_head: Head, tmp_path: Path
) -> None:
    affine, _ = atlas_grid()
    case = simulate_case(template_head, np.random.default_rng(0), volume_ml=30.0)
    scan, truth = (
        on_grid(nib.Nifti1Image(array.astype(np.float32), affine), 1.1 * euler2mat(0.2, 0.15, 0.3), (210, 240, 210))
        for array in (case.image, case.label)
    )
    askew = nib.Nifti1Image(voxels(scan), nib.affines.from_matvec(np.eye(3), (150, -80, 40)) @ scan.affine)
    save(askew, tmp_path / "askew.nii.gz")
    mask = nib.load(segment(tmp_path / "askew.nii.gz", tmp_path / "masks", space="mni") / "askew_lesion.nii.gz")
    assert_on_grid(mask, askew)
    assert dice(voxels(mask), voxels(truth) > 0.5) > 0.6


def test_a_real_freesurfer_volume_is_segmented_on_its_grid(shared_data: Path, tmp_path: Path) -> None:
    source = nib.load(shared_data / "t1_healthy" / "niivue_norm_fs.mgz")
    segment(shared_data / "t1_healthy" / "niivue_norm_fs.mgz", tmp_path, save_probability=True)
    mask = nib.load(tmp_path / "niivue_norm_fs_lesion.nii.gz")
    assert "".join(nib.aff2axcodes(mask.affine)) == "LIA"
    assert mask.shape == source.shape
    np.testing.assert_allclose(mask.affine, source.affine, atol=1e-5)
    assert mask.get_data_dtype() == np.uint8
    assert np.isin(voxels(mask), (0, 1)).all()
    # What the network is surest of is in the brain, which the file shows stripped of its skull.
    probability = voxels(nib.load(tmp_path / "niivue_norm_fs_probability.nii.gz"))
    head = ndimage.binary_dilation(voxels(source) > 0, iterations=4)
    assert head[np.unravel_index(probability.argmax(), probability.shape)]


def test_a_bare_run_with_relative_paths_from_another_folder(
    slab: tuple[nib.Nifti1Image, nib.Nifti1Image], small_weights: Path, tmp_path: Path, run: Run
) -> None:
    save(slab[0], tmp_path / "scans" / "one" / "brain.nii.gz")
    done = run(
        None, "inference.json", dataset_dir="scans", output_dir="masks", ckpt_path=small_weights, threshold=0, **THIN
    )
    assert done.returncode == 0, done.stderr[-2000:]
    written = [file for file in (tmp_path / "masks").rglob("*") if file.is_file()]
    assert written == [tmp_path / "masks" / "one" / "brain_lesion.nii.gz"]
    mask = nib.load(written[0])
    assert mask.shape == slab[0].shape
    assert np.array_equal(mask.affine, slab[0].affine)
    assert voxels(mask).all()  # every probability reaches a threshold of 0


def assert_one_sentence(done: subprocess.CompletedProcess, sentence: str) -> None:
    """Exit code 1, and this sentence alone in place of a traceback."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = re.findall(r"^Error: .*", done.stderr, re.MULTILINE)
    assert len(told) == 1, done.stderr[-2000:]
    assert re.search(sentence, told[0])


@pytest.mark.parametrize(
    ("dataset_dir", "sentence"),
    [
        ("scans", r"scans holds no image; expected: files ending in \.nii\.gz, \.nii, \.mgz, \.mgh\."),
        ("scans/none.nii.gz", r"none\.nii\.gz does not exist: a folder of T1w images"),
    ],
    ids=["only an empty subfolder", "a missing file"],
)
def test_without_an_image_it_ends_in_one_sentence(
    dataset_dir: str, sentence: str, small_weights: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "scans" / "empty").mkdir(parents=True)
    output = tmp_path / "masks"
    done = run(None, "inference.json", dataset_dir=dataset_dir, output_dir=output, ckpt_path=small_weights, **THIN)
    assert_one_sentence(done, sentence)
    assert not output.exists()


@pytest.mark.parametrize(
    ("weights", "overrides", "sentence"),
    [
        ("none.pt", THIN, r"none\.pt does not exist: weights"),
        ("model.pt", {}, r"model\.pt could not be loaded into this network: Error\(s\) in loading state_dict"),
        ("alone.pt", THIN, r"alone\.pt cannot be used: \S*alone\.json, which describes how its images were prepared"),
    ],
    ids=["missing", "of another network", "without settings"],
)
def test_weights_that_cannot_be_used_end_in_one_sentence(
    weights: str,
    overrides: dict,
    sentence: str,
    slab: tuple[nib.Nifti1Image, nib.Nifti1Image],
    small_weights: Path,
    tmp_path: Path,
    run: Run,
) -> None:
    for name in ("model.pt", "model.json"):
        shutil.copy(small_weights.with_name(name), tmp_path / name)
    shutil.copy(small_weights, tmp_path / "alone.pt")
    file, output = save(slab[0], tmp_path / "brain.nii.gz"), tmp_path / "masks"
    done = run(None, "inference.json", dataset_dir=file, output_dir=output, ckpt_path=weights, **overrides)
    assert_one_sentence(done, sentence)
    assert not output.exists()


def test_bad_volumes_are_named_one_by_one_and_the_good_one_is_segmented(
    slab: tuple[nib.Nifti1Image, nib.Nifti1Image], small_weights: Path, tmp_path: Path, run: Run
) -> None:
    scans, output = tmp_path / "scans", tmp_path / "masks"
    image, affine = slab[0], slab[0].affine
    save(image, scans / "m_good.nii.gz")
    shape = (30, 31, 32)
    save(nib.Nifti1Image(np.random.default_rng(0).random((*shape, 3)), affine), scans / "four.nii.gz")
    save(nib.Nifti1Image(np.full(shape, 7, dtype=np.int16), affine), scans / "constant.nii.gz")
    save(nib.Nifti1Image(np.where(np.arange(32) == 5, np.nan, np.ones(shape)), affine), scans / "nan.nii.gz")
    (scans / "corrupt.nii.gz").write_bytes((scans / "m_good.nii.gz").read_bytes()[:50_000])
    (scans / "text.nii.gz").write_text("patient,age\n")
    done = run(None, "inference.json", dataset_dir=scans, output_dir=output, ckpt_path=small_weights, **THIN)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    sentences = {
        "constant": r"is constant \(every voxel is 7\): it holds no image\.",
        "corrupt": r"is a damaged gzip file \(.+\): copy or export it again\.",
        "four": r"holds 3 volumes \(4D\): one 3D volume is expected\.",
        "nan": rf"has {30 * 31} NaN or infinite voxels: an image of finite numbers is expected\.",
        "text": r"is not compressed by gzip, although its name says so: copy or export it again\.",
    }
    told = done.stderr[done.stderr.index("Error: ") :].splitlines()
    assert told[0] == "Error: 5 of 6 volumes could not be segmented."
    for line, (name, sentence) in zip(told[1:], sentences.items(), strict=True):
        assert re.fullmatch(rf"\S*{name}\.nii\.gz {sentence}", line), line
    assert [file.name for file in output.rglob("*")] == ["m_good_lesion.nii.gz"]
    assert nib.load(output / "m_good_lesion.nii.gz").shape == image.shape
