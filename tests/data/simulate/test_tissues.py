"""Heads: their tissues, the contrast drawn for a label map, what is refused, what is kept on disk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from bundle.data.simulate import Head, Tissue, load_head, load_heads, tissues
from bundle.data.simulate.fields import smooth_noise
from bundle.data.simulate.white_matter import white_matter_levels, white_matter_mode
from bundle.errors import InputError
from bundle.mni import atlas_brain
from tests.conftest import WriteNifti

ATLAS_SHAPE = (197, 233, 189)

CODES = {2: "white", 41: "white", 3: "grey", 42: "grey", 4: "fluid", 43: "fluid", 17: "grey", 53: "grey", 24: "fluid"}
"""FreeSurfer's, left and right: white matter, cortex, lateral ventricle, hippocampus; fluid around the brain."""


def volumes_ml(head: Head) -> dict[str, float]:
    return {tissue.name: float((head.tissue == tissue).sum()) / 1000 for tissue in Tissue}


def dice(one: np.ndarray, two: np.ndarray) -> float:
    return float(2 * (one & two).sum() / (one.sum() + two.sum()))


def label_blocks(*codes: int) -> Head:
    """A label map of one slab of 10 x 40 x 40 voxels per code."""
    labels = np.repeat(np.array(codes, dtype=np.int16), 10)[:, None, None] * np.ones((1, 40, 40), dtype=np.int16)
    return Head("blocks", np.zeros(labels.shape, dtype=np.uint8), labels=labels)


def slab_medians(head: Head, image: np.ndarray) -> dict[int, float]:
    """Of each code's slab without the voxels that are mixed with the next."""
    assert head.labels is not None
    codes = head.labels[::10, 0, 0].tolist()
    return {code: float(np.median(image[10 * n + 3 : 10 * n + 7, 3:-3, 3:-3])) for n, code in enumerate(codes)}


# Real heads


def test_the_template_is_stripped_and_has_the_tissues_of_a_brain(template_head: Head) -> None:
    found = volumes_ml(template_head)
    assert found["OUTSIDE_BRAIN"] < 20
    assert 1700 < sum(found[kind] for kind in ("CSF", "GREY", "WHITE", "VENTRICLE")) < 2000  # MNI152 is large
    assert 700 < found["GREY"] < 1100
    assert 600 < found["WHITE"] < 1000
    assert 10 < found["VENTRICLE"] < 40
    assert dice(template_head.tissue >= Tissue.CSF, atlas_brain()) > 0.97


def test_a_whole_head_keeps_its_skull_and_has_the_brain_of_the_template(whole_head: Head) -> None:
    found = volumes_ml(whole_head)
    assert found["OUTSIDE_BRAIN"] > 1000
    assert 600 < found["GREY"] < 1100
    assert 600 < found["WHITE"] < 1000
    assert 4 < found["VENTRICLE"] < 40
    assert dice(whole_head.tissue >= Tissue.CSF, atlas_brain()) > 0.93


def test_an_image_is_1_at_the_white_matter_and_0_outside_the_head(template_head: Head, whole_head: Head) -> None:
    for head in (template_head, whole_head):
        assert head.image is not None
        assert (head.image.shape, head.image.dtype) == (ATLAS_SHAPE, np.float32)
        assert np.median(head.image[head.tissue == Tissue.WHITE]) == pytest.approx(1, abs=0.06)
        assert 0.5 < np.median(head.image[head.tissue == Tissue.GREY]) < 0.85
        assert np.median(head.image[head.tissue == Tissue.VENTRICLE]) < 0.45
        assert not head.image[head.tissue == Tissue.AIR].any()
        assert np.array_equal(head.t1w(np.random.default_rng(0)), head.image)
        assert head.t1w(np.random.default_rng(0)) is not head.image


def test_ventricles_are_deep_in_the_brain(template_head: Head, whole_head: Head) -> None:
    depth = ndimage.distance_transform_edt(atlas_brain())
    for head in (template_head, whole_head):
        assert np.percentile(depth[head.tissue == Tissue.VENTRICLE], 5) > 10


def test_a_label_map_is_registered_and_keeps_its_sides_and_volumes(label_head: Head) -> None:
    assert label_head.labels is not None
    assert label_head.image is None
    assert label_head.labels.shape == label_head.tissue.shape == ATLAS_SHAPE
    found = volumes_ml(label_head)
    assert 550 < found["GREY"] < 1100
    assert 450 < found["WHITE"] < 900
    assert 10 < found["VENTRICLE"] < 120
    assert found["OUTSIDE_BRAIN"] > 1000
    solid = (label_head.tissue == Tissue.GREY) | (label_head.tissue == Tissue.WHITE)
    assert dice(ndimage.binary_closing(solid, iterations=3), atlas_brain()) > 0.85
    # Voxel 98 is the middle, and the first axis runs to the right.
    for left, right in ((2, 41), (3, 42), (17, 53)):
        sides = [np.flatnonzero(np.any(label_head.labels == code, axis=(1, 2))).mean() for code in (left, right)]
        assert sides[0] < 85 < 111 < sides[1]


def test_the_contrast_drawn_for_a_real_label_map_is_that_of_t1w(label_head: Head) -> None:
    image = label_head.t1w(np.random.default_rng(0))
    medians = [np.median(image[label_head.tissue == kind]) for kind in (Tissue.WHITE, Tissue.GREY, Tissue.VENTRICLE)]
    assert medians[0] == pytest.approx(1, abs=0.06)
    assert 0.5 < medians[1] < 0.75
    assert medians[2] < 0.4
    assert np.array_equal(image > 0, label_head.tissue > Tissue.AIR) or ((image > 0) <= (label_head.tissue > 0)).all()


# Label maps


@pytest.mark.parametrize("seed", range(4))
def test_white_is_brighter_than_grey_and_grey_than_fluid_and_left_is_as_right(seed: int) -> None:
    head = label_blocks(*CODES)
    found = slab_medians(head, head.t1w(np.random.default_rng(seed)))
    by_kind = {kind: [found[code] for code in CODES if CODES[code] == kind] for kind in ("white", "grey", "fluid")}
    assert min(by_kind["white"]) > max(by_kind["grey"]) + 0.15
    assert min(by_kind["grey"]) > max(by_kind["fluid"]) + 0.15
    for left, right in ((2, 41), (3, 42), (4, 43), (17, 53)):
        assert found[left] == pytest.approx(found[right], rel=0.02)


def test_contrasts_differ_from_seed_to_seed_and_are_the_same_for_the_same() -> None:
    head = label_blocks(*CODES)
    first, again, other = (head.t1w(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first.tobytes() == again.tobytes()
    assert abs(slab_medians(head, first)[3] - slab_medians(head, other)[3]) > 0.005


def test_without_fluid_around_the_brain_the_ventricles_are_not_black() -> None:
    """FreeSurfer's own maps may hold no code 24."""
    head = label_blocks(2, 41, 3, 42, 4, 43)
    found = slab_medians(head, head.t1w(np.random.default_rng(0)))
    assert 0.14 < found[4] < 0.31
    assert found[4] == pytest.approx(found[43], rel=0.02)


def test_codes_that_have_no_contrast_are_named(write_nifti: WriteNifti) -> None:
    labels = np.zeros((20, 20, 20), dtype=np.int16)
    labels[0, 0, :8] = (2, 3, 4, 41, 42, 43, 999, 1035)
    file = write_nifti("parcels.nii.gz", labels)
    with pytest.raises(InputError, match=rf"^{file} holds tissue codes without a T1w contrast: \[999\]\.$"):
        load_head(str(file))


# What cannot be a head


def test_a_head_that_cannot_be_read_is_named(write_nifti: WriteNifti, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((20, 20, 20, 3)).astype(np.float32)
    damaged = write_nifti("damaged.nii.gz", noise[..., 0])
    damaged.write_bytes(damaged.read_bytes()[:-500])
    refused = {
        tmp_path / "missing.nii.gz": r"does not exist\.",
        damaged: r"is a damaged gzip file \(.+\): copy or export it again\.",
        write_nifti("four.nii.gz", noise): r"holds 3 volumes \(4D\): one 3D volume is expected\.",
        write_nifti("constant.nii.gz", np.full((9, 9, 9), 7, np.int16)): r"is constant \(every voxel is 7\): .+",
    }
    for file, sentence in refused.items():
        with pytest.raises(InputError, match=f"^{file} {sentence}$"):
            load_head(str(file))


def test_without_a_head_nothing_can_be_simulated() -> None:
    with pytest.raises(InputError, match=r"^There is no head to simulate lesions in\.$"):
        load_heads([])


# The white matter's mode


def test_the_white_matter_mode_is_the_value_of_white_matter() -> None:
    values = np.repeat([0.3, 0.7, 1.0], [2000, 4000, 6000]) + np.random.default_rng(0).normal(0, 0.03, 12000)
    assert white_matter_mode(values, np.ones(12000, dtype=bool)) == pytest.approx(1.0, abs=0.03)


def test_white_matter_is_found_where_a_bias_field_has_levelled_its_peak(template_head: Head) -> None:
    """White matter of very different brightness beside grey matter, which is the highest peak of the histogram."""
    assert template_head.image is not None
    tissue = template_head.tissue
    brain, white = tissue >= Tissue.CSF, tissue == Tissue.WHITE
    assert white_matter_levels(template_head.image, brain) == (white_matter_mode(template_head.image, brain), 1.0)
    field = np.exp(0.2 * smooth_noise(np.random.default_rng(0), tissue.shape, 70.0))
    image = np.where(white, field, 0.65 * brain).astype(np.float32)
    assert white_matter_mode(image, brain) < 0.8
    level, local = white_matter_levels(image, brain)
    assert level == pytest.approx(np.median(image[white]), rel=0.05)
    assert (image / level / local)[white].std() < 0.75 * (image / level)[white].std()


# Heads that are kept


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, block_head: Head) -> list[str]:
    """The files that were loaded, not taken from the cache; in threads of this process."""
    files: list[str] = []

    def load(file: str) -> Head:
        files.append(Path(file).name)
        if "labels" in file:
            return Head(Path(file).name, block_head.tissue, labels=block_head.tissue.astype(np.int16))
        return Head(Path(file).name, block_head.tissue, image=block_head.image)

    monkeypatch.setattr(tissues, "load_head", load)
    monkeypatch.setattr(tissues, "ProcessPoolExecutor", lambda workers, *_: ThreadPoolExecutor(workers))
    return files


def test_heads_are_loaded_once_and_are_equal_from_the_cache(
    loaded: list[str], tmp_path: Path, block_head: Head
) -> None:
    files = [str(tmp_path / name) for name in ("a.nii.gz", "labels.nii.gz")]
    for file in files:
        Path(file).touch()
    for _ in ("loaded", "from the cache"):
        image_head, label_map = load_heads(files, tmp_path / "heads", progress=False)
        assert (image_head.name, label_map.name) == ("a.nii.gz", "labels.nii.gz")
        assert image_head.image is not None
        assert block_head.image is not None
        assert image_head.image.tobytes() == block_head.image.tobytes()
        assert image_head.labels is label_map.image is None
        assert label_map.labels is not None
        assert (label_map.labels == block_head.tissue).all()
        assert all(head.tissue.tobytes() == block_head.tissue.tobytes() for head in (image_head, label_map))
    assert sorted(loaded) == ["a.nii.gz", "labels.nii.gz"]
    assert all(file.suffix == ".npz" for file in (tmp_path / "heads").iterdir())


def test_a_changed_file_and_one_of_the_same_name_elsewhere_are_loaded_anew(loaded: list[str], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    here, there = tmp_path / "a.nii.gz", tmp_path / "other" / "a.nii.gz"
    for file in (here, there):
        file.touch()
    load_heads([str(here)], tmp_path / "heads", progress=False)
    load_heads([str(there)], tmp_path / "heads", progress=False)
    assert len(loaded) == 2
    here.write_text("changed")
    load_heads([str(here), str(there)], tmp_path / "heads", progress=False)
    assert len(loaded) == 3


def test_without_a_cache_heads_are_loaded_each_time(loaded: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        load_heads([str(tmp_path / "a.nii.gz")], progress=False)
    assert loaded == ["a.nii.gz", "a.nii.gz"]


def test_a_missing_head_is_named_with_a_cache_too(loaded: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^{tmp_path / 'none.nii.gz'} does not exist\.$"):
        load_heads([str(tmp_path / "none.nii.gz")], tmp_path / "heads", progress=False)
    assert not loaded


# FreeSurfer's maps


def freesurfer(kind: str) -> np.ndarray:
    """Blocks of a map's codes, with codes of a healthy aseg (77, 80, 251 and so on) among them."""
    cortex, white = {
        "aseg": ((3, 42), (2, 41)),
        "aparc+aseg": ((1000, 1001, 1035, 2000, 2035), (2, 41)),
        "wmparc": ((1001, 2035), (3001, 3035, 4035, 5001, 5002)),
        "aparc.a2009s+aseg": ((11101, 11175, 12101, 12175), (2, 41)),
        "wmparc.a2009s": ((11101, 12175), (13101, 14175)),
    }[kind]
    codes = (*cortex, *white, 4, 43, 7, 46, 8, 47, 24, 31, 63, 77, 80, 85, 251, 255)
    return np.repeat(np.array(codes, dtype=np.int32), 5)[:, None, None] * np.ones((1, 60, 60), dtype=np.int32)


@pytest.mark.parametrize("kind", ["aseg", "aparc+aseg", "wmparc", "aparc.a2009s+aseg", "wmparc.a2009s"])
def test_freesurfer_s_maps_are_taken_as_label_maps(
    kind: str, write_nifti: WriteNifti, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tissues, "AffineToMNI", lambda: lambda volume: volume)  # blocks cannot be registered
    affine = np.array([[1.5, 0, 0, -82], [0, 1.5, 0, -60], [0, 0, 1.5, -40], [0, 0, 0, 1]])
    head = load_head(str(write_nifti("map.nii.gz", freesurfer(kind), affine)))
    assert head.image is None
    assert head.labels is not None
    assert {2, 3, 4, 41, 42, 43, 77, 80} <= set(np.unique(head.labels).tolist())
    assert head.labels.max() < 1000
    assert head.t1w(np.random.default_rng(0)).max() > 0.9


def test_a_scan_of_256_whole_numbers_is_no_map_of_codes(shared_data: Path) -> None:
    assert load_head(str(shared_data / "t1_healthy" / "nii2mesh_bet.nii.gz")).image is not None


@pytest.mark.parametrize("codes", [(0, 1, 2, 3), tuple(range(100, 217)), (0, 10, 150, 250, 300, 7, 900)])
def test_a_map_of_other_codes_is_refused_before_it_is_registered(
    codes: tuple, write_nifti: WriteNifti, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tissues, "AffineToMNI", None)
    areas = np.random.default_rng(0).integers(0, len(codes), (8, 8, 8)).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    file = write_nifti("map.nii.gz", np.array(codes, dtype=np.int16)[areas])
    with pytest.raises(
        InputError, match=r"map\.nii\.gz is a map of codes, as of tissues, or of very few levels: a T1w"
    ):
        load_head(str(file))
