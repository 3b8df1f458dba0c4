"""Trainings that stop in the middle and resume give the same result as without a stop."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from attnfd import discovery
from attnfd.config.network import Attention, NetworkConfig
from attnfd.config.params import Params, load_params
from attnfd.data.prepared import Prepared
from attnfd.errors import StoppedError, UserError
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.frozen import freeze
from attnfd.paths import Cell
from attnfd.runtime.fabric import start_fabric
from attnfd.tracking import inputs
from attnfd.training import interrupts, loop
from attnfd.training.checkpoints import Checkpoints
from attnfd.training.objective import Objective
from attnfd.training.randomness import random_state, set_random_state
from attnfd.training.state import Trainee, TrainState
from tests.data import trees
from tests.training.test_training import Curves

PROJECT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = {"batch_size": 2, "crop": (33, 33), "lr": 0.01, "epochs": 3}
ATTENTION = Attention(reduction=16, kernel_size=7, channel=True, spatial=True)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNFD_CHECKPOINT_SECONDS", "0")
    return trees.prepared_tree(tmp_path / "tree", {"train": ((40, 40),) * 6, "val": ((40, 40),) * 2})


def objective(method: str) -> Objective:
    """A student with a teacher, or the teacher itself; every call gives the same weights."""
    torch.manual_seed(0)
    if method == "teacher":
        return Objective(DeepLabV3Plus("mobilenetv2", classes=11, attention=ATTENTION))
    params = load_params(PROJECT / "params.yaml")
    teacher = freeze(DeepLabV3Plus("mobilenetv2", classes=11, attention=ATTENTION).eval())
    student = DeepLabV3Plus("mobilenetv2", classes=11)
    distiller = discovery.component("distillers", method)(
        student.info, teacher.info, params.method(method, "shapes")
    )
    return Objective(student, distiller, teacher)


def fit(trained: Objective, prepared: Prepared, log: Curves, folder: str) -> pd.DataFrame:
    trainee = Trainee(trained, log, "test", Checkpoints(Path(folder)), random_state())
    return loop.fit(trainee, prepared, trees.training(**SETTINGS), seed=3, fabric=start_fabric("32-true"))


def after_step(number: int, do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `do` right after this step of a training."""
    step = TrainState.step

    def stepping(self: TrainState, *batch: torch.Tensor) -> None:
        step(self, *batch)
        if self.done == number:
            do()

    monkeypatch.setattr(TrainState, "step", stepping)


def same_weights(one: Objective, other: Objective) -> bool:
    state = other.state_dict()
    return all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


# Nine steps in three epochs. CIRKD has queues and draws random samples from them.
@pytest.mark.parametrize(("method", "step"), [("teacher", 5), ("attnfd", 4), ("cirkd", 8), ("cirkd", 6)])
def test_a_stopped_training_resumes_bit_by_bit(
    method: str, step: int, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = objective(method)
    expected = fit(whole, prepared, Curves(), "whole")
    torch.manual_seed(99)  # other uses of the generators must not matter

    log = Curves()
    with monkeypatch.context() as patched:
        after_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM), patched)
        with pytest.raises(
            StoppedError, match=f"SIGTERM after step {step} of 9; run the same command"
        ) as stopped:
            fit(objective(method), prepared, log, "stopped")
    assert stopped.value.status == 143
    resumed = objective(method)
    torch.manual_seed(1234)
    history = fit(resumed, prepared, log, "stopped")
    pd.testing.assert_frame_equal(history, expected)
    assert same_weights(resumed, whole)
    assert list(log.values["step/loss"]) == list(range(1, 10))
    assert list(log.values["epoch/loss"]) == [1, 2, 3]


def test_a_killed_training_resumes_from_its_last_epoch(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Like a kill: the training cannot react."""

    def kill() -> None:
        raise Killed

    whole = objective("cirkd")
    expected = fit(whole, prepared, Curves(), "whole")
    steps: list[int] = []
    with monkeypatch.context() as patched:
        after_step(8, kill, patched)
        with pytest.raises(Killed):
            fit(objective("cirkd"), prepared, Curves(), "killed")
    step = TrainState.step
    monkeypatch.setattr(
        TrainState, "step", lambda self, *batch: (steps.append(self.done), step(self, *batch))
    )
    resumed = objective("cirkd")
    pd.testing.assert_frame_equal(fit(resumed, prepared, Curves(), "killed"), expected)
    assert steps == [6, 7, 8]
    assert same_weights(resumed, whole)


def test_a_training_that_diverges_names_its_last_good_checkpoint(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverging = objective("teacher")
    after_step(4, lambda: diverging.model.decoder.requires_grad_(False).apply(_spoil), monkeypatch)
    with pytest.raises(UserError, match=r"epoch 2, step 2: ce is nan; .*: diverged/000000003\.pt$"):
        fit(diverging, prepared, Curves(), "diverged")


def _spoil(module: torch.nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.data.fill_(float("nan"))


def test_checkpoints_are_no_more_frequent_than_asked_for(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(objective("teacher"), prepared, Curves(), "often")
    assert [file.name for file in Checkpoints(Path("often")).files()] == ["000000006.pt", "000000003.pt"]
    monkeypatch.setenv("ATTNFD_CHECKPOINT_SECONDS", "1000")
    fit(objective("teacher"), prepared, Curves(), "seldom")
    assert not Path("seldom").exists()


class TestCheckpoints:
    def test_the_last_two_are_kept_until_they_are_cleared(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path / "cell" / "key")
        assert checkpoints.load() is None
        for step in (5, 10, 15):
            checkpoints.save({"step": step, "weights": torch.ones(2)}, step)
        assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["000000010.pt", "000000015.pt"]
        found = checkpoints.load()
        assert found is not None
        assert found["step"] == 15
        checkpoints.clear()
        assert not checkpoints.folder.exists()

    def test_a_damaged_one_gives_way_to_the_one_before(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path)
        for step in (1, 2):
            checkpoints.save({"step": step, "weights": torch.ones(1000)}, step)
        newest = checkpoints.files()[0]
        newest.write_bytes(newest.read_bytes()[:700])
        assert checkpoints.load()["step"] == 1  # type: ignore[index]

    def test_a_full_disk_leaves_the_one_before(self, tmp_path: Path) -> None:
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save({"step": 1}, 1)
        before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            with pytest.raises(UserError, match=r"000000002.pt: cannot be written .* free some space"):
                checkpoints.save({"weights": torch.ones(1_000_000)}, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
        assert [path.name for path in tmp_path.iterdir()] == ["000000001.pt"]
        assert checkpoints.load() == {"step": 1}

    def test_code_in_one_is_not_run(self, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
                return os.mkdir, (str(tmp_path / "exploded"),)

        torch.save({"step": Bomb()}, tmp_path / "000000001.pt")
        assert Checkpoints(tmp_path).load() is None
        assert not (tmp_path / "exploded").exists()


@pytest.fixture
def listening() -> Iterator[None]:
    """Allow SIGINT as in a terminal: a background job of a shell inherits that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_the_second_signal_is_not_held_back() -> None:
    with interrupts.interruptible() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.asked == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_is_ignored_stays_so(listening: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.interruptible() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.asked is None


def test_other_inputs_have_other_checkpoints(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    params = load_params(PROJECT / "params.yaml")
    cell = Cell(stage="train_teacher", dataset="shapes")
    monkeypatch.setattr(inputs, "open_prepared", lambda *_: prepared)
    found = inputs.checkpoints(params, cell)
    assert found.folder.parent == Path.cwd() / ".attnfd" / "checkpoints" / "models" / "shapes" / "teacher"
    assert inputs.checkpoints(params, cell).key == found.key
    changed = Params({**params.raw, "train_teacher": {**params.raw["train_teacher"], "seed": 1}})
    assert inputs.checkpoints(changed, cell).key != found.key
    relabelled = prepared.card.model_copy(update={"sha256": "0" * 64})
    monkeypatch.setattr(
        inputs, "open_prepared", lambda *_: Prepared(relabelled, prepared.index, prepared.root)
    )
    assert inputs.checkpoints(params, cell).key != found.key


def test_the_code_of_a_training_is_an_input() -> None:
    cell = Cell(stage="distill", dataset="shapes", student="resnet18", method="attnfd", seed=0)
    code = inputs._code(cell, NetworkConfig(backbone="resnet18"))
    assert {"attnfd.training.loop", "attnfd.models.deeplab", "attnfd.losses"} <= code.keys()
    methods = {name for name in code if name.startswith("attnfd.distillers.")}
    assert methods == {"attnfd.distillers.base", "attnfd.distillers.attnfd"}
    assert not any(
        name.startswith(("attnfd.cli", "attnfd.tracking", "attnfd.readers", "attnfd.scan")) for name in code
    )
    assert len(set(code.values())) > 10


@pytest.mark.parametrize(("saved", "visible", "expected"), [(4, 1, 1), (1, 2, 1), (2, 2, 2), (0, 1, 0)])
def test_random_states_of_more_gpus_than_are_visible(
    saved: int, visible: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[int, int] = {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: given.update({device: state}))
    set_random_state({**random_state(), "cuda": list(range(saved))})
    assert given == {device: device for device in range(expected)}
