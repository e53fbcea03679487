"""The results page of a made-up comparison, against numbers worked out by hand."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundle.errors import InputError
from scripts.thesis.compare import NETWORKS
from scripts.thesis.evaluations import Difference, compare_paired
from scripts.thesis.results import results
from scripts.thesis.results_page import CLAIMS, verdict
from tests.conftest import ellipsoid

CASES = 6
SHAPE = (24, 28, 20)
PLAN = {
    "options": {"epochs": 3},
    "settings": {"epochs": 3, "samples_per_epoch": 64, "batch_size": 16, "learning_rate": 0.001, "spacing_mm": 2.0},
    "cases": {"training": 30, "test": CASES, "healthy": 3},
}
# By network: DSC of the six cases, recall less DSC, false positives in mL of the three healthy cases.
MADE_UP = {
    "shipped": ([0.3, 0.5, 0.6, 0.7, 0.8, 0.9], 0.0, [0.0, 0.0, 0.1]),
    "tsrl_net": ([0.2, 0.4, 0.5, 0.6, 0.7, 0.8], 0.0, [0.0, 0.5, 4.0]),
    "agmr_net": ([0.1, 0.2, 0.2, 0.2, 0.2, 0.2], 0.0, [0.0, 0.0, 2.0]),
    "tsrl_net_eml": ([0.2, 0.4, 0.5, 0.6, 0.7, 0.8], 0.1, [1.0, 1.0, 1.0]),
}
VOLUMES_ML = [0.5, 2.0, 5.0, 8.0, 20.0, 60.0]


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (path.parent / "summary.json").write_text("{}")


def row(case: str, dsc: float, recall: float, true_ml: float, volume_ml: float, asd: float | str = 4.0) -> dict:
    return {
        "case": case,
        "dsc": dsc,
        "recall": recall,
        "precision": 0.5,
        "jaccard": dsc / (2 - dsc),
        "asd_mm": asd,
        "hd95_mm": asd,
        "volume_ml": volume_ml,
        "true_volume_ml": true_ml,
        "volume_difference_ml": abs(volume_ml - true_ml),
        "lesion_f1_overlap": 0.75,
        "lesion_f1_iou25": 0.25,
        "tp": 10,
        "fp": 5,
        "fn": 15,
    }


@pytest.fixture
def case_folder(tmp_path: Path) -> Path:
    """Six cases with an image and a lesion."""
    folder = tmp_path / "cases"
    image = 1000 * ellipsoid(SHAPE, (12, 14, 10), (10, 12, 8)).astype(np.int16)
    label = ellipsoid(SHAPE, (9, 12, 10), (3, 4, 3)).astype(np.uint8)
    for kind, array in (("images", image), ("labels", label)):
        (folder / kind).mkdir(parents=True)
        for number in range(CASES):
            nib.save(nib.Nifti1Image(array, np.eye(4)), folder / kind / f"sim_{number}.nii.gz")
    return folder


@pytest.fixture
def comparison(tmp_path: Path, case_folder: Path) -> Path:
    """What scripts.thesis.compare would have left, of the shipped weights and three networks."""
    folder = tmp_path / "comparison"
    labels = [str(case_folder / "labels" / f"sim_{number}.nii.gz") for number in range(CASES)]
    for name, (dsc, more, healthy) in MADE_UP.items():
        asd = ["", *[4.0] * (CASES - 1)] if name == "agmr_net" else [4.0] * CASES
        test = [
            row(label, d, d + more, ml, 0.5 * ml, a)
            for label, d, ml, a in zip(labels, dsc, VOLUMES_ML, asd, strict=True)
        ]
        write(folder / name / "test" / "cases.csv", test)
        sizes = zip(labels, [0.05, 2.0, 5.0, 8.0, 20.0, 60.0], [0, 0, 1, 1, 1, 1], strict=True)
        lesions = [{"case": case, "size_ml": ml, "found": found, "share": 0.5 * found} for case, ml, found in sizes]
        write(folder / name / "test" / "lesions.csv", lesions)
        rows = [row(f"healthy_{n}.nii.gz", 0.0, 0.0, 0.0, ml, "") for n, ml in enumerate(healthy)]
        write(folder / name / "healthy" / "cases.csv", rows)
    masks = folder / "shipped" / "test" / "masks"
    masks.mkdir()
    mask = ellipsoid(SHAPE, (10, 12, 10), (3, 4, 3)).astype(np.uint8)
    for number in range(CASES):
        nib.save(nib.Nifti1Image(mask, np.eye(4)), masks / f"sim_{number}_lesion.nii.gz")
    (folder / "comparison.json").write_text(json.dumps(PLAN))
    return folder


@pytest.fixture
def page(comparison: Path, tmp_path: Path) -> str:
    results(str(comparison), str(tmp_path / "docs"))
    return (tmp_path / "docs" / "results.md").read_text()


def cells(page: str, heading: str, *first: str) -> list[str]:
    """The cells of a row of the table under a heading, after the ones given."""
    section = page.split(f"## {heading}")[1].split("\n## ")[0]
    start = "| " + " | ".join(first) + " |"
    (line,) = [line for line in section.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in line.removeprefix(start).strip(" |").split("|")]


EXPECTED = {
    "lesions": """
A lesion is a connected component (26 neighbours). Lesion F1 has two rules: a lesion is found when one voxel of it is,
or when a predicted one matches it, one to one, with an IoU of 0.25 or more. Volume difference: mean of the absolute
difference of a case. Below the sizes: the share of true lesions of which a voxel is found, and the numbers. Healthy:
false positive volume in the simulated cases without lesion.
""",
    "tests": """
Two-sided, over the test cases, not corrected for the number of tests. They take cases as independent, which those of
one head are not: p is too small rather than too large.
""",
    "claims": """
- **Held**: TSRL-Net against AGMR-Net (DSC); TSRL-Net against AGMR-Net (recall).
- **Not held**: TAL against EML (recall).
- **Undecided**: TSRL-Net against AGMR-Net (precision); TAL against EML (DSC); TAL against EML (precision).

| comparison | metric | thesis, ATLAS | its tables | here, simulated | p, Wilcoxon | verdict |
| --- | --- | --- | --- | --- | --- | --- |
| TSRL-Net against AGMR-Net | DSC | +0.040 | 4.2 | +0.350 | 0.031 | held |
| TSRL-Net against AGMR-Net | recall | +0.071 | 4.2 | +0.350 | 0.031 | held |
| TSRL-Net against AGMR-Net | precision | -0.035 | 4.2 | +0.000 | 1.000 | undecided |
| TAL against EML | DSC | +0.032 | 4.6 | +0.000 | 1.000 | undecided |
| TAL against EML | recall | +0.045 | 4.6 | -0.100 | 0.031 | not held |
| TAL against EML | precision | +0.005 | 4.6 | +0.000 | 1.000 | undecided |
""",
}
"""Parts of the page as a whole; the tests below work out their numbers."""


@pytest.mark.parametrize("part", EXPECTED)
def test_tables_and_sentences_are_shown_word_for_word(part: str, page: str) -> None:
    assert EXPECTED[part] in page


def test_overlap_is_that_of_the_cases(page: str) -> None:
    # Mean 3.2 / 6, squared deviations 0.23333 in all, sd sqrt(0.23333 / 5); median (0.5 + 0.6) / 2; pooled 20 / 40.
    mean, sd = 3.2 / 6, math.sqrt(0.233333 / 5)
    numbers = cells(page, "Voxels", "TSRL-Net")
    assert numbers[:5] == [f"{mean:.3f} ± {sd:.3f}", "0.550", "0.500", f"{mean:.3f}", "0.500"]
    assert numbers[6:] == ["4.0", "4.0"]


def test_the_shipped_weights_come_first_and_are_in_no_test(page: str) -> None:
    assert cells(page, "Voxels", "TSRL-Net, as shipped")[0].startswith(f"{3.8 / 6:.3f} ± ")
    assert "as shipped" not in page.split("## Paired tests")[1].split("## Pictures")[0]
    assert page.index("| TSRL-Net, as shipped |") < page.index("| TSRL-Net |")


def test_undefined_distances_are_counted(page: str) -> None:
    assert cells(page, "Voxels", "AGMR-Net")[6:] == ["4.0 (1)", "4.0 (1)"]


def test_lesions_by_size_and_false_positives_of_healthy_cases(page: str) -> None:
    # Half the volume is found: mean of 95.5 / 2 over 6 cases = 7.96 mL. Of 3 lesions of 1 to 10 mL, 2 are found.
    assert cells(page, "Lesions", "TSRL-Net") == [
        *("0.750", "0.250", "8.0"),
        *("0.00 (0/1)", "-", "0.67 (2/3)", "1.00 (1/1)", "1.00 (1/1)"),
        *("0.50", "4.00"),
    ]


def test_paired_tests_against_each_network(page: str) -> None:
    # All six differences 0.1, 0.2, 0.3, 0.4, 0.5, 0.6 are above 0: exact Wilcoxon 2 / 2^6 = 0.031.
    # t = 0.35 / (0.187083 / sqrt(6)) = 4.583 with 5 degrees of freedom: p = 0.006.
    assert cells(page, "Paired tests", "AGMR-Net", "DSC") == ["+0.350", "0.031", "0.006"]
    assert cells(page, "Paired tests", "AGMR-Net", "precision") == ["+0.000", "1.000", "1.000"]


def test_claims_get_a_verdict_from_the_numbers(page: str) -> None:
    about = "What the thesis's tables say"
    assert cells(page, about, "TSRL-Net against AGMR-Net", "DSC")[2:] == ["+0.350", "0.031", "held"]
    assert cells(page, about, "TSRL-Net against AGMR-Net", "precision")[-1] == "undecided"
    # The thesis: recall +0.045 with TAL; here 0.1 lower in each of the six cases.
    assert cells(page, about, "TAL against EML", "recall") == ["+0.045", "4.6", "-0.100", "0.031", "not held"]
    section = page.split(f"## {about}")[1].split("\n\n|")[0]
    assert re.search(
        r"\*\*Held\*\*: TSRL-Net against AGMR-Net \(DSC\); TSRL-Net against AGMR-Net \(recall\)\.", section
    )
    assert "**Not held**: TAL against EML (recall)." in section
    assert "D-UNet |" not in page.split(f"## {about}")[1]  # it was not evaluated


def test_a_long_list_of_claims_is_wrapped(comparison: Path, tmp_path: Path) -> None:
    shutil.copytree(comparison / "tsrl_net_eml", comparison / "tsrl_net_no_crl")
    results(str(comparison), str(tmp_path))
    page = (tmp_path / "results.md").read_text()
    (undecided,) = re.findall(r"^- \*\*Undecided\*\*: .*\n  .*$", page, re.MULTILINE)
    assert " ".join(undecided.split()).endswith("CRL against none (DSC); CRL against none (precision).")
    assert max(map(len, undecided.splitlines())) <= 120


def test_the_page_says_simulated_and_has_its_commands(page: str) -> None:
    assert "python -m scripts.thesis.compare TRAINING TEST HEALTHY COMPARISON --epochs 3\n" in page
    assert "30 simulated cases; 3 epochs of 64 slices in batches of 16" in page
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert len(headings) == 5
    assert all("simulated" in heading for heading in headings)
    assert "higher than AGMR-Net in 6 cases, lower in 0, equal in 0" in page


def test_pictures_are_there_and_small(page: str, tmp_path: Path) -> None:
    names = re.findall(r"!\[[^]]*simulated[^]]*\]\((results_\w+\.png)\)", page)
    assert names == ["results_dsc.png", "results_recall.png", "results_volume.png", "results_worst.png"]
    for name in names:
        assert (tmp_path / "docs" / name).stat().st_size < 300_000
        with Image.open(tmp_path / "docs" / name) as image:
            assert 600 <= image.width <= 900


def test_hits_misses_and_false_alarms_keep_their_colours(page: str, tmp_path: Path) -> None:
    with Image.open(tmp_path / "docs" / "results_worst.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    for colour in ((0, 158, 115), (230, 159, 0), (204, 121, 167)):  # of the legend
        assert np.abs(pixels - colour).max(axis=1).min() < 16


def test_moved_test_cases_are_found_where_they_are_said_to_be(
    comparison: Path, case_folder: Path, tmp_path: Path
) -> None:
    case_folder.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"does not exist"):
        results(str(comparison), str(tmp_path / "docs"))
    results(str(comparison), str(tmp_path / "docs"), test=str(tmp_path / "moved"))
    assert (tmp_path / "docs" / "results.md").exists()


def test_networks_tested_on_different_cases_are_refused(comparison: Path, tmp_path: Path) -> None:
    table = comparison / "agmr_net" / "test" / "cases.csv"
    table.write_text(table.read_text().replace("sim_0", "sim_9"))
    with pytest.raises(InputError, match="AGMR-Net was tested on other cases than TSRL-Net"):
        results(str(comparison), str(tmp_path / "docs"))


def test_a_folder_without_a_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"holds no evaluated TSRL-Net: run (\.venv/bin/)?python -m scripts\.thesis\.compare first"
    ):
        results(str(tmp_path))


def test_the_sign_decides_where_p_is_small() -> None:
    assert verdict(0.1, Difference(0.2, 0.049, 0.5)) == "held"
    assert verdict(-0.1, Difference(0.2, 0.049, 0.5)) == "not held"
    assert verdict(-0.1, Difference(-0.2, 0.049, 0.5)) == "held"
    assert verdict(0.1, Difference(0.2, 0.05, 0.001)) == "undecided"


def test_equal_networks_do_not_differ() -> None:
    assert compare_paired([0.1, 0.2], [0.1, 0.2]) == Difference(0.0, 1.0, 1.0)


def test_claims_are_about_networks_of_the_comparison() -> None:
    assert {name for claim in CLAIMS for name in (claim.network, claim.against)} == set(NETWORKS)
