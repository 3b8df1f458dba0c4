import torch

from attnfd.distillers.base import Connector, connectors, match_size
from attnfd.models.taps import NetInfo


def test_a_connector_mixes_channels_and_normalises_them() -> None:
    torch.manual_seed(0)
    connector = Connector(3, 5)
    features = torch.randn(2, 3, 4, 4) * 7 + 3
    found = connector(features)
    mixed = torch.einsum("oc,bchw->bohw", connector.conv.weight[:, :, 0, 0], features)
    mean, var = mixed.mean((0, 2, 3), keepdim=True), mixed.var((0, 2, 3), unbiased=False, keepdim=True)
    torch.testing.assert_close(found, (mixed - mean) / (var + 1e-5).sqrt(), rtol=1e-4, atol=1e-4)
    assert sum(weight.numel() for weight in connector.parameters()) == 3 * 5 + 2 * 5


def test_connectors_lead_from_the_students_to_the_teachers_channels() -> None:
    student = NetInfo(channels={"backbone": 3, "encoder": 4}, classes=2)
    teacher = NetInfo(channels={"backbone": 7, "encoder": 8}, classes=2)
    found = connectors(("encoder", "backbone"), student=student, teacher=teacher)
    kernels = {name: tuple(weight.shape) for name, weight in found.named_parameters() if weight.ndim == 4}
    assert kernels == {"encoder.conv.weight": (8, 4, 1, 1), "backbone.conv.weight": (7, 3, 1, 1)}


def test_match_size_keeps_the_corners_and_ramps() -> None:
    ramp = torch.linspace(0, 1, 3).expand(1, 1, 2, 3)
    found = match_size(ramp, torch.empty(1, 9, 4, 5))
    torch.testing.assert_close(found, torch.linspace(0, 1, 5).expand(1, 1, 4, 5))


def test_match_size_leaves_the_right_size_alone() -> None:
    features = torch.randn(1, 2, 3, 4)
    assert match_size(features, torch.empty(1, 5, 3, 4)) is features
