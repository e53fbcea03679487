"""The slice stack inferer: the slices of each stack, what is computed and what is skipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from torch import nn

from bundle.inferers import AutocastInferer, SliceStackInferer
from bundle.networks import TSRLNet
from bundle.transforms import OFFSETS, Plane, StackSlices

HEIGHT, WIDTH = 4, 6
BASE = 32  # of the marker's code; slice numbers stay below it

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def marker(stacks: torch.Tensor) -> torch.Tensor:
    """One number for the slices of a stack: the digits to base 32 are their values, the first slice's the lowest."""
    weights = BASE ** torch.arange(stacks.shape[1], dtype=stacks.dtype)
    return (stacks * weights[:, None, None]).sum(dim=1, keepdim=True)


def decode(value: float, count: int = 4) -> list[int]:
    return [int(value) // BASE**place % BASE for place in range(count)]


class Recorder:
    """A network whose answer depends on where in the slice a pixel is, and on zeros is not zero; it counts."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
        self.place = rows + 10.0 * columns

    def __call__(self, stacks: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(stacks))
        weights = torch.tensor([1.0, 2.0, 3.0, 4.0]).to(stacks.dtype)[:, None, None]
        value = (stacks * weights).sum(dim=1, keepdim=True)
        return torch.cat([value * self.place + 7, -value], dim=1)


def numbered_volume(depth: int) -> torch.Tensor:
    """``(1, 1, H, W, D)`` whose voxels equal their slice's index, counted from 1, so that 0 means padding."""
    return torch.arange(1.0, depth + 1).expand(1, 1, HEIGHT, WIDTH, depth).clone()


def sparse_volume() -> torch.Tensor:
    """Of 20 slices 3, 4 and 12 are not empty, which makes 2..6 and 11..14 the ones whose stacks are not."""
    volume = torch.zeros(1, 1, HEIGHT, WIDTH, 20)
    generator = torch.Generator().manual_seed(0)
    for number in (3, 4, 12):
        volume[..., number] = torch.rand(HEIGHT, WIDTH, generator=generator)
    return volume


def slice_by_slice(volume: torch.Tensor, network: Callable, offsets: tuple[int, ...] = OFFSETS) -> torch.Tensor:
    """The plain loop that the inferer must equal: no batches, nothing skipped."""
    depth, answers = volume.shape[-1], []
    for number in range(depth):
        neighbours = [number + offset for offset in offsets]
        empty = torch.zeros_like(volume[0, 0, :, :, 0])
        stack = torch.stack([volume[0, 0, :, :, n] if 0 <= n < depth else empty for n in neighbours])
        answers.append(network(stack[None])[0])
    return torch.stack(answers, dim=-1)[None]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_each_stack_holds_two_slices_before_and_one_after_ends_included(batch_size: int) -> None:
    codes = SliceStackInferer(batch_size)(numbered_volume(7), marker)
    assert codes.shape == (1, 1, HEIGHT, WIDTH, 7)
    assert torch.equal(codes, codes[:, :, :1, :1].expand_as(codes))
    assert [decode(code) for code in codes[0, 0, 0, 0]] == [
        [0, 0, 1, 2],
        [0, 1, 2, 3],
        [1, 2, 3, 4],
        [2, 3, 4, 5],
        [3, 4, 5, 6],
        [4, 5, 6, 7],
        [5, 6, 7, 0],
    ]


@pytest.mark.parametrize("offsets", [(-1, 0, 1), (0,), (-4, -2, 0, 2), (1, 2)])
def test_other_offsets_are_used(offsets: tuple[int, ...]) -> None:
    volume = numbered_volume(6)
    assert torch.equal(SliceStackInferer(4, offsets)(volume, marker), slice_by_slice(volume, marker, offsets))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_output_equals_a_plain_loop_over_slices(batch_size: int) -> None:
    volume = torch.rand(1, 1, HEIGHT, WIDTH, 9)
    torch.testing.assert_close(SliceStackInferer(batch_size)(volume, Recorder()), slice_by_slice(volume, Recorder()))


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 10), (4, [1, 4, 4, 1]), (100, [1, 9])])
def test_empty_stacks_are_answered_by_one_and_the_output_is_the_same(batch_size: int, batches: list[int]) -> None:
    network, volume = Recorder(), sparse_volume()
    output = SliceStackInferer(batch_size)(volume, network)
    torch.testing.assert_close(output, slice_by_slice(volume, Recorder()), rtol=0, atol=0)
    assert network.batches == batches  # the empty one first; 9 stacks hold something
    assert (output[0, 0, :, :, 18] == 7).all()


def test_a_volume_of_zeros_costs_one_slice() -> None:
    network = Recorder()
    output = SliceStackInferer()(torch.zeros(1, 1, HEIGHT, WIDTH, 30), network)
    assert network.batches == [1]
    assert (output[:, 0] == 7).all()


def test_volumes_of_a_batch_do_not_mix() -> None:
    volumes = torch.cat([sparse_volume(), numbered_volume(20)])
    inferer = SliceStackInferer(batch_size=3)
    output = inferer(volumes, Recorder())
    assert output.shape == (2, 2, HEIGHT, WIDTH, 20)
    for number in range(2):
        assert torch.equal(output[number : number + 1], inferer(volumes[number : number + 1], Recorder()))


def test_a_second_call_equals_the_first_and_the_input_is_unchanged() -> None:
    volume = sparse_volume()
    before = volume.clone()
    inferer = SliceStackInferer(batch_size=4, tta_flips=[[0]])
    first = inferer(volume, Recorder())
    inferer(numbered_volume(5), Recorder())
    assert torch.equal(inferer(volume, Recorder()), first)
    assert torch.equal(volume, before)


def test_a_metatensor_stays_one_with_its_affine() -> None:
    affine = torch.tensor([[0, -2.0, 0, 5], [1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]]).double()
    volume = MetaTensor(sparse_volume(), affine=affine, meta={"filename_or_obj": "scan.nii"})
    output = SliceStackInferer()(volume, Recorder())
    assert isinstance(output, MetaTensor)
    assert torch.equal(output.affine, affine)
    assert output.meta["filename_or_obj"] == "scan.nii"
    assert torch.equal(output.as_tensor(), SliceStackInferer()(sparse_volume(), Recorder()))


def test_a_plain_tensor_stays_one() -> None:
    assert type(SliceStackInferer()(sparse_volume(), Recorder())) is torch.Tensor


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_dtype_stays(dtype: torch.dtype) -> None:
    assert SliceStackInferer()(numbered_volume(5).to(dtype), marker).dtype == dtype


def test_further_arguments_reach_the_network() -> None:
    def network(stacks: torch.Tensor, factor: float, summand: float = 0) -> torch.Tensor:
        return stacks[:, 2:3] * factor + summand

    output = SliceStackInferer()(numbered_volume(4), network, 10.0, summand=3.0)
    assert output[0, 0, 0, 0].tolist() == [13, 23, 33, 43]


# Flips


@pytest.mark.parametrize("flips", [[[0]], [[1]], [[0, 1]], [[0], [1], [0, 1]]])
def test_flips_are_averaged(flips: list[list[int]]) -> None:
    volume = torch.rand(1, 1, HEIGHT, WIDTH, 6)
    passes = [slice_by_slice(volume, Recorder())]
    for axes in flips:
        in_volume = [axis + 2 for axis in axes]  # axis 0 is H of (B, 1, H, W, D)
        passes.append(slice_by_slice(volume.flip(in_volume), Recorder()).flip(in_volume))
    output = SliceStackInferer(tta_flips=flips)(volume, Recorder())
    torch.testing.assert_close(output, torch.stack(passes).mean(dim=0))
    assert not torch.allclose(output, passes[0])


def test_flipped_passes_skip_empty_stacks_as_well() -> None:
    network = Recorder()
    SliceStackInferer(batch_size=100, tta_flips=[[0]])(sparse_volume(), network)
    assert network.batches == [1, 1, 9, 9]


@pytest.mark.parametrize("flips", [[[2]], [[0], [1, 2]], [[-1]]])
def test_a_flip_of_the_slice_axis_is_refused(flips: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"flips may name the in-plane axes 0 and 1 only, got \[\["):
        SliceStackInferer(tta_flips=flips)


# Refusals


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_no_slices_is_refused(batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        SliceStackInferer(batch_size)


@pytest.mark.parametrize("offsets", [(0, 1, 3), (1, 0), ()])
def test_offsets_that_do_not_rise_evenly_are_refused(offsets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="offsets must rise in even steps"):
        SliceStackInferer(offsets=offsets)


@pytest.mark.parametrize("shape", [(1, 4, 4, 4), (1, 2, 4, 4, 4), (4, 4, 4), (1, 1, 1, 4, 4, 4)])
def test_anything_but_volumes_of_one_channel_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(B, 1, H, W, D\), got \[" + ", ".join(map(str, shape)) + r"\]"):
        SliceStackInferer()(torch.zeros(shape), marker)


# Progress


@pytest.mark.parametrize("progress", [True, False])
def test_a_bar_is_shown_on_request(capsys: pytest.CaptureFixture[str], progress: bool) -> None:
    SliceStackInferer(progress=progress)(sparse_volume(), Recorder())
    out, err = capsys.readouterr()
    assert ("slices" in err) == progress
    assert out == ""


# A real network


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A small network; its batch normalisation has seen data, so that its logits are spread like a trained one's.

    Rounding differs much between random networks. This one is that for which the bounds were set, when 3D kernels had
    their slices first.
    """
    torch.manual_seed(0)
    network = TSRLNet(features=(8, 16, 16, 32, 32))
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            height, width, slices = module.kernel_size
            drawn = module.weight.data.reshape(*module.weight.shape[:2], slices, height, width)
            module.weight.data = drawn.permute(0, 1, 3, 4, 2)
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(2, 4, 96, 96))
    return network.eval()


@pytest.fixture(scope="module")
def volume() -> torch.Tensor:
    volume = torch.zeros(1, 1, 96, 96, 7)
    volume[:, :, 10:80, 20:90, 1:6] = torch.rand(1, 1, 70, 70, 5, generator=torch.Generator().manual_seed(0))
    return volume


@pytest.fixture(scope="module")
def by_hand(network: nn.Module, volume: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(StackSlices()(volume[0])).permute(1, 2, 3, 0)[None]


def test_a_real_network_gives_the_same_logits_as_without_the_inferer(
    network: nn.Module, volume: torch.Tensor, by_hand: torch.Tensor
) -> None:
    with torch.no_grad():
        output = SliceStackInferer(batch_size=3)(volume, network)
    assert by_hand.std() > 0.05  # it is not constant
    torch.testing.assert_close(output, by_hand, rtol=0, atol=1e-3 * float(by_hand.std()))


def test_bfloat16_changes_the_logits_little(network: nn.Module, volume: torch.Tensor, by_hand: torch.Tensor) -> None:
    with torch.no_grad():
        output = SliceStackInferer(amp=True)(volume, network)
    assert output.dtype == torch.float32
    assert (output - by_hand).abs().mean() < 0.05 * by_hand.std()
    assert torch.corrcoef(torch.stack([output.flatten(), by_hand.flatten()]))[0, 1] > 0.99


@needs_cuda
@pytest.mark.parametrize("amp", [False, True])
def test_volume_and_output_stay_on_cpu_when_the_network_is_on_cuda(
    network: nn.Module, volume: torch.Tensor, by_hand: torch.Tensor, amp: bool
) -> None:
    with torch.no_grad():
        output = SliceStackInferer(device="cuda", amp=amp)(volume, network.cuda())
    network.cpu()
    assert output.device == volume.device
    assert (output - by_hand).abs().mean() < (0.05 if amp else 1e-3) * by_hand.std()


# Autocast


class SeesAutocast(nn.Module):
    """Remembers whether it ran under bfloat16 autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def forward(self, x: torch.Tensor, summand: float = 0) -> torch.Tensor:
        device = x.device.type
        autocast = torch.is_autocast_enabled(device)
        self.seen.append(autocast and torch.get_autocast_dtype(device) == torch.bfloat16)
        return x[:, :1] + summand


AMP = pytest.mark.parametrize(
    ("amp", "capabilities", "expected"),
    [
        (True, {"avx512_bf16": True, "amx_bf16": False}, True),
        (True, {"avx512_bf16": False, "amx_bf16": True}, True),
        (True, {"bf16": True}, True),
        (True, {"avx512_bf16": False, "avx2": True}, False),
        (False, {"avx512_bf16": True}, False),
    ],
)


@AMP
def test_a_cpu_uses_bfloat16_where_it_has_it(
    monkeypatch: pytest.MonkeyPatch, amp: bool, capabilities: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    network = SeesAutocast()
    AutocastInferer(amp=amp)(torch.rand(2, 4, 8, 8), network)
    SliceStackInferer(amp=amp)(numbered_volume(3), network)
    assert network.seen == [expected] * 3  # the second inferer asks for the empty slice too
    assert not torch.is_autocast_enabled("cpu")


@needs_cuda
def test_cuda_uses_bfloat16() -> None:
    network = SeesAutocast()
    AutocastInferer()(torch.rand(2, 4, 8, 8, device="cuda"), network)
    assert network.seen == [torch.cuda.is_bf16_supported()]


def test_without_amp_the_network_s_own_answer_is_passed_on() -> None:
    inputs = torch.rand(2, 4, 8, 8)
    answer = AutocastInferer(amp=False)(inputs, SeesAutocast(), summand=3.0)
    assert torch.equal(answer, inputs[:, :1] + 3)


def test_convolutions_compute_in_bfloat16_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    convolution, inputs = nn.Conv2d(4, 2, 3), torch.rand(1, 4, 8, 8)
    assert AutocastInferer(amp=True)(inputs, convolution).dtype == torch.bfloat16
    assert AutocastInferer(amp=False)(inputs, convolution).dtype == torch.float32


def before(stacks: torch.Tensor) -> torch.Tensor:
    """A network that gives the slice two before its own."""
    return stacks[:, :1]


@pytest.mark.parametrize(("plane", "axis"), [("axial", 2), ("coronal", 1), ("sagittal", 0)])
def test_the_stacks_of_a_plane_lie_along_its_axis(plane: Plane, axis: int) -> None:
    volume = torch.rand(1, 1, 16, 32, 19)
    found = SliceStackInferer(plane=plane)(volume, before)
    expected = volume.roll(2, dims=axis + 2)
    expected.narrow(axis + 2, 0, 2).zero_()
    assert torch.equal(found, expected)


class Before(nn.Module):
    def forward(self, stacks: torch.Tensor) -> torch.Tensor:
        return before(stacks)


def test_further_networks_are_averaged_each_in_its_plane() -> None:
    volume = torch.rand(2, 1, 16, 32, 19)
    planes: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
    each = [SliceStackInferer(plane=plane)(volume, before) for plane in planes]
    together = SliceStackInferer(ensemble=[(plane, Before()) for plane in planes[1:]])(volume, before)
    torch.testing.assert_close(together, (each[0] + each[1] + each[2]) / 3)


@pytest.mark.parametrize("settings", [{"plane": "sagittal"}, {"ensemble": [("coronal", None), ("sagittal", None)]}])
def test_sagittal_slices_are_not_flipped(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="they would turn sagittal ones front to back"):
        SliceStackInferer(tta_flips=[[0]], **settings)
    assert SliceStackInferer(tta_flips=[[0]], plane="coronal").tta_flips == [(), (0,)]


@pytest.mark.slow
def test_networks_in_other_planes_are_computed_in_their_form_for_inference() -> None:
    network = TSRLNet(features=(4, 8, 8, 8, 8)).eval()
    volume = torch.rand(1, 1, 96, 96, 90)
    with torch.no_grad():
        found = SliceStackInferer(plane="sagittal", backend="torch")(volume, network)
        turned = torch.nn.functional.pad(volume[0, 0].permute(1, 2, 0), (0, 0, 0, 6))
        expected = slice_by_slice(turned[None, None], network)[0].permute(0, 3, 1, 2)[..., :90]
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-4)
