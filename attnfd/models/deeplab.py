"""DeepLabV3+ with taps, the default network of teacher and students."""

from collections.abc import Collection, Generator, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd.config.network import Attention, OutputStride
from attnfd.config.schema import LAYERS
from attnfd.config.section import Probability, validate
from attnfd.models import backbones
from attnfd.models.cbam import CBAM
from attnfd.models.kernels import AtrousConv, Dropout, JoiningConv, resize
from attnfd.models.network import Answering, ClassMap, Network, check_images, merge_classes
from attnfd.models.stages import Stages
from attnfd.models.taps import EARLY_LAYERS, NetInfo, Output, Tap

WIDTH = 256
LOW_LEVEL_WIDTH = 48
RATES = (6, 12, 18)
"""Dilations of the ASPP at output stride 16; twice as large at 8 (Chen et al. 2017, sec. 4.1)."""


class Architecture(Answering):
    """The arguments of a `DeepLabV3Plus`, as a model's card contains them."""

    backbone: str
    dropout: tuple[Probability, Probability]
    attention: Attention | None
    output_stride: OutputStride = 16


class DeepLabV3Plus(Network):
    """A segmentation network that also returns feature maps (taps).

    Chen et al. 2018, *Encoder-Decoder with Atrous Separable Convolution*, with plain convolutions, as AttnFD
    uses it (sec. 4.2). With `attention`, a CBAM is in the forward path at each of the three layers: A''
    replaces A before its ReLU, so cross-entropy trains it. Attention without weights does not change the
    forward path, because it would scale down features and nothing is trained to correct that.

    Args:
        backbone: one of `backbones.names()`, or `timm:<name>`.
        classes: K.
        dropout: two probabilities: the first after the ASPP and after the decoder's first convolution, the
            second after the decoder's second convolution.
        attention: settings of the CBAMs; None: the network has no `refined` taps.
        weights: of the backbone, see `backbones.build`. All other layers start Kaiming-normal, BN at 1 and 0.
        output_stride: side of an image divided by the side of the backbone's last map, 16 or 8.
        class_map: how the logits are merged, see `attnfd.models.network.merge_classes`.

    Raises:
        UserError: the backbone is unknown or cannot have this output stride, its weights are not available,
            or another argument is not valid.

    Example:
        >>> from attnfd.models.taps import Tap
        >>> net = DeepLabV3Plus("mobilenetv2", classes=4).eval()
        >>> logits, taps = net(torch.zeros(1, 3, 33, 33), taps=[Tap("encoder")])
        >>> tuple(logits.shape), tuple(taps[Tap("encoder")].shape)
        ((1, 4, 33, 33), (1, 256, 3, 3))
    """

    architecture: Architecture

    def __init__(
        self,
        backbone: str,
        classes: int,
        *,
        dropout: tuple[float, float] = (0.5, 0.1),
        attention: Attention | None = None,
        weights: str = "none",
        output_stride: OutputStride = 16,
        class_map: ClassMap | None = None,
    ) -> None:
        super().__init__()
        given = {
            "backbone": backbone,
            "classes": classes,
            "dropout": dropout,
            "attention": attention,
            "output_stride": output_stride,
            "class_map": class_map,
        }
        self.architecture = validate(Architecture, given, "DeepLabV3Plus")
        self.backbone = backbones.build(backbone, weights, output_stride)
        self.stages: Stages = self.backbone.meta["stages"]
        self.aspp = ASPP(self.stages[-1].channels, [rate * 16 // output_stride for rate in RATES])
        self.encoder_dropout = Dropout(dropout[0])
        self.decoder = Decoder(self.stages[0].channels, dropout[0])
        self.decoder_dropout = Dropout(dropout[1])
        self.classifier = nn.Conv2d(WIDTH, classes, 1)
        self.margins = None
        self.attention = nn.ModuleDict()
        if self.architecture.attention is not None:
            gates = self.architecture.attention.model_dump()
            for layer in LAYERS:
                self.attention[layer] = CBAM(self.info.channels[layer], **gates)
        for head in (self.aspp, self.decoder, self.classifier, self.attention):
            initialise(head)

    @property
    def info(self) -> NetInfo:
        """Channels per layer and number of classes; the margins, too, if the network is frozen."""
        widths = (*(stage.channels for stage in self.stages), WIDTH, WIDTH)
        return NetInfo(
            channels=dict(zip((*EARLY_LAYERS, *LAYERS), widths, strict=True)),
            classes=self.architecture.answers,
            margins=dict(self.margins.named_buffers()) if self.margins is not None else None,
        )

    @property
    def pretrained(self) -> nn.Module:
        return self.backbone

    def forward(self, images: Tensor, taps: Collection[Tap] = (), logits: bool = True) -> Output:
        """Segment images. Computes only the layers that the result needs.

        Args:
            images: (B, 3, H, W), normalised.
            taps: feature maps to return. Their strides: `backbone` and `encoder` the output stride,
                `decoder` 4, `stage1…3` 4, 8 and the output stride.
            logits: whether to return logits (B, K, H, W).

        Raises:
            TypeError: the images are not a float tensor of this shape.
            ValueError: this network has no such tap.
        """
        check_images(images)
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
            raise self.no_taps(missing)
        # `feature` is now the decoder's, after its ReLU.
        scores = resize(self.classifier(self.decoder_dropout(feature)), images.shape[-2:])
        return Output(merge_classes(scores, self.architecture.class_map), kept)

    def _features(self, images: Tensor, wanted: Collection[Tap]) -> Iterator[tuple[Tap, Tensor]]:
        """Yield every feature map in the order of computation, so that the caller can stop early.

        Attention that is not in the forward path is computed only if it is `wanted`.
        """
        outputs = self.backbone(images)
        *early, last = self.stages
        for layer, stage in zip(EARLY_LAYERS, early, strict=True):
            yield Tap(layer, "pre_relu"), outputs[stage.pre_relu]
            yield Tap(layer, "post_relu"), outputs[stage.post_relu]
        deep = yield from self._tap(
            "backbone", outputs[last.pre_relu], wanted, relu=last.pre_relu != last.post_relu
        )
        encoded = yield from self._tap("encoder", self.aspp(deep), wanted)
        low_level = outputs[early[0].post_relu]
        yield from self._tap("decoder", self.decoder(self.encoder_dropout(encoded), low_level), wanted)

    def _tap(
        self, layer: str, feature: Tensor, wanted: Collection[Tap], relu: bool = True
    ) -> Generator[tuple[Tap, Tensor], None, Tensor]:
        """Yield the points of a layer in order; return the last one, which the next layer reads."""
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
    """Convolution of class `kind` without bias, then BN. The caller applies the ReLU.

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


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2017, *Rethinking Atrous Convolution*, sec. 3.3).

    (B, C, H, W) → (B, 256, H, W), before the ReLU.
    """

    def __init__(self, channels: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.point = ConvBN(channels, WIDTH, 1)
        self.atrous = nn.ModuleList(ConvBN(channels, WIDTH, 3, rate, kind=AtrousConv) for rate in rates)
        self.image = ConvBN(channels, WIDTH, 1)
        self.project = ConvBN((len(rates) + 2) * WIDTH, WIDTH, 1)

    def forward(self, feature: Tensor) -> Tensor:
        pooled = self.image(feature.mean(dim=(2, 3), keepdim=True))
        branches = [self.point(feature), *(branch(feature) for branch in self.atrous)]
        branches.append(pooled.expand_as(branches[0]))
        return self.project(F.relu(torch.cat(branches, dim=1)))


class Decoder(nn.Module):
    """Joins the encoder's features (B, 256, h, w) with the larger low-level features (B, C, H, W).

    Returns (B, 256, H, W), before the ReLU.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.low_level = ConvBN(channels, LOW_LEVEL_WIDTH, 1)
        self.fuse = ConvBN(WIDTH + LOW_LEVEL_WIDTH, WIDTH, 3, kind=JoiningConv)
        self.dropout = Dropout(dropout)
        self.refine = ConvBN(WIDTH, WIDTH, 3)

    def forward(self, encoded: Tensor, low_level: Tensor) -> Tensor:
        detail = F.relu(self.low_level(low_level))
        # ReLU and dropout can be swapped; the ReLU is then last and may overwrite its input.
        return self.refine(F.relu(self.dropout(self.fuse((encoded, detail))), inplace=True))


def initialise(module: nn.Module) -> None:
    """Kaiming-normal weights for ReLU, zero biases, BN at 1 and 0 (paper sec. 4.2)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
