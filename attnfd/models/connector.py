"""What brings a student's features to the shape of the teacher's."""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F

from attnfd.models.taps import NetInfo


class Connector(nn.Module):
    """1×1 convolution and BN: (B, in_channels, H, W) → (B, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight)

    def forward(self, features: Tensor) -> Tensor:
        return self.bn(self.conv(features))


def connectors(layers: Iterable[str], *, student: NetInfo, teacher: NetInfo) -> nn.ModuleDict:
    """A connector per layer, from the student's channels to the teacher's."""
    return nn.ModuleDict(
        {layer: Connector(student.channels[layer], teacher.channels[layer]) for layer in layers}
    )


def match_size(student: Tensor, teacher: Tensor) -> Tensor:
    """Resize (B, C, H, W) to the teacher's H×W, bilinear with `align_corners=True`."""
    size = teacher.shape[-2:]
    if student.shape[-2:] == size:
        return student
    return F.interpolate(student, size=size, mode="bilinear", align_corners=True)
