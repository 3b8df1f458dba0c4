import copy
import itertools
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attnfd.config.network import Attention
from attnfd.config.schema import LAYERS
from attnfd.errors import UserError
from attnfd.models import backbones
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.kernels import AtrousConv, Dropout, JoiningConv
from attnfd.models.taps import EARLY_LAYERS, Tap

NAMES = backbones.names()
ATTENTION = Attention(reduction=16, kernel_size=7, channel=True, spatial=True)
POINTS = ("pre_relu", "post_relu")


def network(name="resnet18", classes=5, **options):
    torch.manual_seed(0)
    return DeepLabV3Plus(name, classes, **options)


def images(batch=2, size=64):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(2))


def all_taps(net):
    taps = [Tap(layer, point) for layer in (*EARLY_LAYERS, *LAYERS) for point in POINTS]
    return taps + [Tap(layer, "refined") for layer in net.attention]


@pytest.mark.parametrize(
    ("name", "count"), [("resnet101", 59_344_309), ("resnet18", 16_608_181), ("mobilenetv2", 5_816_053)]
)
def test_parameter_counts_of_the_published_network(name, count):
    with torch.device("meta"):
        net = DeepLabV3Plus(name, 21)
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [64, 33])
def test_shapes(name, size):
    net = network(name, attention=ATTENTION).train()
    logits, taps = net(images(size=size), all_taps(net))
    assert logits.shape == (2, 5, size, size)
    strides = {"stage1": 4, "stage2": 8, "stage3": 16, "backbone": 16, "encoder": 16, "decoder": 4}
    assert set(taps) == set(all_taps(net))
    for tap, feature in taps.items():
        side = -(-size // strides[tap.layer])
        assert feature.shape == (2, net.info.channels[tap.layer], side, side), tap
    assert net.info.classes == 5
    assert net.info.margins is None


def test_output_stride_8():
    net = network("mobilenetv2", attention=ATTENTION, output_stride=8).train()
    logits, taps = net(images(size=65), all_taps(net))
    assert logits.shape == (2, 5, 65, 65)
    strides = {"stage1": 4, "stage2": 8, "stage3": 8, "backbone": 8, "encoder": 8, "decoder": 4}
    for tap, feature in taps.items():
        assert feature.shape[-1] == -(-65 // strides[tap.layer]), tap
    rates = [branch.conv.dilation[0] for branch in net.aspp.atrous]
    assert rates == [12, 24, 36]
    assert net.architecture.output_stride == 8


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attention", [None, ATTENTION])
def test_points_of_a_layer(name, attention):
    net = network(name, attention=attention).train()
    _, taps = net(images(), all_taps(net))
    linear = not backbones.entry(name).relu
    for layer in (*EARLY_LAYERS, *LAYERS):
        last = taps.get(Tap(layer, "refined"), taps[Tap(layer, "pre_relu")])
        if linear and layer not in ("encoder", "decoder"):
            assert torch.equal(taps[Tap(layer, "post_relu")], last)
            assert (last < 0).any()
        else:
            assert torch.equal(taps[Tap(layer, "post_relu")], last.relu())
            assert (taps[Tap(layer, "pre_relu")] < 0).any(), "a ReLU has overwritten the feature"
        if attention and layer in LAYERS:
            refined = net.attention[layer](taps[Tap(layer, "pre_relu")])
            torch.testing.assert_close(refined, taps[Tap(layer, "refined")])


def test_taps_are_what_the_modules_return():
    net = network("resnet18").train()
    seen = {}

    def watch(key):
        return lambda module, args, out: seen.update({key: out})

    block = net.backbone.get_submodule("layer4.1")
    block.bn2.register_forward_hook(watch("residual"))
    net.aspp.project.bn.register_forward_hook(watch("encoder"))
    net.decoder.refine.bn.register_forward_hook(watch("decoder"))
    net.decoder.low_level.register_forward_pre_hook(lambda module, args: seen.update(low_level=args[0]))
    net.aspp.register_forward_pre_hook(lambda module, args: seen.update(deep=args[0]))
    block.conv1.register_forward_pre_hook(lambda module, args: seen.update(shortcut=args[0]))
    _, taps = net(images(), all_taps(net))
    assert torch.equal(taps[Tap("encoder")], seen["encoder"])
    assert torch.equal(taps[Tap("decoder")], seen["decoder"])
    assert torch.equal(taps[Tap("backbone")], seen["residual"] + seen["shortcut"])
    assert torch.equal(taps[Tap("backbone", "post_relu")], seen["deep"])
    assert torch.equal(taps[Tap("stage1", "post_relu")], seen["low_level"])


def test_logits_are_interpolated_with_aligned_corners():
    net = network("mobilenetv2").eval()
    scores = []
    net.classifier.register_forward_hook(lambda module, args, out: scores.append(out))
    logits = net(images()).logits
    for y, x in itertools.product((0, -1), repeat=2):
        torch.testing.assert_close(logits[:, :, y, x], scores[0][:, :, y, x])


@pytest.mark.parametrize(
    ("taps", "ran"),
    [
        ([Tap("stage2"), Tap("backbone")], ["backbone"]),
        ([Tap("backbone", "refined")], ["backbone", "attention.backbone"]),
        ([Tap("encoder")], ["backbone", "attention.backbone", "aspp"]),
        (
            [Tap("decoder", "refined")],
            ["backbone", "attention.backbone", "aspp", "attention.encoder", "decoder", "attention.decoder"],
        ),
    ],
)
def test_nothing_is_computed_after_the_last_tap(taps, ran):
    net = network("mobilenetv2", attention=ATTENTION).eval()
    calls = []
    for name in ("backbone", "aspp", "decoder", "classifier", *(f"attention.{layer}" for layer in LAYERS)):
        net.get_submodule(name).register_forward_hook(lambda module, args, out, name=name: calls.append(name))
    output = net(images(), taps, logits=False)
    assert output.logits is None
    assert set(output.taps) == set(taps)
    assert calls == ran
    full = net(images(), taps)
    assert all(torch.equal(full.taps[tap], output.taps[tap]) for tap in taps)


@pytest.mark.parametrize("logits", [True, False])
def test_tap_that_the_network_lacks(logits):
    with pytest.raises(ValueError, match=r"no such tap.*refined"):
        network("mobilenetv2").eval()(images(), [Tap("encoder", "refined")], logits=logits)


def test_cross_entropy_trains_every_parameter():
    """The CBAMs are in the forward path, and every part is used."""
    net = network("mobilenetv2", attention=ATTENTION).train()
    F.cross_entropy(net(images(size=65)).logits, torch.zeros(2, 65, 65, dtype=torch.long)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_attention_replaces_the_feature():
    """If the gates of the backbone are closed, no information of the image reaches the encoder."""
    net = network("resnet18", attention=ATTENTION).eval()
    with torch.no_grad():
        net.attention["backbone"].spatial.bn.bias.fill_(-1e4)
    encoder = Tap("encoder")
    a, b = images(batch=2)[:, None]
    torch.testing.assert_close(net(a, [encoder]).taps[encoder], net(b, [encoder]).taps[encoder])


def test_attention_without_weights_is_beside_the_path():
    net = network("resnet18", attention=ATTENTION.model_copy(update={"learned": False})).eval()
    plain = network("resnet18").eval()
    plain.load_state_dict(net.state_dict())
    found = net(images(), all_taps(net))
    assert torch.equal(found.logits, plain(images()).logits)
    for layer in LAYERS:
        raw = plain(images(), [Tap(layer)]).taps[Tap(layer)]
        # σ(mean + maximum), of each channel, then of each position.
        raw = raw * torch.sigmoid(raw.flatten(2).mean(2) + raw.flatten(2).amax(2))[:, :, None, None]
        expected = raw * torch.sigmoid(raw.mean(1) + raw.amax(1))[:, None]
        torch.testing.assert_close(found.taps[Tap(layer, "refined")], expected)


def test_initial_weights():
    net = network("resnet18", attention=ATTENTION)
    for name, module in net.named_modules():
        if name.startswith("backbone"):
            continue
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.numel() > 10_000:
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05), name
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def test_backbone_starts_from_the_file(tmp_path):
    torch.save(backbones.build("resnet18").state_dict(), tmp_path / "resnet18.pth")
    a = DeepLabV3Plus("resnet18", 3, weights=str(tmp_path / "{backbone}.pth"))
    b = DeepLabV3Plus("resnet18", 3, weights=str(tmp_path / "resnet18.pth"))
    for key, value in a.backbone.state_dict().items():
        assert torch.equal(value, b.backbone.state_dict()[key])
    assert not torch.equal(a.aspp.point.conv.weight, b.aspp.point.conv.weight)


@pytest.mark.parametrize("dropout", [(0.0, 0.0), (0.9, 0.0), (0.0, 0.9)])
def test_dropout(dropout):
    net = network("mobilenetv2", dropout=dropout).train()
    tap = Tap("decoder")
    first, second = net(images(), [tap]), net(images(), [tap])
    assert torch.equal(first.taps[tap], second.taps[tap]) == (dropout[0] == 0)
    assert torch.equal(first.logits, second.logits) == (dropout == (0, 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_zeroes_its_part_and_scales_the_rest(dtype):
    torch.manual_seed(0)
    dropout = Dropout(0.3).train()
    feature = torch.full((4, 64, 33, 33), 7.0, dtype=dtype, requires_grad=True)
    dropped = dropout(feature)
    zero = dropped == 0
    assert zero.float().mean().item() == pytest.approx(0.3, abs=0.005)  # 5 standard deviations are 0.0043
    expected = torch.tensor(10.0, dtype=dtype)
    assert dropped[~zero].float().sub(expected.float()).abs().max() <= 10 * torch.finfo(dtype).eps
    dropped.sum().backward()
    assert torch.equal(feature.grad == 0, zero)
    assert feature.grad[~zero].float().sub(1 / 0.7).abs().max() <= 2 * torch.finfo(dtype).eps
    assert torch.equal(dropout.eval()(feature), feature)


def test_same_seed_same_network():
    a, b = network("mobilenetv2"), network("mobilenetv2")
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("size", [(5, 5), (5, 9), (9, 4), (6, 7), (8, 8), (1, 1)])
def test_atrous_convolution_is_exact_at_every_size(size):
    conv = AtrousConv(3, 4, 3, padding=6, dilation=6, bias=False).double()
    feature = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = conv.weight.detach().clone().requires_grad_()
    expected = F.conv2d(feature, weight, padding=6, dilation=6)
    got = conv(feature)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)
    (expected**2).sum().backward()
    gradient, feature.grad = feature.grad, None
    (got**2).sum().backward()
    torch.testing.assert_close(conv.weight.grad, weight.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(feature.grad, gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 3), (5, 1)])
@pytest.mark.parametrize(
    ("coarse", "fine"),
    [((3, 4), (9, 13)), ((1, 1), (4, 3)), ((1, 5), (1, 17)), ((2, 2), (2, 2)), ((3, 2), (7, 8))],
)
def test_joining_convolution_upsamples_joins_and_convolves(kernel, coarse, fine):
    generator = torch.Generator().manual_seed(0)
    conv = JoiningConv(5, 4, kernel, padding=(kernel[0] // 2, kernel[1] // 2)).double()
    maps = [
        torch.randn(2, channels, *size, dtype=torch.float64, generator=generator, requires_grad=True)
        for channels, size in ((3, coarse), (2, fine))
    ]
    upsampled = F.interpolate(maps[0], fine, mode="bilinear", align_corners=True)
    expected = F.conv2d(torch.cat((upsampled, maps[1]), 1), conv.weight, conv.bias, padding=conv.padding)
    got = conv(maps)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    inputs = [*maps, conv.weight, conv.bias]
    for mine, theirs in zip(
        torch.autograd.grad((got**2).sum(), inputs),
        torch.autograd.grad((expected**2).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_joining_convolution_loses_nothing_that_matters(dtype, layout):
    """It rounds at other places, but is as close to the exact result as the plain steps."""
    torch.manual_seed(0)
    conv = JoiningConv(96, 32, 3, padding=1, bias=False).to(memory_format=layout)
    maps = torch.randn(2, 64, 9, 9), torch.randn(2, 32, 33, 33)
    maps = tuple(feature.to(memory_format=layout) for feature in maps)
    exact = copy.deepcopy(conv).double().in_turn(tuple(feature.double() for feature in maps))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found, in_turn = conv(maps), conv.in_turn(maps)
    assert found.dtype == in_turn.dtype == dtype
    errors = [(other.double() - exact).square().mean().sqrt().item() for other in (found, in_turn)]
    assert errors[0] < 1.5 * errors[1]
    assert found.is_contiguous(memory_format=torch.channels_last) == (layout == torch.channels_last)


@pytest.mark.slow
def test_export_fits_every_size():
    """The kernels must not fix the image size of an exported network."""
    net = network("mobilenetv2").eval()
    dynamic = torch.export.Dim.DYNAMIC
    shapes = ({0: dynamic, 2: dynamic, 3: dynamic},)
    exported = torch.export.export(net, (images(size=64),), dynamic_shapes=shapes).module()
    other = torch.randn(3, 3, 65, 97)
    torch.testing.assert_close(exported(other).logits, net(other).logits, rtol=1e-4, atol=1e-4)


def test_network_can_be_pickled():
    net = network("mobilenetv2").eval()
    again = pickle.loads(pickle.dumps(net))
    assert torch.equal(again(images()).logits, net(images()).logits)
    again.train()(images())


def test_unknown_backbone():
    with pytest.raises(UserError, match="backbone: unknown name 'vgg'"):
        DeepLabV3Plus("vgg", 2)
