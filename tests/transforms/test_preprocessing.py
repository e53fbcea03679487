"""From a file to the network's voxels and back, and the errors for unusable files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Compose, Invertd, LoadImaged
from scipy import ndimage

from bundle.errors import explain
from bundle.mni import head_mask
from bundle.transforms import VolumePreprocessing

WriteNifti = Callable[..., Path]
LESION_CENTRE = (28, 62, 66)  # voxel of the synthetic head, away from all its axes of symmetry
BORDER = (110 + 300) / 2 / 300  # half-way from white matter to the blob, relative to the blob


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def ball(shape: tuple[int, ...], affine: np.ndarray, centre_mm: np.ndarray, radius_mm: float) -> np.ndarray:
    """The voxels of a grid whose centres lie in a ball."""
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    inside: np.ndarray = np.linalg.norm(nib.affines.apply_affine(affine, voxels) - centre_mm, axis=-1) <= radius_mm
    return inside


@pytest.fixture
def lesioned(head: np.ndarray) -> nib.Nifti1Image:
    """The head with a blob of 16 mm radius, brighter than all the rest, at 2 mm with an origin of its own."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-80, -110, -70)
    head[ball(head.shape, affine, nib.affines.apply_affine(affine, LESION_CENTRE), 16)] = 300
    return nib.Nifti1Image(head, affine)


def found_in_source(preprocessing: VolumePreprocessing, file: Path) -> torch.Tensor:
    """The blob after preprocessing, brought back to the file's grid."""
    data = preprocessing({"image": str(file)})
    data["pred"] = (data["image"] > BORDER * data["image"].max()).float()
    back = Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False)
    pred: torch.Tensor = back(data)["pred"]
    return pred


def test_it_begins_with_loading() -> None:
    assert isinstance(VolumePreprocessing().transforms[0], LoadImaged)


def test_an_image_in_memory_takes_the_loader_s_place(write_nifti: WriteNifti, head: np.ndarray) -> None:
    preprocessing = VolumePreprocessing("image", spacing_mm=2.5, slice_size=64)
    file = write_nifti("t1.nii.gz", head.astype(np.int16))
    expected = preprocessing({"image": str(file)})["image"]
    affine = torch.as_tensor(nib.load(file).affine)
    stored = MetaTensor(torch.from_numpy(head.astype(np.int32)), affine, {"original_channel_dim": "no_channel"})
    without_loader = Compose(preprocessing.transforms[1:])({"image": stored})["image"]
    loaded = preprocessing.after_loading({"image": MetaTensor(torch.from_numpy(head)[None], affine)})["image"]
    for result in (without_loader, loaded):
        assert result.dtype == torch.float32
        assert torch.equal(result.as_tensor(), expected.as_tensor())


@pytest.mark.parametrize("box", ["brain", "thesis_180", "thesis_192"])
@pytest.mark.parametrize("slice_size", [64, 112])
def test_slices_have_the_size_asked_for_whatever_the_box(
    write_nifti: WriteNifti, head: np.ndarray, box: str, slice_size: int
) -> None:
    files = {
        "image": str(write_nifti("t1.nii.gz", head)),
        "label": str(write_nifti("mask.nii.gz", np.uint8(head < 23))),
    }
    result = VolumePreprocessing(spacing_mm=2, box=box, slice_size=slice_size)(files)
    for key in ("image", "label"):
        assert result[key].shape == (1, slice_size, slice_size, 100)
        assert result[key].dtype == torch.float32
    assert result["label"].unique().tolist() == [0, 1]


def test_voxels_get_the_spacing_asked_for(write_nifti: WriteNifti, head: np.ndarray) -> None:
    result = VolumePreprocessing("image", spacing_mm=4, slice_size=64)({"image": str(write_nifti("t1.nii", head))})
    assert result["image"].pixdim.tolist() == pytest.approx([4, 4, 4])
    assert abs(result["image"].shape[3] - 50) <= 1


def test_the_head_s_median_is_1_and_its_outside_0(write_nifti: WriteNifti, head: np.ndarray) -> None:
    file = write_nifti("t1.nii", head * 13)
    image = VolumePreprocessing("image", spacing_mm=2, slice_size=112)({"image": str(file)})["image"]
    assert float(image[image > 0].median()) == pytest.approx(1, abs=0.03)
    assert (image == 0).float().mean() > 0.5


def boxed(write_nifti: WriteNifti, preprocessing: VolumePreprocessing, x: range, y: range) -> tuple[bool, bool]:
    """Whether the result has voxels inside ranges of the ATLAS grid alone, and those of all four borders."""
    places = dict(zip("xy", np.meshgrid(np.arange(197), np.arange(233), np.arange(8), indexing="ij"), strict=False))
    head = (abs(places["x"] - 98) < 80) & (abs(places["y"] - 116) < 100)
    image = np.where(head, 100 + (3 * places["x"] + 5 * places["y"]) % 11, 0).astype(np.float32)
    inside = np.isin(places["x"], x) & np.isin(places["y"], y)
    edge = inside & (np.isin(places["x"], (x[0], x[-1])) | np.isin(places["y"], (y[0], y[-1])))
    found = []
    for name, label in (("inside", inside), ("edge", edge)):
        files = {
            "image": write_nifti("t1.nii", image, np.eye(4)),
            "label": write_nifti(name + ".nii", label.astype("u1"), np.eye(4)),
        }
        found.append(preprocessing({key: str(file) for key, file in files.items()})["label"][0])
    border = torch.cat([found[1][0], found[1][-1], found[1][:, 0], found[1][:, -1]])
    return bool(found[0].all()), bool(border.all())


@pytest.mark.parametrize(
    ("box", "slice_size", "x", "y"),
    [
        ("thesis_180", 192, range(10, 190), range(40, 220)),  # D-UNet's code
        ("thesis_180", 180, range(10, 190), range(40, 220)),
        ("thesis_192", 192, range(2, 194), range(20, 212)),  # 98 - 96 and 116 - 96 on
    ],
)
def test_a_box_of_the_thesis_holds_these_voxels(
    write_nifti: WriteNifti, box: str, slice_size: int, x: range, y: range
) -> None:
    preprocessing = VolumePreprocessing(box=box, slice_size=slice_size)
    assert boxed(write_nifti, preprocessing, x, y) == (True, True)


def test_d_unet_s_box_is_the_same_millimetres_at_other_voxel_sizes(write_nifti: WriteNifti) -> None:
    preprocessing = VolumePreprocessing(box="thesis_180", spacing_mm=2.0, slice_size=90)
    assert boxed(write_nifti, preprocessing, range(10, 189), range(40, 219)) == (True, True)


@pytest.mark.parametrize("box", ["brain", "thesis_180", "thesis_192"])
def test_image_and_label_stay_on_each_other(write_nifti: WriteNifti, lesioned: nib.Nifti1Image, box: str) -> None:
    head = lesioned.get_fdata(dtype=np.float32)
    files = {
        "image": str(write_nifti("t1.nii", head, lesioned.affine)),
        "label": str(write_nifti("mask.nii", (head == 300).astype(np.uint8), lesioned.affine)),
    }
    result = VolumePreprocessing(spacing_mm=2.5, box=box, slice_size=144)(files)
    image, label = (result[key][0].numpy() for key in ("image", "label"))
    assert np.unique(label).tolist() == [0, 1]
    assert dice(image > BORDER * image.max(), label > 0) > 0.945


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "LAS", "RSP", "PIR", "SLA"])
def test_a_mask_goes_back_exactly_for_any_stored_axis_order(
    tmp_path: Path, lesioned: nib.Nifti1Image, axcodes: str
) -> None:
    orientation = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(lesioned.affine), nib.orientations.axcodes2ornt(axcodes)
    )
    stored = lesioned.as_reoriented(orientation)
    assert "".join(nib.aff2axcodes(stored.affine)) == axcodes
    file = tmp_path / f"{axcodes}.nii"
    nib.save(stored, file)

    pred = found_in_source(VolumePreprocessing("image", spacing_mm=2, slice_size=112), file)
    assert pred.shape == (1, *stored.shape)
    np.testing.assert_allclose(pred.affine.numpy(), stored.affine, atol=1e-4)
    np.testing.assert_array_equal(pred[0].numpy() > 0.5, stored.get_fdata() == 300)


@pytest.mark.parametrize("box", ["brain", "thesis_180"])
def test_a_mask_goes_back_to_an_oblique_anisotropic_grid(tmp_path: Path, lesioned: nib.Nifti1Image, box: str) -> None:
    tilt, turn = np.deg2rad(12), np.deg2rad(-9)
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    shape = (230, 250, 68)
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.diag([-0.9, 0.9, 3.0])  # left to right, and oblique
    middle_mm = nib.affines.apply_affine(lesioned.affine, (40, 52, 55))
    affine[:3, 3] = middle_mm - affine[:3, :3] @ (np.array(shape) / 2)

    to_head = np.linalg.inv(lesioned.affine) @ affine
    head = ndimage.affine_transform(lesioned.get_fdata(dtype=np.float32), to_head, output_shape=shape, order=1)
    lesion = ball(shape, affine, nib.affines.apply_affine(lesioned.affine, LESION_CENTRE), 16)
    file = tmp_path / "oblique.nii"
    nib.save(nib.Nifti1Image(np.where(lesion, 300, np.minimum(head, 110)).astype(np.float32), affine), file)

    pred = found_in_source(VolumePreprocessing("image", spacing_mm=1.5, box=box, slice_size=160), file)
    assert pred.shape == (1, *shape)
    np.testing.assert_allclose(pred.affine.numpy(), affine, atol=1e-4)
    assert dice(pred[0].numpy() > 0.5, lesion) > 0.98


@pytest.mark.parametrize(
    "name", ["allineate_T1w2mm.nii.gz", "nibabel_someones_anatomy_2p75mm.nii.gz", "nii2mesh_bet.nii.gz"]
)
def test_a_real_head_is_found_and_goes_back_to_its_place(shared_data: Path, name: str) -> None:
    file = shared_data / "t1_healthy" / name
    preprocessing = VolumePreprocessing("image", spacing_mm=2, slice_size=128)  # wider than any head
    data = preprocessing({"image": str(file)})
    data["pred"] = (data["image"] > 0).float()
    back = Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False)(data)["pred"]

    source = nib.load(file)
    np.testing.assert_allclose(back.affine.numpy(), source.affine, atol=1e-3)
    assert dice(back[0].numpy() > 0.5, head_mask(source.get_fdata(dtype=np.float32))) > 0.95


def test_mgz_gives_the_same_as_nifti(tmp_path: Path, lesioned: nib.Nifti1Image) -> None:
    stored = lesioned.as_reoriented(nib.orientations.axcodes2ornt("LIA"))  # FreeSurfer's order
    nib.save(nib.MGHImage(stored.get_fdata(dtype=np.float32), stored.affine), tmp_path / "t1.mgz")
    nib.save(stored, tmp_path / "t1.nii.gz")
    preprocessing = VolumePreprocessing("image", spacing_mm=2, slice_size=112)
    mgz, nifti = (preprocessing({"image": str(tmp_path / name)})["image"] for name in ("t1.mgz", "t1.nii.gz"))
    torch.testing.assert_close(mgz.as_tensor(), nifti.as_tensor())
    torch.testing.assert_close(mgz.affine, nifti.affine)


def test_a_second_call_gives_the_same(write_nifti: WriteNifti, head: np.ndarray) -> None:
    first, second = write_nifti("a.nii", head), write_nifti("b.nii", np.roll(head, 6, axis=0))
    preprocessing = VolumePreprocessing("image", spacing_mm=2, slice_size=96)
    before = preprocessing({"image": str(first)})["image"]
    preprocessing({"image": str(second)})
    assert torch.equal(preprocessing({"image": str(first)})["image"].as_tensor(), before.as_tensor())


def test_equal_settings_have_equal_text() -> None:
    assert repr(VolumePreprocessing()) == repr(VolumePreprocessing(("image", "label"), 1.0, "brain", 192))
    assert repr(VolumePreprocessing("image")) == repr(VolumePreprocessing(["image"]))


@pytest.mark.parametrize(
    "other",
    [
        {"keys": "image"},
        {"spacing_mm": 2.0},
        {"box": "thesis_180"},
        {"box": "thesis_192"},
        {"slice_size": 96},
        {"space": "mni"},
    ],
)
def test_other_settings_have_another_text(other: dict) -> None:
    assert repr(VolumePreprocessing(**other)) != repr(VolumePreprocessing())


def test_a_mistyped_box_is_refused_and_the_right_one_named() -> None:
    with pytest.raises(ValueError, match="did you mean 'brain'"):
        VolumePreprocessing(box="brian")


def test_a_mistyped_space_is_refused_and_the_right_one_named() -> None:
    with pytest.raises(ValueError, match="did you mean 'native'"):
        VolumePreprocessing(space="nativ")


def why_not(file: Path) -> str:
    """What the user reads about a file that cannot be preprocessed."""
    with pytest.raises(Exception) as caught:  # MONAI wraps; explain() sees through it
        VolumePreprocessing("image", spacing_mm=2, slice_size=64)({"image": str(file)})
    sentence = explain(file, caught.value)
    assert "\n" not in sentence
    return sentence


def test_a_4d_file_is_refused(write_nifti: WriteNifti, head: np.ndarray) -> None:
    file = write_nifti("4d.nii", np.stack([head, head, head], axis=-1))
    assert why_not(file) == f"{file} holds 3 volumes (4D): one 3D volume is expected."


def test_a_2d_file_is_refused(write_nifti: WriteNifti, head: np.ndarray) -> None:
    file = write_nifti("2d.nii", head[:, :, 50])
    assert why_not(file) == f"{file} has shape {head.shape[:2]}: one 3D volume is expected."


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_file_with_voxels_that_are_no_number_is_refused(
    write_nifti: WriteNifti, head: np.ndarray, value: float
) -> None:
    head[40, 50, 60:62] = value
    file = write_nifti("nan.nii", head)
    assert why_not(file) == f"{file} has 2 NaN or infinite voxels: an image of finite numbers is expected."


def test_a_constant_file_is_refused(write_nifti: WriteNifti) -> None:
    file = write_nifti("constant.nii", np.full((20, 20, 20), 5, dtype=np.int16))
    assert why_not(file) == f"{file} is constant (every voxel is 5): it holds no image."


def test_a_file_without_head_is_refused(write_nifti: WriteNifti) -> None:
    image = np.zeros((30, 30, 30), dtype=np.float32)
    image[::6, ::6, ::6] = np.arange(1, 126).reshape(5, 5, 5)
    file = write_nifti("speck.nii", image)
    assert why_not(file) == f"{file} shows no head: nothing is brighter than its background."


def test_a_truncated_gzip_file_is_refused(write_nifti: WriteNifti, head: np.ndarray) -> None:
    file = write_nifti("cut.nii.gz", head)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert why_not(file) == (
        f"{file} is a damaged gzip file (Compressed file ended before the end-of-stream marker was reached): "
        "copy or export it again."
    )


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert why_not(tmp_path / "none.nii.gz") == f"{tmp_path / 'none.nii.gz'} does not exist."


def test_a_text_file_is_refused_as_gzip(tmp_path: Path) -> None:
    file = tmp_path / "note.nii.gz"
    file.write_text("no image")
    assert why_not(file) == f"{file} is not compressed by gzip, although its name says so: copy or export it again."


def test_a_text_file_is_refused_as_image(tmp_path: Path) -> None:
    file = tmp_path / "note.nii"
    file.write_text("no image")
    assert why_not(file).startswith(f"{file} ")
    assert "NIfTI (.nii, .nii.gz) or MGH (.mgz) is expected" in why_not(file)


def test_an_affine_that_cannot_be_inverted_is_refused(tmp_path: Path, head: np.ndarray) -> None:
    header = nib.Nifti1Image(head, np.diag([2, 2, 2, 1])).header
    header["srow_y"], header["srow_z"] = (0, 2, 2, 0), 0  # slices and rows in the same direction
    header["sform_code"], header["qform_code"] = 1, 0
    file = tmp_path / "flat.nii"
    nib.save(nib.Nifti1Image(head, None, header), file)
    assert np.linalg.det(nib.load(file).affine) == 0
    assert why_not(file) == f"{file} has an affine that cannot be inverted: its header is damaged."


@pytest.mark.parametrize("space", ["native", "mni"])
def test_a_name_beside_the_image_is_not_taken_for_its_metadata(
    space: str, write_nifti: WriteNifti, head: np.ndarray
) -> None:
    """MONAI Label's requests hold ``image_path``."""
    file = str(write_nifti("t1.nii", head))
    prepare = VolumePreprocessing("image", spacing_mm=4, slice_size=64, space=space, on_failure="native")
    asked = prepare({"image": file, "image_path": file})
    assert asked["image_path"] == file
    assert torch.equal(asked["image"], prepare({"image": file})["image"])
