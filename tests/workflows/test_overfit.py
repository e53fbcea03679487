"""The network can learn four cases by heart, and only with the right stack and the right label."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow
from torch import nn

from bundle.inferers import SliceStackInferer
from bundle.metrics import case_metrics
from bundle.transforms import VolumePreprocessing
from tests.workflows.conftest import CONFIGS

pytestmark = pytest.mark.slow

NEEDED = 0.9
"""The DSC by which the cases count as learnt."""

Cases = list[tuple[torch.Tensor, torch.Tensor]]


class Rearranged(nn.Module):
    """A network that is handed its four slices in another order."""

    def __init__(self, network: nn.Module, order: list[int]) -> None:
        super().__init__()
        self.network = network
        self.order = order

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x[:, self.order])


@pytest.fixture(scope="module")
def learnt(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Cases]:
    """A network trained with configs/train.json on four cases, and these cases as it sees them."""
    workflow = ConfigWorkflow(
        str(CONFIGS / "train.json"),
        workflow_type="train",
        dataset_dir=str(cohort),
        output_dir=str(tmp_path_factory.mktemp("overfit")),
        logging_file=False,
        epochs=36,
        lr_decay=0.92,
        learning_rate=0.006,
        batch_size=8,
        val_fraction=0.0,
        lesion_fraction=0.8,
        samples_per_epoch=96,
        space="native",
        spacing_mm=2.0,
        slice_size=96,
        **{"network_def::features": [8, 16, 32, 64, 64], "network_def::dropout": 0.0},
    )
    workflow.initialize()
    workflow.run()
    prepare = VolumePreprocessing(spacing_mm=2.0, slice_size=96)
    cases = [
        (item["image"], item["label"])
        for number in range(4)
        for item in [prepare({key: str(cohort / f"{key}s" / f"case_{number}.nii.gz") for key in ("image", "label")})]
    ]
    return workflow.parser.get_parsed_content("network").eval(), cases


@torch.no_grad()
def segment(network: nn.Module, cases: Cases) -> list[torch.Tensor]:
    """The mask of each case."""
    return [(SliceStackInferer()(image[None], network)[0, 0] > 0).as_tensor() for image, _ in cases]


@pytest.fixture(scope="module")
def masks(learnt: tuple[nn.Module, Cases]) -> list[torch.Tensor]:
    """Return the masks that the network predicts for the cases of its training."""
    return segment(*learnt)


def mean_dsc(masks: list[torch.Tensor], cases: Cases, label_shift: tuple[int, int, int] = (0, 0, 0)) -> float:
    """Mean DSC over the cases, against labels that are rolled by some voxels."""
    truths = [label[0].roll(label_shift, dims=(0, 1, 2)).as_tensor() for _, label in cases]
    scores = [case_metrics(mask, truth, (2.0, 2.0, 2.0))["dsc"] for mask, truth in zip(masks, truths, strict=True)]
    return sum(scores) / len(scores)


def test_four_cases_are_learnt_by_heart(learnt: tuple[nn.Module, Cases], masks: list[torch.Tensor]) -> None:
    assert mean_dsc(masks, learnt[1]) > NEEDED


@pytest.mark.parametrize("order", [[3, 2, 1, 0], [1, 2, 3, 0], [0, 0, 1, 2]])
def test_a_wrong_stack_order_would_fail(order: list[int], learnt: tuple[nn.Module, Cases]) -> None:
    network, cases = learnt
    assert mean_dsc(segment(Rearranged(network, order), cases), cases) < NEEDED


@pytest.mark.parametrize("shift", [(2, 0, 0), (0, 2, 0), (0, 0, 2)])
def test_a_shifted_label_would_fail(
    shift: tuple[int, int, int], learnt: tuple[nn.Module, Cases], masks: list[torch.Tensor]
) -> None:
    assert mean_dsc(masks, learnt[1], label_shift=shift) < NEEDED
