"""The share of real lesion voxels that each in-plane box cuts off: ``python -m benchmarks.boxes MASKS``.

MASKS is a folder of lesion masks in MNI space, such as the SOOP masks. Each is resampled to the MNI head; a voxel
outside the box can never be found.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from tqdm import tqdm

from scripts.command import run_command

__all__ = ["boxes"]


def boxes(masks: str, count: int = 200) -> None:
    """Print, for each box, the share of lesion voxels outside it and the share of cases that lose any.

    Args:
        masks: a folder of lesion masks in MNI space.
        count: how many of them, evenly spread over the folder.
    """
    import torch
    from monai.transforms import ResizeWithPadOrCrop, SpatialCrop

    from bundle.data import find_images
    from bundle.mni import TEMPLATE
    from bundle.transforms import BrainBox, NormalizeHeadIntensity

    head = nib.load(TEMPLATE)
    image = NormalizeHeadIntensity()(torch.from_numpy(head.get_fdata(dtype=np.float32))[None])
    brain = BrainBox((192, 192))
    start, end = brain.compute_bounding_box(image)
    cuts = {
        "thesis_180, fixed": SpatialCrop(roi_start=(10, 40, 0), roi_end=(190, 220, image.shape[3])),
        "thesis_192, centred": ResizeWithPadOrCrop((192, 192, -1)),
        "brain, 192": lambda mask: brain.crop_pad(mask, start, end),
    }
    files = find_images(Path(masks))
    files = files[:: max(len(files) // count, 1)][:count]
    lost: dict[str, list[tuple[float, float]]] = {name: [] for name in cuts}
    for file in tqdm(files):
        mask = torch.from_numpy(resample_from_to(nib.load(file), head, order=0).get_fdata(dtype=np.float32) > 0)[None]
        total = float(mask.sum())
        for name, cut in cuts.items():
            lost[name].append((total - float(cut(mask).sum()), total))
    for name, pairs in lost.items():
        outside, total = np.array(pairs).T
        share, cases = outside.sum() / total.sum(), (outside > 0).mean()
        print(f"{name:<20} {share:8.3%} of the lesion voxels, in {cases:.1%} of {len(pairs)} cases")


if __name__ == "__main__":
    run_command(boxes)
