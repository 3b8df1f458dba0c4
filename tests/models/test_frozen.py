import copy

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn

from attnfd.config.schema import LAYERS
from attnfd.models import backbones
from attnfd.models.frozen import compare, freeze, margin
from attnfd.models.kernels import cast_weights
from attnfd.models.taps import EARLY_LAYERS, Tap
from attnfd.runtime.fabric import start_fabric


@pytest.mark.parametrize("name", backbones.names())
@pytest.mark.parametrize("with_attention", [True, False])
def test_frozen_answers_as_the_live_network(name, with_attention, trained, attention, images):
    live = trained(name, attention=attention if with_attention else None)
    frozen = freeze(live)
    differences = compare(live, frozen, images)
    points = 3 if with_attention else 2
    assert len(differences) == 1 + 3 * points + 3 * 2
    assert max(differences.values()) < 1e-4
    left = {type(module) for module in frozen.modules()}
    assert not left & {nn.BatchNorm2d, nn.Dropout}
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert frozen.info.channels == live.info.channels


@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnet_b0"])
def test_mode_of_a_frozen_network_changes_nothing(name, trained, attention, images):
    frozen = freeze(trained(name, attention=attention))
    state = {key: value.clone() for key, value in frozen.state_dict().items()}
    before = frozen(images).logits
    assert torch.equal(frozen.train()(images).logits, before)
    assert all(torch.equal(value, state[key]) for key, value in frozen.state_dict().items())


def test_freezing_leaves_the_live_network_alone(trained, images):
    live = trained("mobilenetv2").train()
    state = copy.deepcopy(live.state_dict())
    freeze(live)
    assert live.training
    assert all(parameter.requires_grad for parameter in live.parameters())
    assert all(torch.equal(value, state[key]) for key, value in live.state_dict().items())


def test_comparison_finds_a_difference_where_it_begins(trained, images):
    live = trained("mobilenetv2")
    frozen = freeze(live)
    with torch.no_grad():
        frozen.get_parameter("aspp.project.conv.bias")[3] += 1.0
    differences = compare(live, frozen, images)
    assert differences["backbone.post_relu"] < 1e-4
    scale = live(images, [Tap("encoder")]).taps[Tap("encoder")].abs().max().item()
    assert differences["encoder.pre_relu"] == pytest.approx(1 / scale, rel=1e-3)
    assert differences["logits"] > 1e-4


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("broken", ["live", "frozen"])
def test_comparison_fails_if_an_output_is_not_finite(value, broken, trained, images):
    live = trained("mobilenetv2")
    frozen = freeze(live)
    with torch.no_grad():
        {"live": live, "frozen": frozen}[broken].classifier.bias[0] = value
    assert compare(live, frozen, images)["logits"] == np.inf


@pytest.mark.parametrize(
    ("beta", "gamma"), [(0.0, 1.0), (0.7, 1.3), (-2.0, 0.5), (0.7, -1.3), (3.0, 0.6), (-0.01, 2.0)]
)
def test_margin_is_the_mean_of_the_negative_part(beta, gamma):
    normal = norm(beta, abs(gamma))
    mass, _ = quad(normal.pdf, -40, 0, points=[min(beta, 0)], epsabs=0, epsrel=1e-11)
    moment, _ = quad(lambda x: x * normal.pdf(x), -40, 0, points=[min(beta, 0)], epsabs=0, epsrel=1e-11)
    got = margin(torch.tensor([beta], dtype=torch.float64), torch.tensor([gamma], dtype=torch.float64))
    assert got.item() == pytest.approx(moment / mass, rel=1e-8)


def test_margin_at_the_limits():
    """For large positive β, E → -γ²/β. For large negative β, or for β < 0 and γ = 0, it is β."""
    beta = torch.tensor([1e4, -50.0, -1.5, 2.0, 0.0])
    gamma = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0])
    expected = torch.tensor([-1e-4, -50.0, -1.5, 0.0, 0.0])
    torch.testing.assert_close(margin(beta, gamma), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("name", "bns"),
    [
        ("resnet18", ["layer1.1.bn2", "layer2.1.bn2", "layer3.1.bn2", "layer4.1.bn2"]),
        ("resnet101", ["layer1.2.bn3", "layer2.3.bn3", "layer3.22.bn3", "layer4.2.bn3"]),
        ("mobilenetv2", [f"features.{block}.conv.3" for block in (3, 6, 13, 17)]),
        ("mobilenetv3_large", ["features.3.block.2.1", *(f"features.{i}.block.3.1" for i in (6, 12, 15))]),
        ("efficientnet_b0", [f"features.{block}.block.3.1" for block in ("2.1", "3.1", "5.2", "7.0")]),
    ],
)
def test_margins_are_those_of_the_bn_before_the_tap(name, bns, trained):
    live = trained(name)
    modules = {
        layer: live.backbone.get_submodule(bn)
        for layer, bn in zip((*EARLY_LAYERS, "backbone"), bns, strict=True)
    }
    modules |= {"encoder": live.aspp.project.bn, "decoder": live.decoder.refine.bn}
    margins = freeze(live).info.margins
    assert set(margins) == {*EARLY_LAYERS, *LAYERS}
    for layer, bn in modules.items():
        beta, gamma = bn.bias.detach().double().numpy(), bn.weight.detach().double().numpy()
        expected = beta - gamma * norm.pdf(beta / gamma) / norm.cdf(-beta / gamma)
        np.testing.assert_allclose(margins[layer].numpy(), expected, rtol=1e-5)
        assert margins[layer].shape == (live.info.channels[layer],)


@pytest.mark.parametrize("name", backbones.names())
def test_cast_weights_give_the_bits_of_autocast(name, trained, attention, images):
    fabric = start_fabric("bf16-mixed")
    taught = freeze(trained(name, attention=attention))
    settled = copy.deepcopy(taught)
    cast_weights(settled, fabric)
    assert settled.classifier.weight.dtype == torch.bfloat16
    taps = [Tap(layer, "refined") for layer in LAYERS]
    with torch.no_grad(), fabric.autocast():
        expected, found = taught(images, taps), settled(images, taps)
    assert torch.equal(found.logits, expected.logits)
    assert all(torch.equal(found.taps[tap], expected.taps[tap]) for tap in taps)


def test_weights_stay_float32_where_nothing_is_cast(trained):
    frozen = freeze(trained("resnet18"))
    cast_weights(frozen, start_fabric("32-true"))
    assert all(parameter.dtype == torch.float32 for parameter in frozen.parameters())
