"""Several students with one teacher: each result is as if trained alone, with one teacher pass per batch."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from attnfd import discovery
from attnfd.config.network import Attention
from attnfd.config.params import load_params
from attnfd.data.prepared import Prepared
from attnfd.errors import StoppedError, UserError
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.frozen import freeze
from attnfd.models.taps import Output, Tap
from attnfd.runtime.fabric import start_fabric
from attnfd.training import loop
from attnfd.training.checkpoints import Checkpoints
from attnfd.training.loop import Trainee
from attnfd.training.objective import Objective, SharedTeacher
from attnfd.training.randomness import random_state
from attnfd.training.state import TrainState
from tests.data import trees
from tests.training.test_training import Curves

PROJECT = Path(__file__).parents[2]
ATTENTION = Attention(reduction=16, kernel_size=7, channel=True, spatial=True)
METHODS = discovery.names("distillers")
SETTINGS = {"batch_size": 2, "crop": (33, 33), "lr": 0.01}


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNFD_CHECKPOINT_SECONDS", "0")
    return trees.prepared_tree(tmp_path / "tree", {"train": ((40, 40),) * 6, "val": ((40, 40),) * 2})


class Teacher:
    """A frozen network that counts its forward passes."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        self.network = freeze(DeepLabV3Plus("mobilenetv2", classes=11, attention=ATTENTION).eval())
        self.passes = 0
        self.network.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.passes += 1


def trainees(teacher: Teacher, *methods: str) -> list[Trainee]:
    """Students of these methods with the same seed; several share the teacher."""
    params = load_params(PROJECT / "params.yaml")
    found = []
    for name in methods:
        torch.manual_seed(0)
        student = DeepLabV3Plus("mobilenetv2", classes=11)
        method = discovery.component("distillers", name)
        settings = params.method(name, "shapes")
        distiller = method(student.info, teacher.network.info, settings)
        found.append((name, student, distiller, random_state()))
    serving = SharedTeacher(teacher.network, [distiller for _, _, distiller, _ in found])
    return [
        Trainee(
            Objective(student, distiller, serving if len(methods) > 1 else teacher.network),
            Curves(),
            name,
            Checkpoints(Path("alone" if len(methods) == 1 else "together", name)),
            random,
        )
        for name, student, distiller, random in found
    ]


def fit(given: list[Trainee], prepared: Prepared, epochs: int = 2) -> list[pd.DataFrame | UserError]:
    fabric = start_fabric("32-true")
    settings = trees.training(**SETTINGS, epochs=epochs)
    return loop.fit_together(given, prepared, settings, seed=3, fabric=fabric)


def assert_same(one: Trainee, other: Trainee) -> None:
    state = other.objective.state_dict()
    for name, value in one.objective.state_dict().items():
        assert torch.equal(value, state[name]), (one.title, name)


def after_step(number: int, title: str, do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `do` right after a step of one of the trainings."""
    step = TrainState.step

    def stepping(self: TrainState, *batch: Tensor) -> None:
        step(self, *batch)
        if self.done == number and self.title == title:
            do()

    monkeypatch.setattr(TrainState, "step", stepping)


def test_every_method_gets_the_bits_that_it_would_get_alone(prepared: Prepared) -> None:
    teacher = Teacher()
    together = trainees(teacher, *METHODS)
    histories = fit(together, prepared, epochs=1)
    assert teacher.passes == 3
    for trainee, history in zip(together, histories, strict=True):
        alone = trainees(Teacher(), trainee.title)
        pd.testing.assert_frame_equal(*fit(alone, prepared, epochs=1), history)
        assert_same(trainee, alone[0])


def test_one_that_is_further_back_catches_up(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [trainees(Teacher(), name) for name in ("attnfd", "cirkd")]
    for one in whole:
        fit(one, prepared)
    with monkeypatch.context() as patched:
        after_step(5, "attnfd", lambda: os.kill(os.getpid(), signal.SIGTERM), patched)
        with pytest.raises(StoppedError, match="SIGTERM after step 5 of 6"):
            fit(trainees(Teacher(), "attnfd", "cirkd"), prepared)
    # One of them has lost its last checkpoint, and resumes from the epoch before.
    Checkpoints(Path("together/cirkd")).files()[0].unlink()
    taken: list[tuple[str, int]] = []
    step = TrainState.step
    monkeypatch.setattr(
        TrainState, "step", lambda self, *b: (taken.append((self.title, self.done)), step(self, *b))
    )
    resumed = trainees(Teacher(), "attnfd", "cirkd")
    fit(resumed, prepared)
    assert taken == [("cirkd", 3), ("cirkd", 4), ("attnfd", 5), ("cirkd", 5)]
    for one, other in zip(resumed, whole, strict=True):
        assert_same(one, other[0])


def test_one_that_diverges_ends_alone(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    together = trainees(Teacher(), "kd", "attnfd", "fitnet")
    spoiled = together[1].objective.model.classifier
    after_step(2, "attnfd", lambda: spoiled.weight.data.fill_(float("nan")), monkeypatch)
    kd, attnfd, fitnet = fit(together, prepared)
    assert isinstance(attnfd, UserError)
    assert str(attnfd).startswith("epoch 1, step 3: ce is nan")
    for history, trainee in ((kd, together[0]), (fitnet, together[2])):
        alone = trainees(Teacher(), trainee.title)
        pd.testing.assert_frame_equal(*fit(alone, prepared), history)
        assert_same(trainee, alone[0])


def test_each_trains_as_many_epochs_as_it_would_alone(prepared: Prepared) -> None:
    together = trainees(Teacher(), "kd", "none", "fitnet")
    together[1:] = [together[1]._replace(epochs=3), together[2]._replace(epochs=1)]
    histories = fit(together, prepared)
    assert [len(history) for history in histories] == [2, 3, 1]
    for trainee, history in zip(together, histories, strict=True):
        alone = trainees(Teacher(), trainee.title)[0]._replace(epochs=trainee.epochs)
        pd.testing.assert_frame_equal(*fit([alone], prepared), history)
        assert_same(trainee, alone)


def test_costs_are_logged_only_of_one_that_trains_alone(prepared: Prepared) -> None:
    (alone,), company = trainees(Teacher(), "kd"), trainees(Teacher(), "kd", "cwd")
    fit([alone], prepared)
    fit(company, prepared)
    speeds = [{key for key in one.log.values if key.startswith("speed/")} for one in (alone, *company)]
    assert speeds[0] >= {"speed/training_seconds", "speed/seconds_per_step"}
    assert speeds[1:] == [set(), set()]


def test_a_shared_teacher_gives_each_what_it_asks_for() -> None:
    teacher = Teacher()
    encoder, decoder = Tap("encoder"), Tap("decoder", "refined")
    parts = [trainees(teacher, name)[0].objective.distiller for name in ("attnfd", "kd", "fitnet")]
    shared = SharedTeacher(teacher.network, [part for part in parts if part is not None])
    images, others = torch.randn(2, 3, 33, 33), torch.randn(2, 3, 33, 33)
    with torch.no_grad():
        one, two = shared(images, {encoder}, False), shared(images, {decoder}, True)
        assert teacher.passes == 1
        expected: Output = teacher.network(images, {encoder, decoder})
        other = shared(others, {encoder}, False)
    assert one.logits is None
    assert one.taps.keys() == {encoder}
    assert torch.equal(one.taps[encoder], expected.taps[encoder])
    assert torch.equal(two.taps[decoder], expected.taps[decoder])
    assert torch.equal(two.logits, expected.logits)
    assert teacher.passes == 3
    assert not torch.equal(other.taps[encoder], one.taps[encoder])
