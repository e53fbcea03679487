"""An uncurated folder: real heads in every orientation and of many voxel sizes, and files that are not a head."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt
from nibabel.processing import resample_from_to, resample_to_output

from bundle.data.simulate import load_head, simulate_case
from bundle.mni import TEMPLATE, atlas_grid, register_to_mni
from tests.test_checks import with_header

_ALL = ["".join(codes) for order in permutations(("RL", "AP", "SI")) for codes in product(*order)]
ORIENTATIONS = _ALL[:: 48 // int(os.environ.get("BATCH_ORIENTATIONS", "48"))]
"""Of the 48 orders and directions of the axes, "RAS" the first; CI takes a few of them."""

SPACINGS_MM = ((0.7, 0.7, 0.7), (1.0, 1.0, 1.0), (1.5, 1.5, 1.5), (1.0, 1.0, 3.0))

NAMES = (
    "plain.nii",
    "plain.nii.gz",
    "elsewhere/plain.nii.gz",
    'with spaces/o\'brien "Müller" 頭.nii.gz',
    "/".join(["a long way down to the scan of this patient"] * 6) + "/" + "n" * 60 + ".nii.gz",
    "bids/dataset_of/sub-01/anat/sub-01_T1w.nii.gz",
    "bids/dataset_of/sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
)
"""One volume under many names: two of one stem, one path of over 300 characters, subjects of a BIDS dataset."""

WriteBad = Callable[[Path, np.ndarray], None]


def _save(voxels: np.ndarray, file: Path, spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0)) -> None:
    image = nib.Nifti1Image(voxels, np.diag([*spacing_mm, 1.0]))
    image.set_sform(image.affine, 1)
    nib.save(image, file)


def _header(**fields: object) -> WriteBad:
    def write(file: Path, head: np.ndarray) -> None:
        _save(head, file)
        with_header(file, **fields)

    return write


def _changed(change: Callable[[np.ndarray], np.ndarray], spacing_mm: tuple = (2.0, 2.0, 2.0)) -> WriteBad:
    return lambda file, head: _save(change(head), file, spacing_mm)


def _bytes(change: Callable[[bytes], bytes]) -> WriteBad:
    def write(file: Path, head: np.ndarray) -> None:
        _save(head, file)
        file.write_bytes(change(file.read_bytes()))

    return write


def _one_voxel(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(head: np.ndarray) -> np.ndarray:
        voxels = head.astype(np.float32)
        voxels[40, 50, 30] = value
        return voxels

    return change


def _bomb(file: Path, head: np.ndarray) -> None:
    """A few megabytes that unpack to 5 GiB; each gzip member is read on after the last."""
    member = gzip.compress(bytes(1 << 26))
    file.write_bytes(member * 80)


def _noise(head: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).integers(1, 1000, head.shape, dtype=np.int16)


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
BAD: dict[str, tuple[WriteBad, str]] = {
    "four_d.nii": (_changed(lambda head: np.stack([head] * 3, -1)), "holds 3 volumes (4D)"),
    "flat.nii": (_changed(lambda head: head[:, :, 30]), "one 3D volume is expected"),
    "colours.nii": (_changed(lambda head: np.zeros(head.shape, RGB)), "has colours (RGB)"),
    "complex.nii": (_changed(lambda head: head.astype(np.complex64)), "has complex64 voxels"),
    "empty.nii.gz": (lambda file, head: file.touch(), "is empty (0 bytes)"),
    "cut.nii.gz": (_bytes(lambda content: content[: len(content) // 2]), "is a damaged gzip file"),
    "rotten.nii.gz": (
        _bytes(lambda content: content[:-9] + struct.pack("B", content[-9] ^ 1) + content[-8:]),
        "is a damaged gzip file",
    ),
    "text.nii": (lambda file, head: file.write_text("not an image at all" * 99) and None, "is not an image"),
    "zero_spacing.nii": (_header(pixdim=[1, 2, 2, 0, 0, 0, 0, 0]), "its header is damaged"),
    "negative_spacing.nii": (_header(pixdim=[1, 2, 2, -2, 0, 0, 0, 0]), "its header is damaged"),
    "nan_spacing.nii": (_header(pixdim=[1, 2, 2, np.nan, 0, 0, 0, 0]), "its header is damaged"),
    "singular.nii": (_header(srow_z=[0, 0, 0, 5]), "has an affine that cannot be inverted"),
    "no_orientation.nii": (_header(sform_code=0, qform_code=0), "does not give its orientation"),
    "nan_voxel.nii": (_changed(_one_voxel(np.nan)), "has 1 NaN or infinite voxels"),
    "infinite_voxel.nii": (_changed(_one_voxel(np.inf)), "has 1 NaN or infinite voxels"),
    "constant.nii": (_changed(lambda head: np.full_like(head, 7)), "is constant (every voxel is 7)"),
    "ct.nii": (_changed(lambda head: np.where(head > 0, head, -1000).astype(np.int16)), "looks like CT"),
    "seven_slices.nii": (_changed(lambda head: head[:, :, 30:37], (2.0, 2.0, 5.0)), "has 7 slices"),
    "thick.nii": (_changed(lambda head: head[:, :, ::4], (2.0, 2.0, 8.0)), "has slices of 8 mm"),
    "tiny.nii": (
        _changed(lambda head: head[30:50, 30:50, 30:50]),
        "a whole brain, at least 80 mm each way, is expected",
    ),
    "enormous.nii": (
        _changed(lambda head: head, (6.0, 6.0, 6.0)),
        "a single head, at most 512 mm each way, is expected",
    ),
    "too_many_voxels.nii": (
        _header(dim=[3, 5000, 5000, 4000, 1, 1, 1, 1], pixdim=[1] + [0.1] * 3 + [0] * 4, sform_code=0, qform_code=1),
        "at most 134 million are read",
    ),
    "bomb.nii.gz": (_bomb, "unpacks to more than 4 GiB"),
    "noise.nii": (_changed(_noise), "could not be placed in MNI space"),
    "gone.nii.gz": (lambda file, head: file.symlink_to("nowhere.nii.gz"), "does not exist"),
    "pipe.nii": (lambda file, head: os.mkfifo(file), "is empty (0 bytes)"),
}
"""Files that are not a T1w head, by name: how each is made from a head of 2 mm voxels, and its error message."""


def _on_atlas(stroke: nib.Nifti1Image) -> nib.Nifti1Image:
    """A native head in MNI space, on a grid of 2 mm."""
    placement = register_to_mni(stroke.get_fdata(dtype=np.float32), stroke.affine)
    affine, shape = atlas_grid(2.0)
    placed = nib.Nifti1Image(stroke.get_fdata(dtype=np.float32), placement.affine @ stroke.affine)
    return resample_from_to(placed, (shape, affine), order=1)


def _stored(image: nib.Nifti1Image, file: Path) -> None:
    whole = nib.Nifti1Image(np.asarray(image.dataobj).round().astype(np.int16), image.affine)
    whole.set_sform(image.affine, 1)
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(whole, file)


def write_scans(folder: Path, shared_data: Path) -> None:
    """Writes the folder: orientations, 7 names, 4 spacings, 2 healthy heads, a simulated lesion and all that is bad."""
    stroke = nib.load(shared_data / "t1_stroke" / "arc_sub-M2017_T1w_nomask.nii.gz")
    placed = _on_atlas(stroke)
    for codes in ORIENTATIONS:
        _stored(placed.as_reoriented(_from_ras(codes)), folder / "orientations" / f"{codes}.nii.gz")
    for name in NAMES:
        _stored(placed, folder / name)
    for spacing_mm in SPACINGS_MM:
        name = "spacings/" + "_".join(f"{size:g}" for size in spacing_mm) + ".nii.gz"
        _stored(resample_to_output(stroke, spacing_mm, order=1), folder / name)
    healthy = folder / "healthy"
    healthy.mkdir()
    for name in ("niivue_norm_fs.mgz", "allineate_T1w2mm.nii.gz"):
        shutil.copy(shared_data / "t1_healthy" / name, healthy)
    case = simulate_case(load_head(str(TEMPLATE)), np.random.default_rng(1), volume_ml=35.0)
    # The template's white matter is at 1, which whole numbers would lose.
    for array, name in ((1000 * case.image, "simulated/scan.nii.gz"), (case.label, "../truth.nii.gz")):
        _stored(nib.Nifti1Image(array.astype(np.float32), atlas_grid()[0]), folder / name)
    _write_bad(folder / "bad", np.asarray(placed.dataobj).round().astype(np.int16))


def _from_ras(codes: str) -> np.ndarray:
    return nib.orientations.ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))


def _write_bad(folder: Path, head: np.ndarray) -> None:
    folder.mkdir()
    (folder / "loop").symlink_to(folder)
    (folder / "a folder.nii.gz").mkdir()
    for name, (write, _) in BAD.items():
        write(folder / name, head)


def good_names() -> Iterator[str]:
    """The files that hold a head, relative to the folder."""
    yield from (f"orientations/{codes}.nii.gz" for codes in ORIENTATIONS)
    yield from NAMES
    yield from ("spacings/" + "_".join(f"{size:g}" for size in spacing) + ".nii.gz" for spacing in SPACINGS_MM)
    yield from ("healthy/niivue_norm_fs.mgz", "healthy/allineate_T1w2mm.nii.gz", "simulated/scan.nii.gz")
