"""The loss that a training step minimises."""

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
    """The terms of the loss: those of the labels, and those of a distiller.

    Args:
        model: the network in training, teacher or student.
        distiller: the method; None: the network learns from labels only.
        teacher: the frozen teacher, or a `SharedTeacher`. It is not part of `parameters()` and
            `state_dict()`. It does not run if the method reads nothing from it.
        labels: the loss of the labels; None: cross-entropy.
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
        """The terms by name; their sum is the loss.

        Args:
            images: (B, 3, H, W), normalised.
            target: labels (B, H, W), 255 = void, 254 = no label.
            progress: part of the training that is done, 0 ≤ progress < 1.
        """
        if self.distiller is None:
            logits = processes.gather(self.model(images).logits)
            return self.labels(logits, processes.gather(target))
        taught = self.teach(images)
        student = self.model(images, taps=self.distiller.student_taps)
        return self.terms(student, taught, target, progress)

    def terms(self, student: Output, taught: Output, target: Tensor, progress: float) -> dict[str, Tensor]:
        """The terms of labels and distiller, from the outputs of student and teacher."""
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
        """The teacher's output that the method reads; if it reads nothing, the teacher does not run."""
        teacher, method = self._teacher[0], self.distiller
        assert method is not None
        if not (method.teacher_taps or method.teacher_logits):
            return Output(None, {})
        assert teacher is not None, "this method needs a teacher"
        return teacher(images, taps=method.teacher_taps, logits=method.teacher_logits)


class SharedTeacher:
    """A frozen teacher that several students share: it runs only once for each batch.

    Args:
        teacher: in eval mode.
        distillers: the methods of these students; the teacher computes all that they read.
    """

    def __init__(self, teacher: Network, distillers: Sequence[Distiller]) -> None:
        self._teacher = teacher
        self._taps = frozenset[Tap]().union(*(distiller.teacher_taps for distiller in distillers))
        self._logits = any(distiller.teacher_logits for distiller in distillers)
        self._images: Tensor | None = None
        self._output = Output(None, {})

    def __call__(self, images: Tensor, taps: Collection[Tap] = (), logits: bool = True) -> Output:
        """The teacher's output for these images. Another tensor object counts as other images."""
        if images is not self._images:
            self._images, self._output = images, self._teacher(images, taps=self._taps, logits=self._logits)
        return Output(self._output.logits if logits else None, {tap: self._output.taps[tap] for tap in taps})
