"""The page of a comparison of networks, and its pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bundle.data import load_datalist
from bundle.errors import InputError
from bundle.files import stem, write_atomically
from bundle.metrics import SIZE_BINS, Lesion, recall_by_size, summarize
from bundle.templates import render
from bundle.volumes.picture import save_montage, shrink
from scripts.command import shown_python
from scripts.thesis.charts import draw_dsc_boxes, draw_dsc_by_volume, draw_recall_pairs
from scripts.thesis.compare import NETWORKS, SHIPPED, Network
from scripts.thesis.evaluations import Cases, Difference, compare_paired, read_cases, read_rows
from scripts.thesis.figures import read_voxels

__all__ = ["CLAIMS", "Claim", "verdict", "write_page"]

_TEMPLATE = Path(__file__).parent / "templates" / "results.md"
_TESTED = {"dsc": "DSC", "recall": "recall", "precision": "precision"}
_SIGNIFICANT = 0.05
_WORST = 4
_WORST_FROM_ML = 1.0
_CASE = "simulated case"


class Claim(NamedTuple):
    """What a table of the thesis says of two networks: differences of mean DSC, recall and precision on ATLAS."""

    text: str
    network: str
    against: str
    source: str
    differences: tuple[float, float, float]


CLAIMS = (
    Claim("TSRL-Net against AGMR-Net", "tsrl_net", "agmr_net", "4.2", (0.040, 0.071, -0.035)),
    Claim("TSRL-Net against D-UNet", "tsrl_net", "d_unet", "4.2", (0.086, 0.120, 0.013)),
    Claim("TSRL-Net against U-Net with TAL", "tsrl_net", "basic_unet", "4.2, 4.5", (0.106, 0.157, -0.019)),
    Claim(
        "TSRL-Net against Attention U-Net with TAL", "tsrl_net", "attention_unet", "4.2, 4.5", (0.072, 0.138, -0.013)
    ),
    Claim("TAL against EML", "tsrl_net", "tsrl_net_eml", "4.6", (0.032, 0.045, 0.005)),
    Claim("CRL against none", "tsrl_net", "tsrl_net_no_crl", "4.1", (0.017, 0.011, 0.018)),
    Claim("AGMR-Net against D-UNet", "agmr_net", "d_unet", "3.2", (0.046, 0.049, 0.048)),
)


@dataclass(frozen=True)
class Tested:
    """The results of one network.

    Attributes:
        title: its name on the page.
        cases: metrics of the test cases by the name of their label's file.
        lesions: of all test cases.
        false_positive_ml: of each healthy case.
    """

    title: str
    cases: Cases
    lesions: list[Lesion]
    false_positive_ml: list[float]

    def metric(self, name: str) -> list[float]:
        """Return one metric of all test cases, in their order."""
        return [case[name] for case in self.cases.values()]

    @property
    def summary(self) -> dict[str, float]:
        """The means over the test cases, and the median and maximum of the healthy cases."""
        return {
            **summarize(list(self.cases.values())),
            "healthy_median_ml": float(np.median(self.false_positive_ml)),
            "healthy_maximum_ml": max(self.false_positive_ml),
        }

    @property
    def recall_by_size(self) -> list[tuple[int, int]]:
        """Found and all lesions of each of :data:`bundle.metrics.SIZE_BINS`."""
        return list(recall_by_size(self.lesions).values())


def write_page(comparison: Path, docs: Path, test: Path | None = None) -> int:
    """Write ``results.md`` and its pictures, and return how many networks it is about.

    Args:
        comparison: the output folder of scripts.thesis.compare.
        docs: the folder to write to.
        test: the folder of the test cases; where they were at the evaluation unless given.

    Raises:
        InputError: when there is no comparison, networks were tested on different cases, or test cases are missing.
    """
    networks = _read(comparison)
    if test is None:
        test = Path(read_rows(comparison / "tsrl_net" / "test" / "cases.csv")[0]["case"]).parents[1]
    docs.mkdir(parents=True, exist_ok=True)
    mean_dsc = {name: float(np.mean(network.metric("dsc"))) for name, network in networks.items()}
    page = render(
        _TEMPLATE,
        **json.loads((comparison / "comparison.json").read_text()),
        shipped_dsc=mean_dsc.pop(SHIPPED),
        dsc=list(mean_dsc.values()),
        networks=list(networks.values()),
        sizes=list(SIZE_BINS),
        tests=list(_tests(networks)),
        claims=list(_claims(networks)),
        significant=_SIGNIFICANT,
        pictures=_save_pictures(networks, comparison / SHIPPED / "test" / "masks", test, docs),
    )
    write_atomically(page, docs / "results.md")
    return len(networks)


def _read(comparison: Path) -> dict[str, Tested]:
    """Return what was evaluated on both sets: the shipped weights, and the networks in the order of their list."""
    networks = {}
    for name, network in {SHIPPED: Network("TSRL-Net, as shipped"), **NETWORKS}.items():
        test, healthy = comparison / name / "test", comparison / name / "healthy"
        if (test / "summary.json").exists() and (healthy / "summary.json").exists():
            lesions = [
                Lesion(float(row["size_ml"]), row["found"] == "1", float(row["share"]))
                for row in read_rows(test / "lesions.csv")
            ]
            false_ml = [case["volume_ml"] for case in read_cases(healthy / "cases.csv").values()]
            networks[name] = Tested(network.title, read_cases(test / "cases.csv"), lesions, false_ml)
    for name in (SHIPPED, "tsrl_net"):
        if name not in networks:
            raise InputError(
                f"{comparison / name} holds no evaluated TSRL-Net: "
                f"run {shown_python()} -m scripts.thesis.compare first."
            )
    for tested in networks.values():
        if list(tested.cases) != list(networks["tsrl_net"].cases):
            raise InputError(f"{tested.title} was tested on other cases than TSRL-Net: the same ones are needed.")
    return networks


def verdict(claimed: float, found: Difference) -> str:
    """Return whether a claimed difference held: by the sign of the mean difference, if Wilcoxon's p is below 0.05."""
    if found.wilcoxon_p >= _SIGNIFICANT or found.mean == 0:
        return "undecided"
    return "held" if (found.mean > 0) == (claimed > 0) else "not held"


def _tests(networks: Mapping[str, Tested]) -> Iterator[tuple[str, str, Difference]]:
    """Yield the other network, the metric, and how TSRL-Net differs from it."""
    for name, network in networks.items():
        if name not in (SHIPPED, "tsrl_net"):
            for metric, shown in _TESTED.items():
                found = compare_paired(networks["tsrl_net"].metric(metric), network.metric(metric))
                yield network.title, shown, found


def _claims(networks: Mapping[str, Tested]) -> Iterator[dict[str, Any]]:
    """Yield what came of each claim and metric, where both networks were evaluated."""
    for claim in CLAIMS:
        if claim.network in networks and claim.against in networks:
            for (metric, shown), claimed in zip(_TESTED.items(), claim.differences, strict=True):
                found = compare_paired(*(networks[name].metric(metric) for name in (claim.network, claim.against)))
                told = {"text": claim.text, "source": claim.source, "metric": shown, "name": f"{claim.text} ({shown})"}
                yield {**told, "claimed": claimed, "found": found, "verdict": verdict(claimed, found)}


# Pictures


def _save_pictures(networks: Mapping[str, Tested], masks: Path, test: Path, docs: Path) -> dict[str, str]:
    """Write the pictures; return the sentence under each by its file's name."""
    shipped, ours = networks[SHIPPED], networks["tsrl_net"]
    sentences = {"results_dsc.png": "DSC of the simulated cases: quartiles, and the mean as a dot."}
    dsc = {network.title: network.metric("dsc") for network in networks.values()}
    draw_dsc_boxes(dsc, _CASE).savefig(docs / "results_dsc.png")
    if "agmr_net" in networks:
        recalls = {network.title: network.metric("recall") for network in (ours, networks["agmr_net"])}
        draw_recall_pairs(recalls, _CASE).savefig(docs / "results_recall.png")
        higher, lower = (sum(map(sign, *recalls.values())) for sign in (float.__gt__, float.__lt__))
        sentences["results_recall.png"] = (
            f"Recall per simulated case, as in the thesis's figure 4.6: TSRL-Net is higher than AGMR-Net in {higher} "
            f"cases, lower in {lower}, equal in {len(ours.cases) - higher - lower}."
        )
    chart = draw_dsc_by_volume(shipped.metric("true_volume_ml"), shipped.metric("dsc"))
    chart.savefig(docs / "results_volume.png")
    sentences["results_volume.png"] = f"DSC of {shipped.title}, against the volume of the simulated lesions of a case."
    large = {name: case["dsc"] for name, case in shipped.cases.items() if case["true_volume_ml"] > _WORST_FROM_ML}
    if worst := sorted(large, key=large.__getitem__)[:_WORST]:
        _save_worst({name: shipped.cases[name] for name in worst}, masks, test, docs / "results_worst.png")
        sentences["results_worst.png"] = f"The worst simulated cases of {shipped.title}, over {_WORST_FROM_ML:g} mL."
    return sentences


def _save_worst(cases: Cases, masks: Path, test: Path, path: Path) -> None:
    items = {Path(item["label"]).name: item for item in load_datalist(test)}
    shown = {}
    for name, case in cases.items():
        file = items[name]["image"]
        files = (file, items[name]["label"], masks / f"{stem(file)}_lesion.nii.gz")
        image, label, mask = map(_read_test_voxels, files)
        title = f"{stem(name)}, {case['true_volume_ml']:.1f} mL\nDSC {case['dsc']:.2f}"
        shown[title] = (image, label, mask)
    save_montage(shown, path)
    shrink(path, width=900)


def _read_test_voxels(file: str | Path) -> np.ndarray:
    if not Path(file).exists():
        raise InputError(f"{file} does not exist: --test names the folder of the test cases, where they were moved.")
    return read_voxels(file)
