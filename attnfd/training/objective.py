"""What a training step minimises."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from attnfd.data.labels import UNLABELLED, VOID
from attnfd.distillers.base import Distiller
from attnfd.models.network import Network
from attnfd.models.taps import Output, Tap
from attnfd.runtime import processes
from attnfd.training.labels import LabelLoss


def gather_output(part: Output) -> Output:
    """`processes.gather` of the logits and taps of a network."""
    if processes.count() == 1:
        return part
    logits = None if part.logits is None else processes.gather(part.logits)
    # Sorted, because every process must gather the same map at the same time.
    return Output(logits, {tap: processes.gather(part.taps[tap]) for tap in sorted(part.taps, key=str)})


class Objective(nn.Module):
    """What a step minimises: what the labels ask of a network, plus what a distiller adds.

    Args:
        model: the network in training, teacher or student.
        distiller: the method, unless the network learns from labels alone.
        teacher: the frozen teacher, or what it shares with others. It is kept out of `parameters()` and
            `state_dict()`, and does not run if the method reads nothing of it.
        labels: the loss of the labels; unset: cross-entropy.
    """

    def __init__(
        self,
        model: Network,
        distiller: Distiller | None = None,
        teacher: "Network | SharedTeacher | None" = None,
        labels: LabelLoss | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.distiller = distiller
        self.labels = labels or LabelLoss()
        self._teacher = (teacher,)  # a tuple hides it from nn.Module

    def forward(self, images: Tensor, target: Tensor, progress: float) -> dict[str, Tensor]:
        """Terms by name; their sum is the loss. Images are normalised (B, 3, H, W), see `cross_entropy`."""
        if self.distiller is None:
            logits = processes.gather(self.model(images).logits)
            return self.labels(logits, processes.gather(target))
        taught = self.teach(images)
        student = self.model(images, taps=self.distiller.student_taps)
        return self.terms(student, taught, target, progress)

    def terms(self, student: Output, taught: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        """What the distiller makes of the outputs of student and teacher, beside the loss of the labels."""
        student, taught = gather_output(student), gather_output(taught)
        target = processes.gather(target)
        assert self.distiller is not None
        assert student.logits is not None
        labelled = target.masked_fill(target == UNLABELLED, VOID)
        seen = target if self.distiller.unlabelled else labelled
        terms = self.distiller(student, taught, seen, progress)
        return {**self.labels(student.logits, labelled), **terms}

    @torch.no_grad()
    def teach(self, images: Tensor) -> Output:
        """What the method reads of the teacher; nothing runs for a method that reads nothing."""
        teacher, method = self._teacher[0], self.distiller
        assert method is not None
        if not (method.teacher_taps or method.teacher_logits):
            return Output(None, {})
        assert teacher is not None, "this method needs a teacher"
        return teacher(images, taps=method.teacher_taps, logits=method.teacher_logits)


class SharedTeacher:
    """A frozen teacher whose one forward pass of a batch serves all the students that see the batch.

    Args:
        teacher: in eval mode.
        distillers: the methods of these students; the teacher computes what any of them reads.
    """

    def __init__(self, teacher: Network, distillers: Sequence[Distiller]) -> None:
        self._teacher = teacher
        self._taps = frozenset[Tap]().union(*(distiller.teacher_taps for distiller in distillers))
        self._logits = any(distiller.teacher_logits for distiller in distillers)
        self._images: Tensor | None = None
        self._output = Output(None, {})

    def __call__(self, images: Tensor, taps: Collection[Tap] = (), logits: bool = True) -> Output:
        """What the teacher returns for these images, which are told from others by their identity."""
        if images is not self._images:
            self._images, self._output = images, self._teacher(images, taps=self._taps, logits=self._logits)
        return Output(self._output.logits if logits else None, {tap: self._output.taps[tap] for tap in taps})
