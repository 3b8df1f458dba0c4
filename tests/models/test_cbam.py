import numpy as np
import pytest
import torch

from attnfd.models.cbam import CBAM


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(cbam, A):
    """CBAM in numpy loops, from equations 1-3 of Woo et al. 2018."""
    state = {key: value.numpy() for key, value in cbam.state_dict().items()}
    A = A.numpy()
    B, C, H, W = A.shape
    if cbam.channel is not None:

        def mlp(x):
            hidden = np.maximum(state["channel.mlp.0.weight"] @ x + state["channel.mlp.0.bias"], 0)
            return state["channel.mlp.2.weight"] @ hidden + state["channel.mlp.2.bias"]

        gates = [sigmoid(mlp(a.reshape(C, -1).mean(axis=1)) + mlp(a.reshape(C, -1).max(axis=1))) for a in A]
        A = A * np.stack(gates)[:, :, None, None]
    if cbam.spatial is not None:
        kernel = state["spatial.conv.weight"][0]
        k = kernel.shape[-1]
        pooled = np.pad(
            np.stack([A.mean(axis=1), A.max(axis=1)], axis=1), [(0, 0)] * 2 + [(k // 2, k // 2)] * 2
        )
        gate = np.zeros((B, 1, H, W))
        for b, y, x in np.ndindex(B, H, W):
            value = (pooled[b, :, y : y + k, x : x + k] * kernel).sum()
            value = (value - state["spatial.bn.running_mean"][0]) / np.sqrt(
                state["spatial.bn.running_var"][0] + 1e-5
            )
            gate[b, 0, y, x] = sigmoid(value * state["spatial.bn.weight"][0] + state["spatial.bn.bias"][0])
        A = A * gate
    return A


def make(channels=8, **options):
    torch.manual_seed(0)
    cbam = CBAM(channels, **{"reduction": 4, "kernel_size": 3, **options}).double().eval()
    with torch.no_grad():
        for value in cbam.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.3, 1.2)
    return cbam


@pytest.mark.parametrize("channel", [True, False])
@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("kernel_size", [3, 7])
def test_equals_the_equations(channel, spatial, kernel_size):
    cbam = make(channel=channel, spatial=spatial, kernel_size=kernel_size)
    A = torch.randn(2, 8, 5, 4, dtype=torch.float64)
    np.testing.assert_allclose(cbam(A).detach().numpy(), reference(cbam, A), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("channel", [True, False])
@pytest.mark.parametrize("spatial", [True, False])
def test_gates_without_weights_are_sums(channel, spatial):
    cbam = CBAM(2, channel=channel, spatial=spatial, learned=False)
    A = np.array([[[[1.0, -2.0]], [[0.5, 0.25]]]])  # C = 2, H×W = 1×2
    expected = A
    if channel:
        # Per channel, mean and maximum: -0.5 + 1 and 0.375 + 0.5.
        expected = expected * sigmoid(np.array([0.5, 0.875])).reshape(1, 2, 1, 1)
    if spatial:
        expected = expected * sigmoid(expected.mean(axis=1, keepdims=True) + expected.max(1, keepdims=True))
    np.testing.assert_allclose(cbam(torch.from_numpy(A)).numpy(), expected, rtol=1e-12)
    assert not cbam.state_dict()


def test_gradients():
    cbam = make(channels=4, reduction=2)
    A = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, *_: cbam(a), (A, *cbam.parameters()))


def test_switched_off_gates_have_no_parameters():
    assert not list(CBAM(8, channel=False, spatial=False).parameters())
    assert {name.split(".")[0] for name, _ in CBAM(8, channel=False).named_parameters()} == {"spatial"}
    assert {name.split(".")[0] for name, _ in CBAM(8, spatial=False).named_parameters()} == {"channel"}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("channel", "spatial", "factor"), [(True, True, 4), (True, False, 2), (False, False, 1)]
)
def test_halved_gates(training, channel, spatial, factor):
    cbam = make(channel=channel, spatial=spatial).train(training)
    assert cbam.halve() == factor
    A = torch.randn(2, 8, 5, 4, dtype=torch.float64)
    assert torch.equal(factor * cbam(A), A)


@pytest.mark.parametrize("C", [64, 240])
def test_parameter_count(C):
    r, k = 16, 7
    mlp = C * (C // r) + C // r + (C // r) * C + C
    assert sum(p.numel() for p in CBAM(C).parameters()) == mlp + 2 * k * k + 2


def test_one_image_one_pixel_and_fewer_channels_than_the_reduction():
    cbam = CBAM(3).eval()
    # One hidden value: 3 → 1 and 1 → 3, each with a bias.
    assert sum(p.numel() for p in CBAM(3, spatial=False).parameters()) == 3 + 1 + 3 + 3
    A = torch.randn(1, 3, 1, 1)
    assert cbam(A).shape == A.shape
    assert (cbam(A).abs() < A.abs()).all()
