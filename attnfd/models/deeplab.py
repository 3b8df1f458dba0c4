"""DeepLabV3+ with taps, the network of teacher and students alike."""

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd.config import Attention
from attnfd.models import backbones
from attnfd.models.cbam import CBAM
from attnfd.models.taps import STAGES, TAPS, NetInfo, Output, Tap

WIDTH = 256
LOW_LEVEL_WIDTH = 48
RATES = (6, 12, 18)


class DeepLabV3Plus(nn.Module):
    """Segmentation network at output stride 16, whose feature maps can be read on the way.

    Chen et al. 2018, *Encoder-Decoder with Atrous Separable Convolution*, with plain convolutions, as AttnFD
    uses it (sec. 4.2). With `attention`, a CBAM stands in the forward path at each of the three taps: A''
    replaces A before its ReLU, so cross-entropy trains it.

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
        self.architecture = {
            "backbone": backbone,
            "classes": classes,
            "dropout": list(dropout),
            "attention": attention.model_dump() if attention else None,
        }
        self.spec = backbones.entry(backbone)
        self.backbone = backbones.build(backbone, weights)
        self.aspp = ASPP(self.spec.stages[-1].channels)
        self.decoder = Decoder(self.spec.stages[0].channels, classes)
        self.dropout = nn.ModuleList([nn.Dropout(p) for p in (dropout[0], *dropout)])
        self.attention = nn.ModuleDict()
        if attention is not None:
            for layer in TAPS:
                self.attention[layer] = CBAM(self.info.channels[layer], **attention.model_dump())
        self.margins: nn.Module | None = None
        """Buffers of the frozen network, see `attnfd.models.frozen`."""
        for head in (self.aspp, self.decoder, self.attention):
            initialise(head)

    @property
    def info(self) -> NetInfo:
        """Channels per layer and classes; the margins, too, once the network is frozen."""
        *early, last = (stage.channels for stage in self.spec.stages)
        return NetInfo(
            channels={**dict(zip(STAGES, early, strict=True)), **dict(zip(TAPS, (last, WIDTH, WIDTH), strict=True))},
            classes=int(self.architecture["classes"]),
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
        kept: dict[Tap, Tensor] = {}
        for tap, feature in self._features(images):
            if tap is None:
                return Output(feature if logits else None, kept)
```
