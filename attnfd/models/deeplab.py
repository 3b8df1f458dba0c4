"""DeepLabV3+ with taps, the network of teacher and students alike."""

import math
from collections.abc import Collection, Generator, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd.config import Attention, Positive, Probability, Section
from attnfd.models import backbones
from attnfd.models.cbam import CBAM
from attnfd.models.taps import STAGES, TAPS, NetInfo, Output, Tap

WIDTH = 256
LOW_LEVEL_WIDTH = 48
RATES = (6, 12, 18)


class Architecture(Section):
    """What `DeepLabV3Plus` is built from, as a model's card keeps it."""

    backbone: str
    classes: Positive
    dropout: tuple[Probability, Probability]
    attention: Attention | None


class DeepLabV3Plus(nn.Module):
    """Segmentation network at output stride 16, whose feature maps can be read on the way.

    Chen et al. 2018, *Encoder-Decoder with Atrous Separable Convolution*, with plain convolutions, as AttnFD
    uses it (sec. 4.2). With `attention`, a CBAM stands in the forward path at each of the three taps: A''
    replaces A before its ReLU, so cross-entropy trains it. Attention without weights stands beside the path,
    since there it would dampen what no training has made up for.

    Args:
        backbone: one of `backbones.names()`.
        classes: K.
        dropout: probability after the ASPP and after the decoder's first convolution, and after its second.
        attention: settings of the CBAMs; without them the network has no `refined` taps.
        weights: of the backbone, see `backbones.build`. All else starts Kaiming-normal, BN at 1 and 0.

    Raises:
        UserError: the backbone is unknown, or its weights cannot be had.

    Example:
        >>> from attnfd.models.taps import Tap
        >>> net = DeepLabV3Plus("mobilenetv2", classes=4).eval()
        >>> logits, taps = net(torch.zeros(1, 3, 33, 33), taps=[Tap("encoder")])
        >>> tuple(logits.shape), tuple(taps[Tap("encoder")].shape)
        ((1, 4, 33, 33), (1, 256, 3, 3))
    """

    def __init__(
        self,
        backbone: str,
        classes: int,
        *,
        dropout: tuple[float, float] = (0.5, 0.1),
        attention: Attention | None = None,
        weights: str = "none",
    ) -> None:
        super().__init__()
        self.architecture = Architecture(
            backbone=backbone, classes=classes, dropout=dropout, attention=attention
        )
        self.spec = backbones.entry(backbone)
        self.backbone = backbones.build(backbone, weights)
        self.aspp = ASPP(self.spec.stages[-1].channels)
        self.encoder_dropout = Dropout(dropout[0])
        self.decoder = Decoder(self.spec.stages[0].channels, dropout[0])
        self.decoder_dropout = Dropout(dropout[1])
        self.classifier = nn.Conv2d(WIDTH, classes, 1)
        self.margins: nn.Module | None = None
        """Buffers of the frozen network, see `attnfd.models.frozen`."""
        self.attention = nn.ModuleDict()
        if attention is not None:
            for layer in TAPS:
                self.attention[layer] = CBAM(self.info.channels[layer], **attention.model_dump())
        for head in (self.aspp, self.decoder, self.classifier, self.attention):
            initialise(head)

    @property
    def info(self) -> NetInfo:
        """Channels per layer and classes; the margins, too, once the network is frozen."""
        widths = (*(stage.channels for stage in self.spec.stages), WIDTH, WIDTH)
        return NetInfo(
            channels=dict(zip((*STAGES, *TAPS), widths, strict=True)),
            classes=self.architecture.classes,
            margins=dict(self.margins.named_buffers()) if self.margins is not None else None,
        )

    def forward(self, images: Tensor, taps: Collection[Tap] = (), logits: bool = True) -> Output:
        """Segment images; computes no more than what is asked for.

        Args:
            images: (B, 3, H, W), normalised.
            taps: feature maps to keep, at output stride: `backbone` and `encoder` 16, `decoder` 4, `stage1…3`
                4, 8, 16.
            logits: whether to return logits (B, K, H, W).

        Raises:
            ValueError: this network has no such tap.
        """
        missing = set(taps)
        kept: dict[Tap, Tensor] = {}
        feature = images
        for tap, feature in self._features(images, missing):
            if tap in missing:
                kept[tap] = feature
                missing.remove(tap)
            if not missing and not logits:
                return Output(None, kept)
        if missing:
            raise ValueError(f"no such taps in this network: {sorted(missing)}")
        # The last feature is the decoder's, after its ReLU.
        scores = self.classifier(self.decoder_dropout(feature))
        return Output(_resize(scores, images.shape[-2:]), kept)

    def _features(self, images: Tensor, wanted: Collection[Tap]) -> Iterator[tuple[Tap, Tensor]]:
        """Every feature map in the order of computation, so that whoever reads can stop.

        Attention beside the path is computed only where it is `wanted`.
        """
        outputs = self.backbone(images)
        *early, last = self.spec.stages
        for layer, stage in zip(STAGES, early, strict=True):
            yield Tap(layer, "pre_relu"), outputs[stage.pre_relu]
            yield Tap(layer, "post_relu"), outputs[stage.post_relu]
        deep = yield from self._tap("backbone", outputs[last.pre_relu], wanted, relu=self.spec.relu)
        encoded = yield from self._tap("encoder", self.aspp(deep), wanted)
        low_level = outputs[early[0].post_relu]
        yield from self._tap("decoder", self.decoder(self.encoder_dropout(encoded), low_level), wanted)

    def _tap(
        self, layer: str, feature: Tensor, wanted: Collection[Tap], relu: bool = True
    ) -> Generator[tuple[Tap, Tensor], None, Tensor]:
        """The points of a layer in their order; returns the last one, which the next layer reads."""
        yield Tap(layer, "pre_relu"), feature
        if layer in self.attention:
            in_path = self.attention[layer].learned
            if in_path or Tap(layer, "refined") in wanted:
                refined = self.attention[layer](feature)
                yield Tap(layer, "refined"), refined
                feature = refined if in_path else feature
        if relu:
            feature = F.relu(feature)
        yield Tap(layer, "post_relu"), feature
        return feature


class ConvBN(nn.Sequential):
    """Convolution without bias, of the class `kind`, and BN; the ReLU is the caller's.

    (B, C, H, W) → (B, `out`, H, W).
    """

    def __init__(
        self,
        channels: int,
        out: int,
        kernel_size: int,
        dilation: int = 1,
        kind: type[nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.conv = kind(channels, out, kernel_size, padding=padding, dilation=dilation, bias=False)
        self.bn = nn.BatchNorm2d(out)


class AtrousConv(nn.Conv2d):
    """Convolution that leaves out the kernel's rows and columns which see nothing but padding.

    Exact: where the map is no larger than the dilation, only the centre of a 3×3 kernel meets the map, which
    happens in the ASPP for images below 288 pixels. A compiled or exported network shall fit any size, so it
    keeps the whole kernel.
    """

    def forward(self, feature: Tensor) -> Tensor:
        weight, padding = self.weight, [0, 0]
        for axis, (size, dilation) in enumerate(zip(self.kernel_size, self.dilation, strict=True)):
            if torch.compiler.is_compiling() or feature.shape[2 + axis] > dilation:
                padding[axis] = dilation * (size // 2)
            else:
                weight = weight.narrow(2 + axis, size // 2, 1)
        return F.conv2d(feature, weight, self.bias, self.stride, padding, self.dilation)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2017, *Rethinking Atrous Convolution*, sec. 3.3).

    (B, C, H, W) → (B, 256, H, W), before the ReLU.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.point = ConvBN(channels, WIDTH, 1)
        self.atrous = nn.ModuleList(ConvBN(channels, WIDTH, 3, rate, kind=AtrousConv) for rate in RATES)
        self.image = ConvBN(channels, WIDTH, 1)
        self.project = ConvBN((len(RATES) + 2) * WIDTH, WIDTH, 1)

    def forward(self, feature: Tensor) -> Tensor:
        pooled = self.image(feature.mean(dim=(2, 3), keepdim=True))
        branches = [self.point(feature), *(branch(feature) for branch in self.atrous)]
        branches.append(pooled.expand_as(branches[0]))
        return self.project(F.relu(torch.cat(branches, dim=1)))


class Decoder(nn.Module):
    """Features of the encoder (B, 256, H, W), joined with low-level ones (B, C, 4H, 4W) at their size.

    Returns (B, 256, 4H, 4W), before the ReLU.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.low_level = ConvBN(channels, LOW_LEVEL_WIDTH, 1)
        self.fuse = ConvBN(WIDTH + LOW_LEVEL_WIDTH, WIDTH, 3, kind=JoiningConv)
        self.dropout = Dropout(dropout)
        self.refine = ConvBN(WIDTH, WIDTH, 3)

    def forward(self, encoded: Tensor, low_level: Tensor) -> Tensor:
        detail = F.relu(self.low_level(low_level))
        # ReLU and dropout can change places; the last one may overwrite what it is given.
        return self.refine(F.relu(self.dropout(self.fuse((encoded, detail))), inplace=True))


class JoiningConv(nn.Conv2d):
    r"""Convolution of a coarse map, upsampled to the size of a fine one, and that one, channel by channel.

    Upsampling is linear, too, so that it can come last, for each place t of the kernel by itself:

    .. math::
        W * [U x, y] = \sum_t S_t U (W^x_t x) + W^y * y

    `W_t` is a 1×1 convolution of the coarse map, which has a sixteenth of the pixels, and `S_t` the shift,
    with zeros from outside. `S_t U` is the product of a matrix for the rows and one for the columns. In all
    it takes a quarter of the multiply-adds, and no joined map has to be kept.

    ((B, C, h, w), (B, D, H, W)) → (B, `out`, H, W), for a stride of 1, and padding that keeps the size. A
    compiled or exported network shall fit any size, so it takes the steps `in_turn`.
    """

    def forward(self, maps: tuple[Tensor, Tensor]) -> Tensor:  # type: ignore[override]
        if torch.compiler.is_compiling():
            return self.in_turn(maps)
        coarse, fine = maps
        coarse_weight, fine_weight = self.weight.split((coarse.shape[1], fine.shape[1]), dim=1)
        convolved = F.conv2d(fine, fine_weight, self.bias, padding=self.padding)
        return convolved.add_(_convolve_then_upsample(coarse, coarse_weight, fine.shape[-2:]))

    def in_turn(self, maps: tuple[Tensor, Tensor]) -> Tensor:
        """The same by its definition: upsample, join, convolve."""
        coarse, fine = maps
        return super().forward(torch.cat((_resize(coarse, fine.shape[-2:]), fine), dim=1))


def _convolve_then_upsample(feature: Tensor, weight: Tensor, size: Sequence[int]) -> Tensor:
    """Σ_t S_t U (W_t x), see `JoiningConv`; channels last."""
    out, _, tall, wide = weight.shape
    batch, _, height, width = feature.shape
    kernel = weight.permute(2, 3, 0, 1).flatten(0, 2)
    parts = F.conv2d(feature, kernel[:, :, None, None]).permute(0, 2, 3, 1).unflatten(-1, (tall, wide, out))
    parts = parts.permute(0, 1, 3, 2, 4, 5).flatten(3, 4)
    columns = _shifted_upsampling(width, size[1], wide, like=parts)
    parts = columns.expand(batch, height, tall, -1, -1) @ parts
    rows = _shifted_upsampling(height, size[0], tall, like=parts)
    summed = rows.expand(batch, -1, -1) @ parts.flatten(3).flatten(1, 2)
    return summed.unflatten(-1, (-1, out)).permute(0, 3, 1, 2)


def _shifted_upsampling(size: int, to: int, places: int, *, like: Tensor) -> Tensor:
    """Matrix (`to`, `size` · `places`) that upsamples a line, for each place of a kernel, shifted by it."""
    same = torch.eye(size, device=like.device, dtype=torch.promote_types(like.dtype, torch.float32))
    upsampling = F.interpolate(same[None], to, mode="linear", align_corners=True)[0]
    padded = F.pad(upsampling, (places // 2, places // 2))
    return padded.unfold(1, to, 1).flatten(0, 1).T.to(like.dtype)


class Dropout(nn.Dropout):
    """Dropout whose mask does not hold up a CPU: `bernoulli_` takes there five times as long.

    The probability is that of 16 random bits, which is off by 1/131072 at most. The mask is kept as bytes, a
    quarter of what a mask of numbers takes.
    """

    def forward(self, feature: Tensor) -> Tensor:
        if not self.training or feature.device.type != "cpu":
            return super().forward(feature)
        draws = torch.empty(math.ceil(feature.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16)[: feature.numel()]
        kept = torch.empty_like(feature, dtype=torch.bool)
        torch.ge(bits, round(self.p * 2**16) - 2**15, out=kept.as_strided(bits.shape, bits.stride()))
        return feature.mul(kept).div_(1 - self.p)


def _resize(feature: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(feature, size=tuple(size), mode="bilinear", align_corners=True)


def initialise(module: nn.Module) -> None:
    """Kaiming-normal weights for ReLU, zero biases, BN at 1 and 0 (paper sec. 4.2)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
