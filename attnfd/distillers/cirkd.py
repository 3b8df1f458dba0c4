"""CIRKD: relations between the pixels of different images (Yang et al. 2022)."""

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from attnfd.config.section import NonNegative, Positive, Temperature
from attnfd.data.labels import UNLABELLED, VOID
from attnfd.distillers.base import Distiller, FeatureMethod, Net, match_size
from attnfd.losses import EPS, full_precision, kd_loss
from attnfd.models.taps import Output


def relation_divergence(
    student: Tensor, teacher: Tensor, keys: tuple[Tensor, Tensor], known: Tensor, tau: float
) -> Tensor:
    """Divergence of each pixel's relations, `KL(softmax(T k_tᵀ / τ) ‖ softmax(S k_sᵀ / τ))` by rows.

    Args:
        student: unit embeddings (M, C).
        teacher: unit embeddings (M, D).
        keys: unit embeddings that the pixels are compared with, student (Q, C) and teacher (Q, D).
        known: (Q,), bool: the keys that count. A mask has the same size in every step. The size of a
            selection changes, and the host would wait for the GPU to learn it.
        tau: temperature τ > 0.

    Returns:
        (M,); zeros if no key counts.
    """
    # The lowest number instead of -inf: the softmax stays finite if no key counts.
    hidden = student.new_zeros(len(known)).where(known, torch.finfo(student.dtype).min)
    log_student, log_teacher = (
        torch.addmm(hidden, pixels, own.T, alpha=1 / tau).log_softmax(dim=1)
        for pixels, own in zip((student, teacher), keys, strict=True)
    )
    divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)
    return divergence * known.any()


@full_precision
def unit(features: Tensor) -> Tensor:
    """Unit vectors over the channels of (B, C, H, W) as (B, H·W, C); a vector of zeros stays zero."""
    return F.normalize(features.flatten(2).transpose(1, 2), dim=2, eps=EPS)


@full_precision
def batch_loss(student: Tensor, teacher: Tensor, valid: Tensor, *, temperature: float) -> Tensor:
    r"""Mini-batch pixel-to-pixel distillation.

    With the cosine similarities $S_{ij} = \hat F_i \hat F_j^⊤ / τ$ of the pixels of images i and j,

    $$L = \frac{1}{B^2} \sum_{i,j} \frac{1}{N_i} \sum_{n} KL(softmax(S^t_{ij})_n ‖ softmax(S^s_{ij})_n)$$

    Yang et al., "Cross-Image Relational Knowledge Distillation for Semantic Segmentation", CVPR 2022,
    sec. 3. The sum is over all ordered pairs and includes i = j, so a batch of one image is enough.

    Args:
        student: features (B, C, H, W).
        teacher: features (B, D, H, W).
        valid: (B, H, W), bool; void positions are neither rows nor columns (the released code keeps them).
            An image with only void has no pairs; a batch with only void gives 0.
        temperature: τ > 0.

    Example:
        >>> teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)  # two orthogonal pixels
        >>> loss = batch_loss(torch.ones(1, 2, 1, 2), teacher, torch.ones(1, 1, 2, dtype=bool), temperature=1)
        >>> f"{loss:.4f}"  # KL of softmax(1, 0) from (½, ½)
        '0.1109'
    """
    valid = valid.flatten(1)
    counts = valid.sum(dim=1, keepdim=True)
    s, t = unit(student), unit(teacher)
    share = (valid.to(s.dtype) / counts.clamp_min(1)).flatten()
    pixels = s.flatten(0, 1), t.flatten(0, 1)
    losses = [
        (share * relation_divergence(*pixels, (own, taught), known, temperature)).sum()
        for own, taught, known in zip(s, t, valid, strict=True)
    ]
    return torch.stack(losses).sum() / (counts > 0).sum().clamp_min(1) ** 2


@full_precision
def memory_loss(
    student: Tensor,
    teacher: Tensor,
    keys: Tensor,
    *,
    temperature: float,
    valid: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    r"""Memory-based distillation: compares pixels with embeddings of earlier batches.

    With stored embeddings V (of pixels, or of regions) and pixels n,

    $$L = \frac{1}{M} \sum_n KL(softmax(t_n V^⊤ / τ) ‖ softmax(s_n V^⊤ / τ))$$

    Yang et al. 2022, sec. 3.

    Args:
        student: projected unit embeddings (M, D) of pixels.
        teacher: unit embeddings (M, D) of the same pixels.
        keys: unit embeddings (Q, D); if there are no keys or no pixels, the loss is 0.
        temperature: τ > 0.
        valid: (M,), bool: the pixels that are not void, only these count; None: all.
        known: (Q,), bool: the keys that count; None: all.

    Example:
        >>> student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
        >>> loss = memory_loss(student, teacher, torch.eye(2), temperature=1)
        >>> f"{loss:.4f}"  # KL of softmax(1, 0) from (½, ½)
        '0.1109'
    """
    valid = torch.ones_like(student[:, 0], dtype=torch.bool) if valid is None else valid
    known = torch.ones_like(keys[:, 0], dtype=torch.bool) if known is None else known
    divergence = relation_divergence(student, teacher, (keys, keys), known, temperature)
    return divergence.where(valid, 0).sum() / valid.sum().clamp_min(1)


def pool(features: Tensor, valid: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Average the valid positions of cells of `factor` × `factor`.

    Args:
        features: (B, C, H, W).
        valid: (B, H, W), bool.
        factor: side of a cell; cells at the right and lower border may be smaller.

    Returns:
        Means (B, C, ⌈H/factor⌉, ⌈W/factor⌉), 0 in cells without a valid position; and a mask (B, …) of the
        cells with a valid position.
    """
    weights = valid.unsqueeze(1).to(features.dtype)
    total, part = (F.avg_pool2d(x, factor, ceil_mode=True) for x in (features * weights, weights))
    return total / part.masked_fill(part == 0, 1), part.squeeze(1) > 0


def _ranks(groups: Tensor) -> Tensor:
    """Position of each item (M,) within its group, in the order of the input."""
    ordered, order = groups.sort(stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=order.device) - torch.searchsorted(ordered, ordered)
    return ranks


def _members(classes: Tensor, number: int) -> Tensor:
    """One-hot classes 0 … number - 1 (…, number), bool; other classes give a row of False."""
    return classes.unsqueeze(-1) == torch.arange(number, device=classes.device)


class Queues(nn.Module):
    """A first-in-first-out queue of embeddings per class, in ring buffers.

    Args:
        classes: K.
        size: most embeddings in a queue; a new one replaces the oldest.
        channels: C.
    """

    items: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(self, classes: int, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("items", torch.zeros(classes, size, channels))
        self.register_buffer("pointer", torch.zeros(classes, dtype=torch.long))
        self.register_buffer("filled", torch.zeros(classes, dtype=torch.long))

    def push(self, items: Tensor, classes: Tensor) -> None:
        """Append embeddings (M, C), in order, to the queues of their classes (M,); class K has no queue."""
        if not len(items):
            return
        number, size, _ = self.items.shape
        own = classes.clamp(max=number - 1)
        counts = _members(classes, number).sum(dim=0)
        ranks = _ranks(classes)
        stays = (classes < number) & (ranks >= (counts - size)[own])  # each slot is written once
        # Items that do not stay are replaced by the first that does, so that the number of writes is fixed.
        chosen = torch.arange(len(items), device=items.device).where(stays, stays.byte().argmax())
        slots = (own * size + (self.pointer[own] + ranks) % size)[chosen]
        stored = self.items.flatten(0, 1)
        stored[slots] = items[chosen].to(stored.dtype).where(stays[chosen, None], stored[slots])
        self.pointer.add_(counts).remainder_(size)
        self.filled.add_(counts).clamp_(max=size)

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Draw n = min(`count`, size) embeddings of each class without replacement.

        Returns:
            The embeddings (K·n, C), and a mask (K·n,) of those that are real: a queue may still have fewer
            than n.
        """
        classes, size, _ = self.items.shape
        keys = torch.rand(classes, size, device=self.items.device)
        empty = torch.arange(size, device=keys.device) >= self.filled.unsqueeze(1)
        drawn, slots = keys.masked_fill(empty, 2).topk(min(count, size), largest=False)  # 2 > any key
        items = self.items.gather(1, slots.unsqueeze(2).expand(-1, -1, self.items.shape[2]))
        return items.flatten(0, 1), (drawn < 2).flatten()


class Memory(nn.Module):
    """The stored embeddings of the teacher at one layer, and the projector of the student's features.

    Args:
        config: sizes of the queues and of the samples.
        in_channels: of the student.
        channels: of the teacher.
        classes: K.
    """

    def __init__(self, config: "CIRKD.Config", in_channels: int, channels: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.classes = classes
        self.projector = nn.Sequential(
            nn.Conv2d(in_channels, channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=1, bias=False),
        )
        self.pixels = Queues(classes, config.pixel_queue, channels)
        self.regions = Queues(classes, config.region_queue, channels)

    def sample(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Pixel and region embeddings, the same number of each class; see `Queues.sample`."""
        return (
            self.pixels.sample(self.config.pixel_samples // self.classes + 1),
            self.regions.sample(self.config.region_samples // self.classes + 1),
        )

    @torch.no_grad()
    def remember(self, teacher: Tensor, labels: Tensor) -> None:
        """Store a batch: for each image and class, the region's embedding and some random pixels.

        Args:
            teacher: unit embeddings (B, H·W, C).
            labels: (B, H·W), 255 = void.
        """
        images = torch.arange(len(labels), device=labels.device)[:, None]
        valid = labels != VOID
        groups = (images * self.classes + labels).where(valid, len(labels) * self.classes).flatten()
        shuffled = torch.rand(len(groups), device=groups.device).argsort()
        kept = torch.zeros_like(groups, dtype=torch.bool)
        kept[shuffled] = _ranks(groups[shuffled]) < self.config.pixels_per_image
        classes = labels.flatten().where(kept & valid.flatten(), self.classes)
        self.pixels.push(teacher.flatten(0, 1), classes)

        # A product with the one-hot labels, because index_add has no fixed order of summation on GPUs.
        member = _members(labels, self.classes)
        with torch.autocast(teacher.device.type, enabled=False):
            sums = member.transpose(1, 2).to(teacher.dtype) @ teacher
        classes = torch.arange(self.classes, device=labels.device).where(member.any(dim=1), self.classes)
        # The mean and the sum have the same unit vector.
        self.regions.push(F.normalize(sums.flatten(0, 1), dim=1, eps=EPS), classes.flatten())


class CIRKD(Distiller):
    """Compares the relations of pixels to other pixels, images and classes between student and teacher.

    Yang et al. 2022. It has four terms: `kd`, `cirkd_batch`, `cirkd_pixel`, `cirkd_region`. Only the two
    memory terms project the student's features. A batch is first compared with the memory of earlier
    batches and then stored in it (the released code stores it first). The memory changes only in training
    mode.
    """

    title = "CIRKD"

    class Config(FeatureMethod):
        kd_weight: NonNegative = Field(default=1, description="factor of the KD term")
        kd_temperature: Temperature = Field(default=1, description="T of the KD term")
        batch_weight: NonNegative = Field(
            default=1, description="factor of the mini-batch pixel-to-pixel term"
        )
        batch_temperature: Temperature = Field(default=0.1, description="τ of the mini-batch term")
        pool: Positive = Field(default=4, description="side of the averaged cells in the mini-batch term")
        pool_from: Positive = Field(default=256, description="maps with both sides at least this are pooled")
        pixel_weight: NonNegative = Field(
            default=0.1, description="factor of the memory-based pixel-to-pixel term"
        )
        region_weight: NonNegative = Field(
            default=0.1, description="factor of the memory-based pixel-to-region term"
        )
        memory_temperature: Temperature = Field(default=0.1, description="τ of the memory terms")
        pixel_queue: Positive = Field(default=20000, description="pixel embeddings stored per class")
        region_queue: Positive = Field(default=2000, description="region embeddings stored per class")
        pixel_samples: Positive = Field(
            default=4096, description="n; n // K + 1 pixel embeddings per class are drawn"
        )
        region_samples: Positive = Field(
            default=1024, description="n; n // K + 1 region embeddings per class are drawn"
        )
        pixels_per_image: Positive = Field(
            default=16, description="pixels of a class that an image adds to the memory"
        )

    config: Config
    unlabelled = True
    teacher_logits = True

    def __init__(self, student: Net, teacher: Net, config: Config | None = None) -> None:
        super().__init__(student, teacher, config)
        config, classes = self.config, self.teacher.classes
        self.student_taps = self.teacher_taps = frozenset(config.taps)
        self.memories = nn.ModuleDict(
            {
                layer: Memory(config, self.student.channels[layer], self.teacher.channels[layer], classes)
                for layer in config.layers
            }
        )

    def forward(self, student: Output, teacher: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        assert student.logits is not None
        assert teacher.logits is not None
        config = self.config
        kd = kd_loss(student.logits, teacher.logits, target, temperature=config.kd_temperature)
        batch, pixel, region = [], [], []
        for tap in config.taps:
            features, taught = student.taps[tap], teacher.taps[tap]
            labels = (
                F.interpolate(target.unsqueeze(1).float(), size=taught.shape[-2:], mode="nearest")
                .squeeze(1)
                .long()
            )
            batch.append(self._batch(match_size(features, taught), taught, labels != VOID))
            known = labels.masked_fill(labels == UNLABELLED, VOID)  # A memory needs classes.
            pixel_loss, region_loss = self._memory(tap.layer, features, taught, known)
            pixel.append(pixel_loss)
            region.append(region_loss)
        return {
            "kd": config.weight * config.kd_weight * kd,
            "cirkd_batch": config.weight * config.batch_weight * torch.stack(batch).sum(),
            "cirkd_pixel": config.weight * config.pixel_weight * torch.stack(pixel).sum(),
            "cirkd_region": config.weight * config.region_weight * torch.stack(region).sum(),
        }

    def _batch(self, features: Tensor, taught: Tensor, valid: Tensor) -> Tensor:
        if min(features.shape[-2:]) >= self.config.pool_from:
            features, _ = pool(features, valid, self.config.pool)
            taught, valid = pool(taught, valid, self.config.pool)
        return batch_loss(features, taught, valid, temperature=self.config.batch_temperature)

    def _memory(self, layer: str, features: Tensor, taught: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.memories[layer]
        assert isinstance(memory, Memory)
        valid = (labels != VOID).flatten()
        t = unit(taught)
        s = unit(match_size(memory.projector(features), taught))
        tau = self.config.memory_temperature
        losses = [
            memory_loss(s.flatten(0, 1), t.flatten(0, 1), keys, temperature=tau, valid=valid, known=known)
            for keys, known in memory.sample()
        ]
        if self.training:
            memory.remember(t, labels.flatten(1))
        return losses[0], losses[1]
