"""The thesis's comparison networks: size, shapes, gradients, refusals, what their parts compute, learning, overlays.

Counts run on the meta device at full width; whatever computes runs at small widths.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest
import torch
from monai.losses import DiceLoss
from torch import nn

from bundle.losses import EnhancedMixingLoss, SupervisedTotalLoss, TargetAwareLoss
from bundle.networks import DUNet, SliceStackNetwork, SliceStackUNet
from bundle.networks.comparison import (
    ACSNet,
    AttentionUNet,
    CLCINet,
    DeepLabV3,
    PSPNet,
    SegNet,
    UNet,
    UNet3D,
    UNetPlusPlus,
    XNet,
)
from bundle.networks.comparison.acs_net import NonLocal
from bundle.networks.comparison.resnet import ResNetEncoder
from bundle.networks.comparison.u_net_3d import SliceUpsampling
from bundle.networks.comparison.x_net import FeatureSimilarity
from scripts.thesis.thop_rules import THOP_0_0_31, THOP_0_1_1, Rules, counted_operations
from tests.workflows.conftest import CONFIGS, ROOT
from tests.workflows.test_configs import parser_of


class Case(NamedTuple):
    """A network, the thesis's count of its parameters, ours with one and with four slices, and a small one."""

    network: type[SliceStackNetwork]
    thesis: int | None
    one: int
    four: int
    divisor: int
    small: dict[str, Any]


CASES = {
    "u_net": Case(UNet, 17_266_241, 17_266_241, 17_267_969, 16, {"width": 8}),
    "seg_net": Case(SegNet, 29_442_433, 29_442_433, 29_444_161, 32, {"width": 8}),
    "psp_net": Case(PSPNet, 27_494_276, 27_494_276, 27_503_684, 8, {"width": 8}),
    "deeplab_v3": Case(DeepLabV3, 58_158_145, 58_158_145, 58_159_873, 16, {"width": 8, "depths": (1, 1, 2, 1)}),
    "unet_plus_plus": Case(UNetPlusPlus, 26_897_860, 26_897_860, 26_907_268, 32, {"width": 8}),
    "acs_net": Case(ACSNet, None, 29_446_545, 29_455_953, 32, {"width": 8}),
    "attention_u_net": Case(AttentionUNet, 34_877_421, 34_877_421, 34_879_149, 16, {"width": 8}),
    "x_net": Case(XNet, 15_072_332, 15_072_332, 15_072_749, 16, {"width": 8}),
    "clci_net": Case(CLCINet, None, 36_813_025, 36_813_889, 16, {"width": 4}),
    "u_net_3d": Case(UNet3D, None, 17_697_409, 17_697_409, 8, {"width": 4}),
}
NAMES = list(CASES)


def small(name: str, **settings: Any) -> SliceStackNetwork:
    torch.manual_seed(0)
    return CASES[name].network(**(CASES[name].small | settings))


def stacks(batch: int = 2, height: int = 96, width: int = 96) -> torch.Tensor:
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(1))


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# --- parameters, table 4.3 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_pinned_numbers_and_with_one_slice_the_thesis_s(name: str) -> None:
    case = CASES[name]
    with torch.device("meta"):
        one = case.network(in_channels=1, **({"own_slice": 0} if case.network is UNet3D else {}))
        four = case.network()
    assert (parameters(one), parameters(four)) == (case.one, case.four)
    assert case.thesis in (None, case.one)


@pytest.mark.parametrize("name", NAMES)
def test_documents_give_the_counts(name: str) -> None:
    text = (ROOT / "docs" / "comparison_networks.md").read_text()
    (row,) = re.findall(rf"^\| .*`{name}` .*$", text, re.MULTILINE)
    case = CASES[name]
    thesis = "not given" if case.thesis is None else f"{case.thesis:,}"
    assert [cell.strip() for cell in row.split("|")][4:7] == [thesis, f"{case.one:,}", f"{case.four:,}"]
    assert str(case.four) in re.sub(",", "", case.network.__doc__ or "")


# What the public version behind a count does otherwise, in operations of the tool at 192 x 192; the others do nothing.
# U-Net upsamples with bilinear modules, 11 for each element of 64 x 192^2, 128 x 96^2, 256 x 48^2, 512 x 24^2.
BILINEAR = 11 * (64 * 192**2 + 128 * 96**2 + 256 * 48**2 + 512 * 24**2)
# DeepLab convolves and norms (2 an element) the image's mean, and narrows it again, before it spreads it to 12 x 12,
# and has a leaky ReLU, 1 an element, behind the four joined maps, the mean and the result.
IMAGE = (12 * 12 - 1) * (2048 * 256 + 2 * 256 + 256 * 256)
LEAKY = 12 * 12 * (4 * 256 + 256) + 256


@pytest.mark.parametrize(
    ("name", "rules", "other", "times", "thesis"),
    [
        ("u_net", THOP_0_0_31, BILINEAR, 1, 22_545_469_440),
        ("deeplab_v3", THOP_0_0_31, LEAKY - IMAGE, 1, 10_454_852_496),
        ("unet_plus_plus", THOP_0_0_31, 0, 2, 42_154_868_736),  # as a batch of two would count
        ("seg_net", THOP_0_1_1, 0, 1, 22_531_276_800),
        ("psp_net", THOP_0_1_1, 0, 1, 22_378_374_144),
        ("attention_u_net", THOP_0_1_1, 0, 1, 37_437_947_136),
    ],
)
def test_flops_of_the_thesis_are_ours_plus_the_named_difference(
    name: str, rules: Rules, other: int, times: int, thesis: int
) -> None:
    with torch.device("meta"):
        counted = counted_operations(CASES[name].network(in_channels=1), torch.empty(1, 1, 192, 192), rules)
    assert times * (counted.total() + other) == thesis


# --- shapes, gradients, refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_gives_logits_of_the_input_s_size_and_leaves_it_alone(name: str, training: bool) -> None:
    net, divisor = small(name).train(training), CASES[name].divisor
    assert net.divisor == divisor
    x = stacks(height=96, width=96 + divisor)
    before = x.clone()
    *_, last_bias = net.parameters()
    with torch.no_grad():
        last_bias.fill_(-40)
        logits = net(x)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 1, 96, 96 + divisor)
    assert logits.isfinite().all()
    assert (logits < 0).any()  # not a probability
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", NAMES)
def test_number_of_slices_and_of_classes_is_free(name: str) -> None:
    settings = {"own_slice": 1} if name == "u_net_3d" else {}
    net = small(name, in_channels=3, out_channels=2, **settings).eval()
    with torch.no_grad():
        assert net(stacks()[:, :3]).shape == (2, 2, 96, 96)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_trains(name: str) -> None:
    assert small(name).train()(stacks(batch=1)).isfinite().all()


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_finite_gradient(name: str, amp: bool) -> None:
    net = small(name).train()
    with torch.no_grad():
        for parameter in net.parameters():  # away from what starts at 0, behind which nothing would get a gradient
            parameter += 0.05 * torch.randn_like(parameter)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
        logits = net(stacks(height=128, width=128))
    logits.float().square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()] == []
    # A bias in front of a batch norm or of a softmax has none but rounding, so that biases are left out here.
    assert [name for name, gradient in gradients.items() if "bias" not in name and not gradient.any()] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_slice_matters(name: str) -> None:
    net, x = small(name).eval(), stacks(batch=1)
    with torch.no_grad():
        logits = net(x)
        for number in range(4):
            other = x.clone()
            other[:, number] = 0
            assert not torch.allclose(net(other), logits, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_another_size_is_refused_with_the_one_that_fits(name: str) -> None:
    divisor = CASES[name].divisor
    with pytest.raises(ValueError, match=f"multiples of {divisor}, got 96 x 97: pad the slices to 96 x {96 + divisor}"):
        small(name)(torch.zeros(1, 4, 96, 97))


@pytest.mark.parametrize("name", NAMES)
def test_another_number_of_slices_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape("must be (B, 4, H, W), got [1, 3, 96, 96]")):
        small(name)(torch.zeros(1, 3, 96, 96))


# --- what the parts compute ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output_stride", "sizes", "dilations"),
    [
        (32, [48, 24, 12, 6, 3], [1, 1, 1, 1]),
        (16, [48, 24, 12, 6, 6], [1, 1, 1, 2]),
        (8, [48, 24, 12, 12, 12], [1, 1, 2, 4]),
    ],
)
@pytest.mark.parametrize("bottleneck", [False, True])
def test_resnet_dilates_where_it_does_not_stride(
    output_stride: int, sizes: list[int], dilations: list[int], bottleneck: bool
) -> None:
    encoder = ResNetEncoder(4, width=4, bottleneck=bottleneck, output_stride=output_stride).eval()
    with torch.no_grad():
        features = encoder(stacks(batch=1))
    assert [level.shape[2] for level in features] == sizes
    assert [level.shape[1] for level in features] == encoder.channels
    for stage, dilation in zip(encoder.stages, dilations, strict=True):
        wide = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert {m.dilation for m in wide} == {(dilation, dilation)}


def test_feature_similarity_weighs_every_place_by_its_similarity() -> None:
    module = FeatureSimilarity(32).eval()
    x = torch.randn(2, 32, 5, 6)
    with torch.no_grad():
        narrow = module.narrow(x)
        query, key, value = (layer(narrow).flatten(2) for layer in (module.query, module.key, module.value))
        similarity = torch.einsum("bcn,bcm->bnm", query, key) / 30
        similar = torch.einsum("bnm,bcm->bcn", similarity, value).view(2, 2, 5, 6)
        expected = module.widen(narrow + module.out(similar)) + x
        torch.testing.assert_close(module(x), expected)


def test_non_local_block_starts_as_the_identity_and_then_attends_by_softmax() -> None:
    module = NonLocal(8)
    x = torch.randn(2, 8, 6, 4)
    torch.testing.assert_close(module(x), x)
    nn.init.ones_(module.out[1].weight)
    module.eval()
    with torch.no_grad():
        query = module.query(x).flatten(2)
        key, value = (nn.functional.max_pool2d(layer(x), 2).flatten(2) for layer in (module.key, module.value))
        weights = torch.softmax(torch.einsum("bcn,bcm->bnm", query, key), dim=2)
        found = torch.einsum("bnm,bcm->bcn", weights, value).view(2, 4, 6, 4)
        torch.testing.assert_close(module(x), module.out(found) + x)


def test_slice_upsampling_is_a_transposed_convolution_in_the_plane() -> None:
    module = SliceUpsampling(3)
    x = torch.randn(2, 3, 4, 5, 4)
    with torch.no_grad():
        expected = nn.functional.conv_transpose3d(x, module.weight.unsqueeze(4), module.bias, stride=(2, 2, 1))
        torch.testing.assert_close(module(x), expected)


def test_u_net_3d_gives_the_slice_asked_for() -> None:
    """A stack in reverse, seen by a network whose kernels do not tell up from down, gives the mirrored slice."""
    first, second = small("u_net_3d", own_slice=1).eval(), small("u_net_3d", own_slice=2).eval()
    with torch.no_grad():
        for net in (first, second):
            for parameter in net.parameters():
                if parameter.dim() == 5:
                    parameter.copy_((parameter + parameter.flip(4)) / 2)
        torch.testing.assert_close(first(stacks().flip(1)), second(stacks()))
        assert not torch.allclose(first(stacks()), second(stacks()), atol=1e-4)
    with pytest.raises(ValueError, match=re.escape("own_slice must be 0..3, the slices of the stack, got 4")):
        UNet3D(own_slice=4)


# --- learning --------------------------------------------------------------------------------------------------------


def lesions(number: int = 4, size: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with a bright disc in the third slice, and a disc elsewhere in the others; masks of the third slice's."""
    generator = torch.Generator().manual_seed(2)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centres = torch.randint(24, size - 24, (number, 4, 2, 1, 1), generator=generator)
    discs = ((rows - centres[:, :, 0]) ** 2 + (columns - centres[:, :, 1]) ** 2 < 14**2).float()
    return discs + 0.3 * torch.randn(number, 4, size, size, generator=generator), discs[:, 2:3]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_learns_four_slices_by_heart_with_eml(name: str) -> None:
    images, masks = lesions()
    net, loss = small(name), EnhancedMixingLoss()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
    dice = 0.0
    for step in range(1, 301):
        net.train()
        optimizer.zero_grad()
        loss(net(images), masks).backward()
        optimizer.step()
        if step % 20 == 0:
            with torch.no_grad():
                dice = 1 - DiceLoss(batch=True)((net.eval()(images) > 0).float(), masks).item()
            if dice > 0.9:
                break
    assert dice > 0.9


# --- overlays --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_overlay_builds_the_network_and_eml(name: str) -> None:
    parser = parser_of("train.json", f"networks/{name}.json")
    with torch.device("meta"):
        network = parser.get_parsed_content("network_def")
    assert type(network) is CASES[name].network
    assert parameters(network) == CASES[name].four
    loss = parser.get_parsed_content("loss")
    assert type(loss) is EnhancedMixingLoss
    assert (loss.alpha, loss.gamma) == (0.75, 2.0)
    other = parser_of("train.json", f"networks/{name}.json", offsets=[-1, 0, 1])
    with torch.device("meta"):
        assert other.get_parsed_content("network_def").in_channels == 3
    if name == "u_net_3d":
        assert (network.own_slice, other.get_parsed_content("network_def").own_slice) == (2, 1)


@pytest.mark.parametrize("name", [*NAMES, "d_unet"])
def test_table_4_5_turns_any_network_to_tal(name: str) -> None:
    parser = parser_of("train.json", f"networks/{name}.json", "experiments/table_4_5_target_aware.json")
    loss = parser.get_parsed_content("loss")
    assert type(loss) is SupervisedTotalLoss
    (_, mask), net = lesions(), DUNet(features=(4,) * 5) if name == "d_unet" else small(name)
    with torch.no_grad():
        output = net.train()(stacks(batch=4))
    logits = output if isinstance(output, torch.Tensor) else output.logits
    torch.testing.assert_close(loss(output, mask), TargetAwareLoss()(logits, mask))


def test_every_network_has_an_overlay() -> None:
    files = {path.stem for path in (CONFIGS / "networks").glob("*.json")}
    assert files >= set(NAMES)
    assert {case.network for case in CASES.values()} == set(SliceStackNetwork.__subclasses__()) - {SliceStackUNet}
