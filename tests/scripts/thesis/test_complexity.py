"""Table 4.3's counts, by the command's own way, against the thesis's numbers."""

from __future__ import annotations

import pytest

from scripts.thesis.complexity import complexity_table, parameters_and_flops
from tests.workflows.test_configs import parser_of


@pytest.mark.parametrize(
    ("overlay", "parameters", "flops"),
    [
        ("d_unet", 9_503_779, 18_089_374_976),
        ("agmr_net", 23_799_283, 42_872_026_884 + 49_104),  # docs/complexity.md: CPA pools to 6 x 6 in another way
    ],
)
def test_counts_are_the_thesis_s(overlay: str, parameters: int, flops: int) -> None:
    counted = parameters_and_flops(parser_of("train.json", f"networks/{overlay}.json"))
    assert counted == {"parameters": parameters, "flops": flops}


@pytest.mark.slow
def test_table_has_both_counts_and_the_work_done_here() -> None:
    row = complexity_table({"TSRL-Net": parser_of("train.json")}).splitlines()[-1].split(" | ")
    assert row[:2] == ["| TSRL-Net", "12,854,496"]
    assert row[3] == "23,916,070,494"
    # Pairs of slices in the 3D branch: 16 for 12 at full scale, 4 for 6 at 1/2, 1 for 3 at 1/4.
    scales = ((4, 32 + 32 * 32, 192), (-2, 32 * 64 + 64 * 64, 96), (-2, 64 * 128 + 128 * 128, 48))
    more = sum(9 * pairs * products * size**2 for pairs, products, size in scales)
    assert row[4] == f"{19_721_340_240 + more:,}"
