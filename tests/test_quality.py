"""The quality of masks: its raw estimate by hand, the fit on made cases, and the command from results to model.json."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.special import expit, logit

from bundle.errors import InputError
from bundle.files import bundle_root
from bundle.quality import QualityModel, expected_dice, fit_quality
from bundle.weights import read_settings
from scripts.quality import quality


def test_the_expected_dice_by_hand() -> None:
    probability = np.array([[0.9, 0.8, 0.4], [0.1, 0.0, 0.2]])
    mask = probability > 0.3
    # 2 (0.9 + 0.8 + 0.4) / (3 + 2.4)
    assert expected_dice(mask, probability) == pytest.approx(4.2 / 5.4)
    assert expected_dice(mask, mask.astype(np.float32)) == 1
    assert expected_dice(np.zeros_like(mask), probability) == 0


def test_a_fit_finds_the_model_that_made_the_cases() -> None:
    rng = np.random.default_rng(0)
    made = QualityModel((-0.5, 0.8, 0.4), (0.2, 1.2, 0.9), 0.5)
    shares, volumes_ml = rng.uniform(0.2, 0.95, 3000), 10 ** rng.uniform(-1, 2, 3000)
    pairs = list(zip(shares, volumes_ml, strict=True))
    masks = [(share, ml, made.predicted_dice(share, ml)) for share, ml in pairs]
    lesions = [(share, ml, bool(rng.random() < made.lesion_probability(share, ml))) for share, ml in pairs]
    found = fit_quality(masks, lesions, 0.5)
    for share, ml in ((0.3, 0.2), (0.6, 5.0), (0.9, 60.0)):
        assert found.predicted_dice(share, ml) == pytest.approx(made.predicted_dice(share, ml), abs=0.03)
        assert found.lesion_probability(share, ml) == pytest.approx(made.lesion_probability(share, ml), abs=0.06)


def test_predictions_are_the_logistic_of_the_weighted_features() -> None:
    model = QualityModel((0.1, 0.5, 0.3), (-1.0, 2.0, 1.0), 0.5)
    assert model.predicted_dice(0.8, 10.0) == pytest.approx(expit(0.1 + 0.5 * logit(0.8) + 0.3))
    assert model.lesion_probability(0.5, 0.1) == pytest.approx(expit(-1.0 - 1.0))
    assert 0 < model.predicted_dice(1.0, 1000.0) < 1  # certain values have no infinite logit


def write(file: Path, voxels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels.astype(np.uint8), np.diag([2.0, 2.0, 2.0, 1.0])), file)


def add_case(folder: Path, number: int, expected: float, shifted: int) -> None:
    """A cube of 8 voxels that is found shifted, in a batch's results, and a crumb that is not lesion."""
    truth, mask = np.zeros((2, 24, 24, 24))
    truth[4:12, 4:12, 4:12] = 1
    mask[4 + shifted : 12 + shifted, 4:12, 4:12] = 1
    mask[20, 20, 20] = 1
    name = f"case_{number}"
    image = folder / "cases" / "images" / f"{name}.nii.gz"
    write(image, np.zeros_like(mask))
    write(folder / "cases" / "labels" / f"{name}.nii.gz", truth)
    write(folder / "results" / f"{name}_desc-lesion_mask.nii.gz", mask)
    lesions = [{"mean_probability": expected, "volume_ml": 4.096}, {"mean_probability": 0.45, "volume_ml": 0.008}]
    record = {"status": "done", "file": str(image), "expected_dice": expected, "volume_ml": 4.104, "lesions": lesions}
    record |= {"name": name, "files": [f"{name}_desc-lesion_mask.nii.gz"]}
    records = folder / "results" / "records"
    records.mkdir(exist_ok=True)
    (records / f"{name}.json").write_text(json.dumps(record))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve cases of Dice 0.999, 0.75 and 0.25, and the shipped weights' settings."""
    for number in range(12):
        add_case(tmp_path, number, (0.95, 0.8, 0.5)[number % 3], (0, 2, 6)[number % 3])
    shutil.copy(Path(bundle_root()) / "models" / "model.json", tmp_path / "model.json")
    (tmp_path / "model.pt").touch()
    return tmp_path


def test_the_command_writes_a_model_that_tells_good_masks_from_bad_ones(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, before = folder / "model.pt", read_settings(folder / "model.pt")
    quality(str(folder / "results"), str(folder / "cases"), weights=str(weights), figure=str(folder / "quality.png"))
    printed = capsys.readouterr().out
    assert "Of 8 masks with a Dice of 0.7 or more, 0 are flagged." in printed
    assert "Of 4 masks with a Dice of below 0.4, 4 are flagged." in printed
    found = re.findall(r"12 (?:true|false) lesions: median probability (\d\.\d+)", printed)
    true, false = map(float, found)
    assert true > 0.8 > 0.2 > false
    settings = read_settings(weights)
    assert settings.quality is not None
    assert settings.quality.predicted_dice(0.8, 4.104) == pytest.approx(0.75, abs=0.1)
    assert (settings.threshold, settings.offsets) == (before.threshold, before.offsets)
    assert (folder / "quality.png").stat().st_size > 5000


def test_measuring_changes_nothing_and_needs_a_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (str(folder / "results"), str(folder / "cases"))
    (folder / "model.json").write_text(json.dumps(json.loads((folder / "model.json").read_text()) | {"quality": None}))
    with pytest.raises(InputError, match=r"has no model of its masks' quality: fit one first"):
        quality(*arguments, weights=str(folder / "model.pt"), fit=False)
    quality(*arguments, weights=str(folder / "model.pt"))
    content, printed = (folder / "model.json").read_bytes(), capsys.readouterr().out
    quality(*arguments, weights=str(folder / "model.pt"), fit=False)
    assert (folder / "model.json").read_bytes() == content
    assert capsys.readouterr().out == printed


def test_results_of_other_images_are_refused(folder: Path) -> None:
    shutil.rmtree(folder / "results" / "records")
    with pytest.raises(InputError, match="has no mask with a lesion"):
        quality(str(folder / "results"), str(folder / "cases"), weights=str(folder / "model.pt"))


@pytest.mark.parametrize(
    "model",
    [
        3,
        {"dice": [1, 2, 3]},
        {"dice": [1, 2], "lesion": [1, 2, 3], "least_dice": 0.5},
        {"dice": "abc", "lesion": [1, 2, 3], "least_dice": 0.5},
    ],
)
def test_a_damaged_model_is_refused(model: object, folder: Path) -> None:
    content = json.loads((folder / "model.json").read_text()) | {"quality": model}
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="three numbers each and least_dice is expected"):
        read_settings(folder / "model.pt")
