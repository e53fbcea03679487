"""Simulated chronic strokes in real heads, as a training folder: ``python -m scripts.simulate HEADS OUTPUT``."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.utils import ensure_tuple
from tqdm import tqdm

from bundle.data.datalists import find_images
from bundle.data.simulate import ATLAS_QUANTILES_ML, LesionMasks, SimulatedCases, load_heads
from bundle.data.simulate.parts import Part, heads_of, lookalike_heads, masks_of
from bundle.files import replacing, write_json
from bundle.processes import begin_worker
from bundle.transforms import atlas_grid
from bundle.volumes.picture import save_lesion_overview, save_volume_distribution
from scripts.command import run_command

__all__ = ["simulate"]

# The white matter mode as an integer, so that images are stored as int16.
_UNIT = 1000
_SHOWN = 12

_cases: SimulatedCases


def _prepare_worker(cases: SimulatedCases) -> None:
    global _cases
    _cases = cases
    begin_worker()


def _save(array: np.ndarray, path: Path) -> None:
    with replacing(path) as unfinished:
        nib.save(nib.Nifti1Image(array, atlas_grid()[0]), unfinished)


def _write_case(number: int, output: Path) -> dict[str, Any]:
    name = f"sim_{number:04d}"
    case = _cases[number]
    _save(np.round(case.image * _UNIT).clip(0, 32767).astype(np.int16), output / "images" / f"{name}.nii.gz")
    _save(case.label, output / "labels" / f"{name}.nii.gz")
    record = {"name": name, **case.record}
    write_json(record, output / "records" / f"{name}.json")
    return record


def _show(records: list[dict[str, Any]], output: Path) -> None:
    """Twelve cases and the volumes of all."""
    lesioned = [record for record in records if record["volume_ml"] > 0]
    if not lesioned:
        return
    volumes_ml = [record["volume_ml"] for record in lesioned]
    save_volume_distribution(volumes_ml, ATLAS_QUANTILES_ML, output / "volumes.png")
    shown = {}
    for record in lesioned[:_SHOWN]:
        image, label = (
            np.asarray(nib.load(output / folder / f"{record['name']}.nii.gz").dataobj)
            for folder in ("images", "labels")
        )
        shown[f"{record['name']}, {record['volume_ml']:.1f} mL"] = (image, label)
    save_lesion_overview(shown, output / "montage.png")


def simulate(
    heads: str | Sequence[str],
    output: str,
    masks: str | Sequence[str] | None = None,
    cases: int = 100,
    seed: int = 0,
    part: Part = "training",
    test_heads: str | Sequence[str] = (),
    test_masks: float = 0.2,
    healthy: float = 0.0,
    further_lesions: float = 0.0,
    workers: int = 2,
    heads_cache: str | None = None,
    split: str | None = None,
    varied: bool = False,
) -> None:
    """Writes OUTPUT/images, labels, records (what was done, per case), simulation.json, montage.png and volumes.png.

    The lesions are simulated: nothing measured on them says anything about patients. The same seed, heads and masks
    give the same files, byte for byte. No head and no mask of the training part is ever in another.

    Args:
        heads: folder or file, or several, of T1w heads (any space, whole or skull-stripped) or SynthSeg's label maps.
        output: the folder to write to.
        masks: folder or file, or several, of lesion masks in MNI space at 1 mm; without them shapes are procedural.
        cases: how many; they take turns with the heads.
        seed: of the randomness.
        part: "training", "test", or with a split also "validation" or "test_scans": which heads and masks are used.
        test_heads: shell patterns of file names; these heads are the test's, and so are all files of that person.
        test_masks: share of the masks that are the test's.
        healthy: share of the cases that get no lesion.
        further_lesions: small lesions of 0.1 to 6 mL on top, how many a case on average; for training, not to measure.
        workers: processes.
        heads_cache: where the registered heads are kept; OUTPUT/heads unless given.
        split: a JSON file that says which part each head is for, and the masks' shares, instead of test_heads and
            test_masks: configs/simulation_split.json. It names heads in which no lesion is simulated, too.
        varied: each case has a head shape, lesions, look-alikes, contrast, acquisition and placement of its own.
    """
    target = Path(output)
    files = heads_of(part, find_images(heads), ensure_tuple(test_heads), split)
    loaded = load_heads(files, heads_cache or target / "heads", workers, lookalike_heads=lookalike_heads(split))
    bank = None
    if masks is not None:
        bank = LesionMasks(masks_of(part, find_images(masks), test_masks, split))
    simulated = SimulatedCases(loaded, bank, cases, seed, healthy, further_lesions, varied=varied)
    records = []
    with ProcessPoolExecutor(workers, get_context("spawn"), _prepare_worker, (simulated,)) as pool:
        done = (pool.submit(_write_case, number, target) for number in range(cases))
        records = [future.result() for future in tqdm(list(done), desc="cases")]
    write_json({"seed": seed, "part": part, "cases": records}, target / "simulation.json")
    _show(records, target)
    print(f"{len(records)} simulated cases are in {target}; look at montage.png and volumes.png there.")


if __name__ == "__main__":
    run_command(simulate)
