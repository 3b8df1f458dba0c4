"""The training loop: its loss, its results, and the inputs that it refuses."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from attnfd.config.network import Attention
from attnfd.config.schema import Training
from attnfd.data.prepared import Prepared
from attnfd.data.transforms import normalize
from attnfd.distillers.attnfd import AttnFD
from attnfd.errors import UserError
from attnfd.losses import cross_entropy
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.frozen import freeze
from attnfd.models.taps import Tap
from attnfd.results.attention import agreements, energies, pairs
from attnfd.runtime.fabric import start_fabric
from attnfd.training import loop, optimizer, state
from attnfd.training.checkpoints import Checkpoints
from attnfd.training.objective import Objective
from attnfd.training.randomness import random_state
from attnfd.training.state import Trainee
from tests.data import trees
from tests.distillers.helpers import build

ATTENTION = Attention(reduction=16, kernel_size=7, channel=True, spatial=True)
ATTNFD = AttnFD.Config(
    weight=1,
    layers=("backbone", "encoder", "decoder"),
    point="pre_relu",
    normalize="channel",
    connector="before_attention",
    attention=ATTENTION,
    teacher_attention="trained",
    kd_weight=0,
    decay=0,
)


class Curves:
    """Keeps what the loop logs."""

    def __init__(self) -> None:
        self.values: dict[str, dict[int, float]] = {}

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            assert step not in self.values.setdefault(name, {}), f"{name} is logged twice at {step}"
            self.values[name][step] = value

    def flush(self) -> None:
        pass


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATTNFD_CAMVID_ROOT", raising=False)
    return trees.prepared_tree(tmp_path / "tree", {"train": ((40, 40),) * 5, "val": ((40, 40),) * 2})


def settings(**changes: object) -> Training:
    return trees.training(**({"batch_size": 2, "crop": (33, 33), "lr": 0.01, "epochs": 2} | changes))


def network(attention: Attention | None = None) -> DeepLabV3Plus:
    return DeepLabV3Plus("mobilenetv2", classes=11, attention=attention)


def distillation() -> Objective:
    torch.manual_seed(0)
    teacher, student = freeze(network(ATTENTION).eval()), network()
    return Objective(student, AttnFD(student.info, teacher.info, ATTNFD), teacher)


def fit(objective: Objective, prepared: Prepared, log: Curves, **changes: object):
    fabric = start_fabric("32-true")
    config = settings(**changes)
    trainee = Trainee(objective, log, "test", Checkpoints(Path("none")), random_state())
    return loop.fit(trainee, prepared, config, seed=3, fabric=fabric)


def test_cross_entropy_is_the_mean_over_pixels_that_are_not_void() -> None:
    logits = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    target = torch.tensor([[[0, 255], [2, 1]], [[255, 255], [1, 0]]])
    wanted = []
    for image in range(2):
        for row in range(2):
            for column in range(2):
                label = int(target[image, row, column])
                if label != 255:
                    scores = logits[image, :, row, column].numpy()
                    wanted.append(np.log(np.exp(scores).sum()) - scores[label])
    assert cross_entropy(logits, target).item() == pytest.approx(np.mean(wanted), rel=1e-6)


def test_cross_entropy_of_void_alone_is_zero_and_has_no_gradient() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 2, 2), 255))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_rates_fall_from_one_to_zero() -> None:
    assert [optimizer.decay("cosine", t) for t in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert [optimizer.decay("poly", t) for t in (0, 0.5, 1)] == pytest.approx([1, 0.5**0.9, 0])


def test_every_parameter_is_in_one_group_and_only_the_backbone_at_its_rate() -> None:
    objective = distillation()
    made = optimizer.make_optimizer(objective, settings(lr=0.02, head_lr_factor=5.0))
    slow, fast = made.param_groups
    assert (slow["lr"], fast["lr"]) == (0.02, pytest.approx(0.1))
    grouped = [id(parameter) for group in (slow, fast) for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in objective.parameters())
    assert {id(parameter) for parameter in slow["params"]} == {
        id(parameter) for parameter in objective.model.backbone.parameters()
    }


def test_the_teacher_is_no_part_of_what_trains() -> None:
    objective = distillation()
    (teacher,) = objective._teacher
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    terms = objective.train()(torch.randn(2, 3, 33, 33), torch.randint(11, (2, 33, 33)), 0.0)
    sum(terms.values()).backward()
    assert set(terms) == {"ce", "attnfd"}
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    owned = {id(parameter) for parameter in objective.parameters()}
    assert not owned & {id(parameter) for parameter in teacher.parameters()}


def test_a_teacher_that_nobody_reads_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from attnfd.distillers.none import NoDistillation

    student, teacher = network(), network(ATTENTION)
    monkeypatch.setattr(teacher, "forward", lambda *args, **kwargs: pytest.fail("the teacher ran"))
    none = NoDistillation(student.info, teacher.info)
    objective = Objective(student, none, teacher)
    assert set(objective(torch.randn(2, 3, 33, 33), torch.zeros(2, 33, 33).long(), 0.0)) == {"ce"}


def test_history_and_curves(prepared: Prepared) -> None:
    log = Curves()
    history = fit(distillation(), prepared, log, epochs=3, validate_every=2)
    assert list(history["epoch"]) == [1, 2, 3]
    assert list(history["miou"].isna()) == [True, False, False]
    assert np.allclose(history["loss"], history["ce"] + history["attnfd"])
    assert history["lr"].iloc[-1] == pytest.approx(0, abs=1e-12)
    # Five images in batches of two: the last batch with one image is dropped.
    assert list(log.values["step/ce"]) == [1, 2, 3, 4, 5, 6]
    assert list(log.values["epoch/miou"]) == [2, 3]
    assert "epoch/epoch" not in log.values
    steps = list(log.values["step/attnfd"].values())
    assert np.mean(steps[:2]) == pytest.approx(history["attnfd"].iloc[0])
    # Two steps with two images per epoch.
    pace = log.values["speed/seconds_per_step"]
    assert log.values["speed/images_per_second"] == pytest.approx(
        {1: 2 / pace[1], 2: 2 / pace[2], 3: 2 / pace[3]}
    )
    (total,) = log.values["speed/training_seconds"].items()
    assert total[0] == 3
    assert 2 * sum(pace.values()) < total[1] < 600
    # PyTorch alone needs more than 100 MiB.
    assert all(100 < value < 100_000 for value in log.values["speed/peak_memory_mib"].values())


def test_the_best_validation_is_kept(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Tensor]] = []
    given = iter((0.2, 0.9, 0.4))

    def validate(model: DeepLabV3Plus, *_: object) -> float:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return next(given)

    monkeypatch.setattr(state, "validate", validate)
    torch.manual_seed(0)
    objective = Objective(network())
    fit(objective, prepared, Curves(), epochs=3)
    kept = objective.model.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in seen[1].items())
    assert not all(torch.equal(kept[name], value) for name, value in seen[2].items())


def test_equal_seeds_give_equal_bits_with_and_without_loader_processes(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = distillation(), distillation()
    torch.manual_seed(1)  # the seed of dropout
    fit(one, prepared, Curves())
    monkeypatch.setenv("ATTNFD_WORKERS", "1")
    torch.manual_seed(1)
    fit(other, prepared, Curves())
    state = other.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in one.state_dict().items())


def test_a_loss_that_is_no_number_stops_and_is_named(prepared: Prepared) -> None:
    objective = distillation()
    assert objective.distiller is not None
    objective.distiller.forward = lambda *_: {"attnfd": torch.tensor(float("nan"), requires_grad=True)}
    with pytest.raises(
        UserError, match=r"epoch 1, step 1: attnfd is nan; .*; last good checkpoint: none yet"
    ):
        fit(objective, prepared, Curves())


def test_energies_are_the_mean_square_over_channels() -> None:
    torch.manual_seed(0)
    model = network(ATTENTION).eval()
    images = torch.randint(0, 256, (2, 3, 33, 33), dtype=torch.uint8)
    maps = energies(model, images)
    assert set(maps) == {
        f"{layer}/{kind}" for layer in ("backbone", "encoder", "decoder") for kind in ("raw", "refined")
    }
    with torch.no_grad():
        (encoder,) = model(normalize(images), taps=[Tap("encoder")], logits=False).taps.values()
    assert np.allclose(maps["encoder/raw"], (encoder.numpy() ** 2).mean(axis=1), rtol=1e-5)
    objective = distillation()
    assert objective.distiller is not None
    of_student = energies(objective.model, images, objective.distiller)
    assert of_student["encoder/refined"].shape == (2, 3, 3)
    assert all((values >= 0).all() for values in of_student.values())


def test_agreement_is_what_the_loss_leaves() -> None:
    """With the norm over the channels, a layer's loss is the mean of 2 − 2 cos."""
    torch.manual_seed(0)
    student, teacher = network(), network(ATTENTION)
    distiller = AttnFD(student.info, teacher.info, ATTNFD)
    images = torch.randint(0, 256, (2, 3, 33, 33), dtype=torch.uint8)
    objective, target = (
        Objective(student, distiller, teacher),
        torch.zeros(2, 33, 33).long(),
    )
    for _ in range(30):  # With the initial BN statistics the features would vanish.
        objective(normalize(images), target, 0.0)
    cosines = agreements(pairs(student, teacher, images, distiller))
    assert set(cosines) == {f"student/{layer}/agreement" for layer in ("backbone", "encoder", "decoder")}
    with torch.no_grad():
        terms = objective.eval()(normalize(images), target, 0.0)
    expected = sum(2 - 2 * float(cosine.mean()) for cosine in cosines.values())
    assert terms["attnfd"].item() == pytest.approx(expected, rel=1e-4)
    without_attention = build("kd", student.info, teacher.info)
    assert pairs(student, teacher, images, without_attention) == {}


def test_deterministic_kernels_are_asked_for_and_given_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    start_fabric("32-true", deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    start_fabric("32-true")
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_gpu_rounds_float32_for_tf32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNFD_DEVICE", "cpu")
    for precision in ("tf32", "32-true", "tf32", "bf16-mixed"):
        start_fabric(precision)
        assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
        assert torch.get_float32_matmul_precision() == ("high" if precision == "tf32" else "highest")
    start_fabric("32-true")
