"""The results page from a comparison of networks: ``python -m scripts.thesis.results COMPARISON docs``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from bundle.data import load_datalist
from bundle.errors import InputError
from bundle.files import stem, write_atomically
from bundle.metrics import SIZE_BINS, Lesion, recall_by_size, summarize
from bundle.templates import render
from bundle.volumes.picture import save_montage, shrink
from scripts.command import run_command, shown_python
from scripts.thesis.charts import save_dsc_boxes, save_dsc_by_volume, save_recall_pairs
from scripts.thesis.compare import NETWORKS, SHIPPED, Network
from scripts.thesis.evaluations import Difference, compare_paired, read_cases, read_rows, shown_p
from scripts.thesis.markdown import table

__all__ = ["CLAIMS", "Claim", "results", "verdict"]

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
    """What one network did.

    Args:
        title: its name on the page.
        cases: metrics of the test cases by the name of their label's file.
        lesions: of all test cases.
        false_positive_ml: of each healthy case.
    """

    title: str
    cases: dict[str, dict[str, float]]
    lesions: list[Lesion]
    false_positive_ml: list[float]

    def metric(self, name: str) -> list[float]:
        """One metric of all test cases, in their order."""
        return [case[name] for case in self.cases.values()]


# Reading


def _read(comparison: Path) -> dict[str, Tested]:
    """What was evaluated on both sets: the shipped weights, and the networks in the order of their list."""
    networks = {}
    for name, network in {SHIPPED: Network("TSRL-Net, as shipped"), **NETWORKS}.items():
        test, healthy = comparison / name / "test", comparison / name / "healthy"
        if (test / "summary.json").exists() and (healthy / "summary.json").exists():
            networks[name] = Tested(
                network.title,
                read_cases(test / "cases.csv"),
                [
                    Lesion(float(row["size_ml"]), row["found"] == "1", float(row["share"]))
                    for row in read_rows(test / "lesions.csv")
                ],
                [case["volume_ml"] for case in read_cases(healthy / "cases.csv").values()],
            )
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


# Statistics


def verdict(claimed: float, found: Difference) -> str:
    """Whether a claimed difference held: by the sign of the mean difference, where Wilcoxon's p is below 0.05."""
    if found.wilcoxon_p >= _SIGNIFICANT or found.mean == 0:
        return "undecided"
    return "held" if (found.mean > 0) == (claimed > 0) else "not held"


# The page


def _distance(summary: Mapping[str, float], name: str) -> str:
    """The mean in mm, and in how many cases it is not defined."""
    undefined = summary.get(f"{name}_undefined", 0)
    return f"{summary[name]:.1f}" + (f" ({undefined:.0f})" if undefined else "")


def _overlap_table(networks: Mapping[str, Tested]) -> str:
    rows = []
    for network in networks.values():
        s = summarize(list(network.cases.values()))
        numbers = [s[name] for name in ("dsc_median", "dsc_global", "recall", "precision", "jaccard")]
        distances = [_distance(s, name) for name in ("asd_mm", "hd95_mm")]
        rows.append(
            [network.title, f"{s['dsc']:.3f} ± {s['dsc_sd']:.3f}", *(f"{number:.3f}" for number in numbers), *distances]
        )
    header = ["network", "DSC, mean ± sd", "median", "DSC(G)", "recall", "precision", "Jaccard", "ASD, mm", "HD95, mm"]
    return table(header, rows)


def _lesion_table(networks: Mapping[str, Tested]) -> str:
    rows = []
    for network in networks.values():
        s = summarize(list(network.cases.values()))
        bins = recall_by_size(network.lesions).values()
        recalls = [f"{found / total:.2f} ({found}/{total})" if total else "-" for found, total in bins]
        f1 = [f"{s[name]:.3f}" for name in ("lesion_f1_overlap", "lesion_f1_iou25")]
        healthy = [f"{function(network.false_positive_ml):.2f}" for function in (np.median, np.max)]
        rows.append([network.title, *f1, f"{s['volume_difference_ml']:.1f}", *recalls, *healthy])
    header = ["network", "F1, overlap", "F1, IoU 0.25", "volume difference, mL", *(f"{name} mL" for name in SIZE_BINS)]
    return table([*header, "healthy, median mL", "healthy, maximum mL"], rows)


def _test_table(networks: Mapping[str, Tested]) -> str:
    ours, rows = networks["tsrl_net"], []
    for network in (network for name, network in networks.items() if name not in (SHIPPED, "tsrl_net")):
        for metric, shown in _TESTED.items():
            found = compare_paired(ours.metric(metric), network.metric(metric))
            rows.append([network.title, shown, f"{found.mean:+.3f}", shown_p(found.wilcoxon_p), shown_p(found.t_p)])
    return table(["TSRL-Net against", "metric", "mean difference", "p, Wilcoxon", "p, t-test"], rows)


def _tested_claims(networks: Mapping[str, Tested]) -> Iterator[tuple[Claim, str, float, Difference]]:
    """Each claim whose two networks are here, by metric: the claim, the metric, what is claimed, what was found."""
    for claim in CLAIMS:
        if claim.network in networks and claim.against in networks:
            for metric, claimed in zip(_TESTED, claim.differences, strict=True):
                found = compare_paired(*(networks[name].metric(metric) for name in (claim.network, claim.against)))
                yield claim, metric, claimed, found


def _claim_table(networks: Mapping[str, Tested]) -> str:
    rows = []
    for claim, metric, claimed, found in _tested_claims(networks):
        measured = [f"{found.mean:+.3f}", shown_p(found.wilcoxon_p)]
        rows.append([claim.text, _TESTED[metric], f"{claimed:+.3f}", claim.source, *measured, verdict(claimed, found)])
    header = ["comparison", "metric", "thesis, ATLAS", "its tables", "here, simulated", "p, Wilcoxon", "verdict"]
    return table(header, rows)


def _claim_sentences(networks: Mapping[str, Tested]) -> str:
    """Which claims held, by verdict."""
    said: dict[str, list[str]] = {"held": [], "not held": [], "undecided": []}
    for claim, metric, claimed, found in _tested_claims(networks):
        said[verdict(claimed, found)].append(f"{claim.text} ({_TESTED[metric]})")
    bullets = [f"- **{word.capitalize()}**: {'; '.join(claims) or 'none'}." for word, claims in said.items()]
    return "\n".join(textwrap.fill(bullet, 120, subsequent_indent="  ", break_on_hyphens=False) for bullet in bullets)


def _recall_sentence(networks: Mapping[str, Tested]) -> str:
    ours, other = (networks[name].metric("recall") for name in ("tsrl_net", "agmr_net"))
    higher, lower = sum(map(float.__gt__, ours, other)), sum(map(float.__lt__, ours, other))
    return (
        f"Recall per simulated case, as in the thesis's figure 4.6: TSRL-Net is higher than AGMR-Net in {higher} "
        f"cases, lower in {lower}, equal in {len(ours) - higher - lower}."
    )


def _page(networks: Mapping[str, Tested], plan: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    dsc = {name: float(np.mean(network.metric("dsc"))) for name, network in networks.items()}
    return render(
        _TEMPLATE,
        **plan,
        shipped_dsc=dsc.pop(SHIPPED),
        dsc=list(dsc.values()),
        overlap_table=_overlap_table(networks),
        lesion_table=_lesion_table(networks),
        test_table=_test_table(networks),
        claim_sentences=_claim_sentences(networks),
        claim_table=_claim_table(networks),
        significant=_SIGNIFICANT,
        pictures=pictures,
    )


# Pictures


def _worst(network: Tested) -> list[str]:
    """The cases over 1 mL with the lowest DSC."""
    large = {name: case["dsc"] for name, case in network.cases.items() if case["true_volume_ml"] > _WORST_FROM_ML}
    return sorted(large, key=lambda name: large[name])[:_WORST]


def _voxels(file: str | Path) -> np.ndarray:
    """In RAS orientation."""
    if not Path(file).exists():
        raise InputError(f"{file} does not exist: --test names the folder of the test cases, where they were moved.")
    return np.asarray(nib.as_closest_canonical(nib.load(file)).dataobj)


def _save_worst(network: Tested, masks: Path, test: Path, path: Path) -> None:
    files = {Path(item["label"]).name: item for item in load_datalist(test)}
    shown = {}
    for name in _worst(network):
        case, item = network.cases[name], files[name]
        mask = masks / f"{stem(item['image'])}_lesion.nii.gz"
        title = f"{stem(name)}, {case['true_volume_ml']:.1f} mL\nDSC {case['dsc']:.2f}"
        shown[title] = (_voxels(item["image"]), _voxels(item["label"]), _voxels(mask))
    save_montage(shown, path)
    shrink(path, width=900)


def _save_pictures(networks: Mapping[str, Tested], comparison: Path, test: Path, docs: Path) -> dict[str, str]:
    """Writes them; the sentence under each by its file's name."""
    shipped, ours = networks[SHIPPED], networks["tsrl_net"]
    sentences = {"results_dsc.png": "DSC of the simulated cases: quartiles, and the mean as a dot."}
    dsc = {network.title: network.metric("dsc") for network in networks.values()}
    save_dsc_boxes(dsc, docs / "results_dsc.png", _CASE)
    if "agmr_net" in networks:
        other = networks["agmr_net"]
        recalls = ours.metric("recall"), other.metric("recall")
        save_recall_pairs(*recalls, (ours.title, other.title), docs / "results_recall.png", _CASE)
        sentences["results_recall.png"] = _recall_sentence(networks)
    sentences["results_volume.png"] = f"DSC of {shipped.title}, against the volume of the simulated lesions of a case."
    save_dsc_by_volume(shipped.metric("true_volume_ml"), shipped.metric("dsc"), docs / "results_volume.png")
    if _worst(shipped):
        _save_worst(shipped, comparison / SHIPPED / "test" / "masks", test, docs / "results_worst.png")
        sentences["results_worst.png"] = f"The worst simulated cases of {shipped.title}, over {_WORST_FROM_ML:g} mL."
    return sentences


def results(comparison: str, docs: str = "docs", test: str | None = None) -> None:
    """Writes DOCS/results.md and DOCS/results_*.png from what scripts.thesis.compare left.

    Args:
        comparison: the output folder of scripts.thesis.compare.
        docs: the folder to write to.
        test: the folder of the test cases, for the pictures; where they were at the evaluation unless given.
    """
    source, target = Path(comparison), Path(docs)
    networks = _read(source)
    plan = json.loads((source / "comparison.json").read_text())
    first = read_rows(source / "tsrl_net" / "test" / "cases.csv")[0]["case"]
    target.mkdir(parents=True, exist_ok=True)
    pictures = _save_pictures(networks, source, Path(test) if test else Path(first).parents[1], target)
    write_atomically(_page(networks, plan, pictures), target / "results.md")
    print(f"{len(networks)} networks: {target / 'results.md'}")


if __name__ == "__main__":
    run_command(results)
