"""CBAM, the attention module of AttnFD."""

import torch
from torch import Tensor, nn

from attnfd.config.network import Attention
from attnfd.errors import UserError


class CBAM(nn.Module):
    r"""Refine a feature map by channel attention, then by spatial attention.

    .. math::
        A' = \sigma\big(\mathrm{MLP}(\mathrm{avg}_{HW} A) + \mathrm{MLP}(\max_{HW} A)\big) \otimes A
        \qquad
        A'' = \sigma\big(\mathrm{BN}(\mathrm{conv}[\mathrm{mean}_C A'; \max_C A'])\big) \otimes A'

    Woo et al. 2018, *CBAM: Convolutional Block Attention Module*, eqs. 1-3. The sigmoid is applied to the
    sum of both MLP outputs. The spatial gate has a BN, as in the authors' code.

    With `learned=False`, the gates have no weights, as in AttnFD's released code. They have no MLP, no
    convolution and no BN, only the sum of both pooled values:
    :math:`\sigma(\mathrm{avg}_{HW} A + \max_{HW} A)` and :math:`\sigma(\mathrm{mean}_C A' + \max_C A')`.

    Args:
        channels: C of the feature maps.
        reduction: the shared MLP is C → max(C // reduction, 1) → C.
        kernel_size: of the spatial convolution, odd.
        channel: whether there is channel attention; without it A' = A.
        spatial: whether there is spatial attention; without it A'' = A'.
        learned: whether the gates have weights.

    Shape: (B, C, H, W) → (B, C, H, W).

    Raises:
        UserError: `channels` is not a positive whole number, or a setting is out of range.
    """

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 16,
        kernel_size: int = 7,
        channel: bool = True,
        spatial: bool = True,
        learned: bool = True,
    ) -> None:
        super().__init__()
        Attention(
            reduction=reduction, kernel_size=kernel_size, channel=channel, spatial=spatial, learned=learned
        )
        if not isinstance(channels, int) or channels < 1:
            raise UserError(f"CBAM.channels: found {channels!r}; pass the number of channels of the features")
        self.channels = channels
        self.learned = learned
        self.channel = ChannelGate(channels, reduction, learned=learned) if channel else None
        self.spatial = SpatialGate(kernel_size, learned=learned) if spatial else None

    def forward(self, feature: Tensor) -> Tensor:
        if feature.shape[1:-2] != (self.channels,):
            raise ValueError(f"CBAM: found {tuple(feature.shape)}; pass features (B, {self.channels}, H, W)")
        if self.channel is not None:
            feature = self.channel(feature) * feature
        if self.spatial is not None:
            feature = self.spatial(feature) * feature
        return feature

    @torch.no_grad()
    def halve(self) -> int:
        """Set every gate to ½ for any input. From there it learns fastest.

        Returns:
            The factor that restores the features: 1, 2 or 4.
        """
        factor = 1
        for gate, last in ((self.channel, "mlp.2"), (self.spatial, "bn")):
            if gate is not None:
                for parameter in gate.get_submodule(last).parameters():
                    parameter.zero_()
                factor *= 2
        return factor


class ChannelGate(nn.Module):
    """M_C (Woo et al. 2018, eq. 2): (B, C, H, W) → weights in (0, 1), (B, C, 1, 1)."""

    def __init__(self, channels: int, reduction: int, *, learned: bool) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.mlp = (
            nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
            if learned
            else nn.Identity()
        )

    def forward(self, feature: Tensor) -> Tensor:
        # Reductions are several times faster on a CPU than adaptive pooling modules.
        gate = self.mlp(feature.mean(dim=(2, 3))) + self.mlp(feature.amax(dim=(2, 3)))
        return torch.sigmoid(gate)[:, :, None, None]


class SpatialGate(nn.Sequential):
    """M_S (Woo et al. 2018, eq. 3): (B, C, H, W) → weights in (0, 1), (B, 1, H, W)."""

    def __init__(self, kernel_size: int, *, learned: bool) -> None:
        super().__init__()
        self.learned = learned
        if learned:
            self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
            self.bn = nn.BatchNorm2d(1)

    def forward(self, feature: Tensor) -> Tensor:
        pooled = torch.stack((feature.mean(dim=1), feature.amax(dim=1)), dim=1)
        return torch.sigmoid(super().forward(pooled) if self.learned else pooled.sum(1, keepdim=True))
