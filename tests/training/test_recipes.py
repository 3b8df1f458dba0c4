"""Options of a training that transformers need; they do not change the paper's training."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnfd.data.prepared import Prepared
from attnfd.errors import StoppedError
from attnfd.runtime.fabric import start_fabric
from attnfd.training import optimizer
from attnfd.training.average import Average
from attnfd.training.checkpoints import Checkpoints
from attnfd.training.loop import fit, fit_together
from attnfd.training.randomness import random_state
from attnfd.training.state import Trainee, TrainState
from tests.data import trees
from tests.training.test_resume import after_step, objective, same_weights
from tests.training.test_training import Curves, distillation, settings

ALL = {
    "optimizer": "adamw",
    "lr": 1e-3,
    "warmup": 0.4,
    "clip_norm": 0.5,
    "accumulate": 2,
    "decay_all": False,
    "ema": 0.9,
}


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNFD_CHECKPOINT_SECONDS", "0")
    return trees.prepared_tree(tmp_path / "tree", {"train": ((40, 40),) * 6, "val": ((40, 40),) * 2})


def trainee(folder: str, log: Curves | None = None, method: str = "attnfd") -> Trainee:
    made = objective(method)
    return Trainee(made, log or Curves(), "test", Checkpoints(Path(folder)), random_state())


def train(prepared: Prepared, one: Trainee, precision: Any = "32-true", **changes: Any) -> Any:
    return fit(one, prepared, settings(**changes), seed=3, fabric=start_fabric(precision))


def test_adamw_and_its_groups() -> None:
    made = optimizer.make_optimizer(
        distillation(), settings(optimizer="adamw", lr=0.1, head_lr_factor=10.0, weight_decay=0.3)
    )
    assert isinstance(made, torch.optim.AdamW)
    assert [(group["lr"], group["weight_decay"]) for group in made.param_groups] == [(0.1, 0.3), (1.0, 0.3)]


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_norms_and_biases_do_not_decay(kind: str) -> None:
    trained = distillation()
    made = optimizer.make_optimizer(
        trained, settings(optimizer=kind, decay_all=False, weight_decay=0.3, head_lr_factor=10.0)
    )
    decaying = [id(p) for group in made.param_groups if group["weight_decay"] for p in group["params"]]
    others = [id(p) for group in made.param_groups if not group["weight_decay"] for p in group["params"]]
    assert sorted(decaying + others) == sorted(map(id, trained.parameters()))
    norms = [part for part in trained.modules() if isinstance(part, nn.BatchNorm2d)]
    wanted = {id(p) for norm in norms for p in norm.parameters()}
    wanted |= {id(part.bias) for part in trained.modules() if getattr(part, "bias", None) is not None}
    assert set(others) == wanted
    lrs = [(group["lr"], bool(group["weight_decay"])) for group in made.param_groups]
    assert lrs == [(0.01, True), (0.01, False), (0.1, True), (0.1, False)]


def test_warmup_rises_to_the_schedule() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    made = torch.optim.SGD([parameter], lr=1.0)
    schedule = optimizer.make_schedule(made, settings(warmup=0.25, schedule="poly"), 8)
    rates = []
    for _ in range(8):
        rates.append(made.param_groups[0]["lr"])
        made.step()
        schedule.step()
    poly = [(1 - step / 8) ** 0.9 for step in range(8)]
    assert rates == pytest.approx([poly[0] / 2, *poly[1:]])


def gradients(prepared: Prepared, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[Tensor]:
    """The gradients of all weights as one vector at each update; the steps do not change the weights."""
    seen: list[Tensor] = []

    def stepping(state: TrainState) -> Any:
        def step(*args: object, **kwargs: object) -> None:
            parameters = [p for p in state.objective.parameters() if p.grad is not None]
            seen.append(torch.cat([p.grad.flatten().clone() for p in parameters]))

        return step

    begin = TrainState.__init__

    def made(self: TrainState, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        monkeypatch.setattr(self.optimizer, "step", stepping(self))

    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "__init__", made)
        train(prepared, trainee("none"), epochs=1, **changes)
    return seen


def test_gradients_are_averaged_and_clipped(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = gradients(prepared, monkeypatch)
    # The last update of the epoch has only one step.
    both, last = gradients(prepared, monkeypatch, accumulate=2)
    torch.testing.assert_close(both, (one + two) / 2, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(last, three, rtol=1e-4, atol=1e-6)
    norm = one.double().norm().item()
    (clipped, *_) = gradients(prepared, monkeypatch, clip_norm=norm / 4)
    torch.testing.assert_close(clipped, one / 4, rtol=1e-4, atol=1e-7)
    (whole, *_) = gradients(prepared, monkeypatch, clip_norm=norm * 4)
    assert torch.equal(whole, one)


@pytest.mark.filterwarnings("error::UserWarning")
def test_the_learning_rate_follows_the_steps_not_the_updates(prepared: Prepared) -> None:
    plain = train(prepared, trainee("plain"), warmup=0.5)
    accumulated = train(prepared, trainee("accumulated"), warmup=0.5, accumulate=2)
    assert accumulated["lr"].tolist() == plain["lr"].tolist()


def test_average_by_hand() -> None:
    layer = nn.BatchNorm1d(1)
    average = Average(layer, 0.2)
    expected = 1.0
    for update, weight in enumerate((3.0, 5.0, 4.0), start=1):
        with torch.no_grad():
            layer.weight.fill_(weight)
            layer.num_batches_tracked.fill_(update)
        average.update()
        kept = min(0.2, (1 + update) / (10 + update))  # 2/11 at first
        expected = kept * expected + (1 - kept) * weight
    assert average.weights["weight"].item() == pytest.approx(expected)
    assert average.weights["num_batches_tracked"] == 3
    with average.in_place():
        assert layer.weight.item() == pytest.approx(expected)
    assert layer.weight.item() == 4.0


def test_the_average_is_what_is_evaluated_and_kept(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[dict[str, Tensor]] = []

    def validating(model: nn.Module, *args: object) -> float:
        states.append({key: value.clone() for key, value in model.state_dict().items()})
        return 0.1 * len(states)

    monkeypatch.setattr("attnfd.training.state.validate", validating)
    plain, averaged = trainee("plain"), trainee("averaged")
    train(prepared, plain, epochs=1)
    train(prepared, averaged, epochs=1, ema=0.9)
    assert not torch.equal(states[0]["classifier.weight"], states[1]["classifier.weight"])
    for key, value in averaged.objective.model.state_dict().items():
        assert torch.equal(value, states[1][key])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_resumed_training_has_the_same_bits(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch, stop: int, precision: str
) -> None:
    """Stopped between the steps of an update, or after it."""
    if precision != "32-true" and stop != 1:
        pytest.skip("one stop is enough")
    whole = trainee("whole")
    history = train(prepared, whole, precision, **ALL)
    with monkeypatch.context() as patch:
        after_step(stop, lambda: signal.raise_signal(signal.SIGTERM), patch)
        with pytest.raises(StoppedError):
            train(prepared, trainee("stopped"), precision, **ALL)
    resumed = trainee("stopped")
    assert train(prepared, resumed, precision, **ALL).equals(history)
    assert same_weights(resumed.objective, whole.objective)


def test_side_by_side_as_alone(prepared: Prepared) -> None:
    alone = [trainee(f"alone {method}", method=method) for method in ("kd", "attnfd")]
    for one in alone:
        train(prepared, one, **ALL)
    together = [trainee(f"together {method}", method=method) for method in ("kd", "attnfd")]
    fit_together(together, prepared, settings(**ALL), seed=3, fabric=start_fabric("32-true"))
    for one, other in zip(alone, together, strict=True):
        assert same_weights(one.objective, other.objective)
