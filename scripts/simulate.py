"""Simulated chronic strokes in real heads, as a training folder: ``python -m scripts.simulate HEADS OUTPUT``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.errors import InputError
from bundle.files import read_json, write_json
from scripts.command import run_command

if TYPE_CHECKING:
    from bundle.data.simulate.parts import Part

__all__ = ["simulate"]

_SHOWN = 12


def simulate(
    heads: Sequence[str],
    output: str,
    masks: Sequence[str] | None = None,
    cases: int = 100,
    seed: int = 0,
    part: Part = "training",
    test_heads: Sequence[str] = (),
    test_masks: float = 0.2,
    healthy: float = 0.0,
    further_lesions: float = 0.0,
    workers: int = 2,
    heads_cache: str | None = None,
    split: str | None = None,
    varied: bool = False,
) -> None:
    """Write OUTPUT/images, labels, records (what was done, per case), simulation.json, montage.png and volumes.png.

    The lesions are simulated: nothing measured on them says anything about patients. The same seed, heads and masks
    give the same files, byte for byte. No head and no mask of the training part is ever in another. The same command
    continues after a stop; with another seed or other settings another OUTPUT is needed.

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
        further_lesions: mean number per case of small additional lesions of 0.1 to 6 mL; for training, not to measure.
        workers: processes.
        heads_cache: where the registered heads are kept; OUTPUT/heads unless given.
        split: a JSON file such as configs/simulation_split.json, with the heads of each part, those in which no lesion
            is simulated, and the shares of the masks; instead of test_heads and test_masks.
        varied: each case has a head shape, lesions, look-alikes, contrast, acquisition and placement of its own.
    """
    from bundle.data import find_images
    from bundle.data.simulate import LesionMasks, SimulatedCases, load_heads
    from bundle.data.simulate.cohort import write_cases
    from bundle.data.simulate.parts import heads_of, lookalike_heads, masks_of

    target, file = Path(output), Path(output) / "simulation.json"
    head_files = heads_of(part, find_images(heads), test_heads, split)
    mask_files = [] if masks is None else masks_of(part, find_images(masks), test_masks, split)
    settings: dict[str, Any] = {"seed": seed, "part": part, "count": cases, "healthy": healthy}
    settings |= {"further_lesions": further_lesions, "varied": varied}
    settings |= {"heads": _names(head_files), "masks": _names(mask_files)}
    begun = _is_begun(settings, file)
    loaded = load_heads(head_files, heads_cache or target / "heads", workers, lookalike_heads=lookalike_heads(split))
    bank = None if masks is None else LesionMasks(mask_files)
    simulated = SimulatedCases(loaded, bank, cases, seed, healthy, further_lesions, varied=varied)
    write_json({**settings, "cases": []}, file)  # so that a stopped simulation has its settings
    records = write_cases(simulated, target, workers, keep=begun)
    write_json({**settings, "cases": records}, file)
    _show(records, target)
    print(f"{len(records)} simulated cases are in {target}; look at montage.png and volumes.png there.")


def _names(files: Sequence[str]) -> list[str]:
    return [Path(file).name for file in files]


def _is_begun(settings: Mapping[str, Any], file: Path) -> bool:
    """Return whether a folder holds cases of the same settings; an earlier version wrote only the first two of them.

    Raises:
        InputError: when it holds cases of other settings, or they cannot be read.
    """
    if not file.exists():
        return False
    earlier = read_json(file)
    if not isinstance(earlier, Mapping) or "seed" not in earlier:
        raise InputError(
            f"{file} does not hold the settings of simulated cases, such as their seed: choose another folder, or "
            "remove the file to simulate all of them again."
        )
    if changed := [name for name, value in settings.items() if earlier.get(name, value) != value]:
        raise InputError(
            f"{file.parent} holds simulated cases of seed {earlier['seed']} with other {', '.join(changed)}: choose "
            f"another folder, repeat the settings in {file}, or remove the folder to replace its cases."
        )
    return True


def _show(records: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Draw the volumes of all cases with lesion, and the first twelve of the cases."""
    import nibabel as nib
    import numpy as np

    from bundle.data.simulate import ATLAS_QUANTILES_ML
    from bundle.volumes.picture import save_lesion_overview, save_volume_distribution

    volumes_ml = {record["name"]: record["volume_ml"] for record in records if record["volume_ml"] > 0}
    if not volumes_ml:
        return
    save_volume_distribution([*volumes_ml.values()], ATLAS_QUANTILES_ML, output / "volumes.png")
    shown = {}
    for name in [*volumes_ml][:_SHOWN]:
        files = (output / folder / f"{name}.nii.gz" for folder in ("images", "labels"))
        image, label = (np.asarray(nib.load(file).dataobj) for file in files)
        shown[f"{name}, {volumes_ml[name]:.1f} mL"] = (image, label)
    save_lesion_overview(shown, output / "montage.png")


if __name__ == "__main__":
    run_command(simulate)
