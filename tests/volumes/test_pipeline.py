"""One volume from file to results: the mask to the voxel on the grid of its source, and its sidecar and picture."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bundle.mni import RegistrationResult
from bundle.options import SegmentOptions
from bundle.quality import QualityModel
from bundle.transforms import VolumePreprocessing, registration
from bundle.volumes.inputs import VolumeInput
from bundle.volumes.pipeline import VolumePipeline, VolumeResult
from tests.volumes.conftest import WriteHead, find_bright

MASK = "scan_space-orig_label-L_desc-lesion_mask.nii.gz"


def run(pipeline: VolumePipeline, file: Path, logits: torch.Tensor | None = None) -> VolumeResult:
    volume = VolumeInput(file, "scan")
    prepared = pipeline.prepare(volume)
    found = find_bright(prepared.image.as_tensor()) if logits is None else logits.expand(prepared.image.shape)
    return pipeline.finish(volume, prepared, found)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SRA", "PIR"])
def test_the_mask_is_the_cubes_to_the_voxel_on_the_grid_of_the_source(
    axcodes: str, pipeline: VolumePipeline, write_head: WriteHead, cubes: np.ndarray
) -> None:
    file = write_head("scan.nii.gz", axcodes)
    result = run(pipeline, file)
    source, mask = nib.load(file), nib.load(pipeline.output / MASK)
    for name in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "pixdim"):
        assert np.array_equal(mask.header[name], source.header[name]), name
    assert mask.get_data_dtype() == np.uint8
    assert np.array_equal(nib.as_closest_canonical(mask).dataobj, cubes)
    assert [lesion.volume_ml for lesion in result.lesions] == pytest.approx([8.0, 0.064])
    assert result.volume_ml == pytest.approx(8.064)
    # Voxels 20 to 29, 50 to 59, 55 to 64 of 2 mm, wherever the axes of the file point.
    assert result.lesions[0][2:5] == pytest.approx((49.0, 109.0, 119.0), abs=1e-4)


def test_results_have_names_of_bids_and_a_sidecar(pipeline: VolumePipeline, write_head: WriteHead) -> None:
    result = run(pipeline, write_head("scan.nii.gz"))
    written = {path.relative_to(pipeline.output).as_posix() for path in pipeline.output.rglob("*") if path.is_file()}
    assert written == set(result.files)
    assert written == {MASK, MASK.replace(".nii.gz", ".json"), "figures/scan.png"}
    sidecar = json.loads((pipeline.output / MASK.replace(".nii.gz", ".json")).read_text())
    assert sidecar["Sources"] == ["scan.nii.gz"]
    assert sidecar["Manual"] is False


def test_a_lesion_below_the_smallest_is_left_out(pipeline: VolumePipeline, write_head: WriteHead) -> None:
    for smallest_ml, lesions in ((0.063, 2), (0.065, 1), (9.0, 0)):
        result = run(
            replace(pipeline, options=SegmentOptions(smallest_lesion_ml=smallest_ml)), write_head("scan.nii.gz")
        )
        assert len(result.lesions) == lesions
    assert not np.asarray(nib.load(pipeline.output / MASK).dataobj).any()


def test_logits_outside_the_head_are_ignored(pipeline: VolumePipeline, write_head: WriteHead, head: np.ndarray) -> None:
    result = run(pipeline, write_head("scan.nii.gz"), torch.tensor(10.0))
    mask = np.asarray(nib.load(pipeline.output / MASK).dataobj)
    assert not mask[:3].any()
    assert mask[30:50, 40:60, 50:70].all()
    assert result.volume_ml < 1.1 * np.count_nonzero(head) * 0.008
    assert any("is more than nearly every stroke" in warning for warning in result.warnings)


def test_probability_and_uncertainty_are_written_when_asked_for(
    pipeline: VolumePipeline, write_head: WriteHead
) -> None:
    pipeline = replace(pipeline, options=SegmentOptions(probability=True, uncertainty=True), threshold=0.7)
    result = run(pipeline, write_head("scan.nii.gz"), torch.tensor(0.8472979))  # the logit of 0.7
    voxels = {
        kind: np.asarray(nib.load(pipeline.output / MASK.replace("lesion_mask", kind)).dataobj)[40, 52, 58]
        for kind in ("lesion_probseg", "entropy_probseg")
    }
    assert voxels["lesion_probseg"] == pytest.approx(0.7, abs=1e-5)
    assert voxels["entropy_probseg"] == pytest.approx(0.8813, abs=1e-4)  # -0.7 log2 0.7 - 0.3 log2 0.3
    assert result.uncertainty == pytest.approx(0.8813, abs=1e-3)


def test_a_page_that_shows_the_volume_is_written_when_asked_for(
    pipeline: VolumePipeline, write_head: WriteHead
) -> None:
    pipeline = replace(pipeline, options=SegmentOptions(views=True))
    page = pipeline.output / "views" / "scan.html"
    for axcodes in ("RAS", "LPS"):
        result = run(pipeline, write_head("scan.nii.gz", axcodes))
        assert result.files.index("views/scan.html") < result.files.index(MASK)
        centre_mm = re.search(r'data-centre="\[(.*?)\]"', page.read_text(encoding="utf-8"))
        assert centre_mm is not None
        assert [float(mm) for mm in centre_mm[1].split(",")] == pytest.approx((49.0, 109.0, 119.0), abs=1e-4)
    run(pipeline, write_head("scan.nii.gz"), torch.tensor(-10.0))
    assert 'data-centre="null"' in page.read_text(encoding="utf-8")


def test_an_empty_mask_is_flagged(pipeline: VolumePipeline, write_head: WriteHead) -> None:
    result = run(pipeline, write_head("scan.nii.gz"), torch.tensor(-10.0))
    assert result.warnings == ["no lesion found"]
    assert (result.lesions, result.volume_ml, result.uncertainty) == ([], 0, 0)


def test_an_ordinary_volume_has_no_warning(pipeline: VolumePipeline, write_head: WriteHead) -> None:
    assert run(pipeline, write_head("scan.nii.gz")).warnings == []


@pytest.mark.parametrize(("least_dice", "flagged"), [(0.99, True), (0.1, False)])
def test_a_mask_with_a_low_predicted_dice_is_flagged(
    least_dice: float, flagged: bool, pipeline: VolumePipeline, write_head: WriteHead
) -> None:
    quality = QualityModel((-6.0, 1.0, 0.0), (1.0, 0.0, 1.0), least_dice)
    result = run(replace(pipeline, quality=quality), write_head("scan.nii.gz"))
    dice = result.predicted_dice
    assert dice is not None
    assert dice == pytest.approx(quality.predicted_dice(result.expected_dice, result.volume_ml))
    assert result.warnings == ([f"the mask is likely to be poor (predicted Dice {dice:.2f})"] if flagged else [])
    for lesion in result.lesions:
        assert lesion.lesion_probability == pytest.approx(1 / (1 + np.exp(-1 - np.log10(lesion.volume_ml))))


# Registered


def in_mni(pipeline: VolumePipeline, monkeypatch: pytest.MonkeyPatch, similarity: float) -> VolumePipeline:
    """In MNI space, where the registration finds the brain's centre, voxel (40, 52, 58), and this similarity."""
    to_mni = np.eye(4)
    to_mni[:3, 3] = np.array((0, -18, 22)) - 2 * np.array((40, 52, 58))
    monkeypatch.setattr(registration, "register_to_mni", lambda voxels, affine: RegistrationResult(to_mni, similarity))
    preprocessing = VolumePreprocessing("image", spacing_mm=2.0, slice_size=96, space="mni", on_failure="native")
    return replace(pipeline, preprocessing=preprocessing)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS"])
def test_the_mask_of_a_registered_head_is_in_its_place_and_has_a_side(
    axcodes: str, pipeline: VolumePipeline, write_head: WriteHead, cubes: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(in_mni(pipeline, monkeypatch, 0.8), write_head("scan.nii.gz", axcodes))
    mask = np.asarray(nib.as_closest_canonical(nib.load(pipeline.output / MASK)).dataobj)
    assert 2 * (mask & cubes).sum() / (mask.sum() + cubes.sum()) > 0.8
    assert result.lesions[0].side == "left"
    assert result.lesions[0][2:5] == pytest.approx((49.0, 109.0, 119.0), abs=1.0)
    assert (result.similarity, result.warnings) == (0.8, [])


def test_a_head_that_could_not_be_registered_is_segmented_and_flagged(
    pipeline: VolumePipeline, write_head: WriteHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(in_mni(pipeline, monkeypatch, 0.1), write_head("scan.nii.gz"))
    assert result.warnings[0].startswith("not registered to MNI space (its similarity to the template is 0.10")
    assert result.lesions[0].side == "unknown"
    assert result.lesions[0].volume_ml == pytest.approx(8.0, rel=0.3)
