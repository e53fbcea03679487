"""Simulated chronic lesions in real heads, as a training folder: ``python -m scripts.simulate HEADS OUTPUT``."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import fire
import nibabel as nib
import numpy as np
from scipy import ndimage
from tqdm import tqdm

from bundle.data.brain import brain_mask
from bundle.data.datalists import find_images
from bundle.data.simulate import simulate_lesions
from bundle.errors import InputError, print_input_errors_as_sentences
from bundle.transforms import VolumePreprocessing

__all__ = ["simulate"]

# A head's median as an integer, so that images are stored as int16.
_UNIT = 1000


def _load(head: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A head at 1 mm, its brain mask and its affine."""
    image = VolumePreprocessing(keys="image")({"image": head})["image"]
    volume = image[0].numpy()
    return volume, brain_mask(volume), image.affine.numpy()


def _write_case(number: int, loaded: dict[str, tuple], output: Path, seed: int) -> dict:
    rng = np.random.default_rng((seed, number))
    name = f"sim_{number:04d}"
    head = sorted(loaded)[number % len(loaded)]
    volume, brain, affine = loaded[head]
    image, label = simulate_lesions(volume, rng, brain)
    stripped = bool(rng.random() < 0.5)
    if stripped:
        image = image * ndimage.binary_dilation(brain, iterations=int(rng.integers(0, 3)))
    for folder, data in (("images", np.round(image * _UNIT).astype(np.int16)), ("labels", label)):
        path = output / folder / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(data, affine), path)
    return {"name": name, "head": Path(head).name, "skull_stripped": stripped, "volume_ml": int(label.sum()) / 1000}


def simulate(heads: str, output: str, cases: int = 100, seed: int = 0, workers: int = 2) -> None:
    """Writes OUTPUT/images, OUTPUT/labels and OUTPUT/simulation.json; the same seed gives the same cases.

    The lesions are simulated: nothing measured on them says anything about patients.

    Args:
        heads: a folder of T1w heads, or one head; whole or skull-stripped, in any orientation.
        output: the folder to write to.
        cases: how many; they take turns with the heads.
        seed: of the randomness.
        workers: processes.
    """
    files = find_images(heads)
    target = Path(output)
    with ProcessPoolExecutor(workers) as pool:
        loaded = dict(zip(files, tqdm(pool.map(_load, files), total=len(files), desc="heads"), strict=True))
        write = partial(_write_case, loaded=loaded, output=target, seed=seed)
        done = list(tqdm(pool.map(write, range(cases), chunksize=4), total=cases, desc="cases"))
    (target / "simulation.json").write_text(json.dumps({"seed": seed, "cases": done}, indent=1))
    print(f"{len(done)} simulated cases are in {target}.")


if __name__ == "__main__":
    print_input_errors_as_sentences()
    try:
        fire.Fire(simulate)
    except InputError as error:
        raise SystemExit(f"Error: {error}") from None
