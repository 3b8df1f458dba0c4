"""Images without labels: the method's terms count on them, the labels' loss does not."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from attnfd import discovery
from attnfd.config.schema import Distill
from attnfd.data.labels import UNLABELLED
from attnfd.data.loaders import Segmentation, train_loader
from attnfd.errors import UserError
from attnfd.losses import cross_entropy, kd_loss
from attnfd.training.objective import Objective
from tests.data.trees import prepared_tree, training
from tests.distillers.helpers import batch, build, tiny_student, tiny_teacher

CPU = torch.device("cpu")
METHODS = discovery.names("distillers")


def terms(method: str, target: Tensor, images: Tensor) -> tuple[dict[str, Tensor], Objective]:
    torch.manual_seed(0)
    student, teacher = tiny_student(), tiny_teacher()
    objective = Objective(student, build(method, student.info, teacher.info), teacher)  # type: ignore[arg-type]
    torch.manual_seed(1)
    return objective(images, target, 0.0), objective


def test_the_methods_say_themselves_whether_they_can() -> None:
    can = {name for name in METHODS if discovery.component("distillers", name).unlabelled}
    assert can == set(METHODS) - {"none"}


@pytest.mark.parametrize("method", METHODS)
def test_cross_entropy_is_that_of_the_labelled_part(method: str) -> None:
    images, target = batch(4)
    target[2:] = UNLABELLED
    found, objective = terms(method, target, images)
    logits = objective.model(images).logits
    assert logits is not None
    assert torch.allclose(found["ce"], cross_entropy(logits[:2], target[:2]))
    assert all(term.isfinite() for term in found.values())


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_without_any_label_teaches_by_the_method_alone(method: str) -> None:
    images, target = batch(4)
    found, objective = terms(method, torch.full_like(target, UNLABELLED), images)
    assert found["ce"] == 0
    sum(found.values()).backward()  # type: ignore[union-attr]
    gradients = [weight.grad for weight in objective.model.parameters() if weight.grad is not None]
    moved = sum(float(gradient.abs().sum()) for gradient in gradients)
    assert (moved > 0) == (method != "none")


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"cirkd"}))
def test_an_image_without_labels_teaches_as_one_with_them(method: str) -> None:
    """Except for the labels' own loss: only CIRKD reads classes, because its memories need them."""
    images, target = batch(4)
    known, _ = terms(method, target.clamp(max=2), images)
    unknown, _ = terms(method, torch.full_like(target, UNLABELLED), images)
    for name in known.keys() - {"ce"}:
        assert torch.equal(known[name], unknown[name])


def test_kd_by_hand_leaves_out_void_and_counts_what_has_no_label() -> None:
    student, teacher = (
        torch.zeros(1, 2, 1, 3),
        torch.tensor([3.0, 1.0]).log().view(1, 2, 1, 1).expand(1, 2, 1, 3),
    )
    target = torch.tensor([[[0, UNLABELLED, 255]]])
    teacher = teacher * torch.tensor([1.0, 0.0, 5.0])
    # Pixel 0: 0.1308; pixel 1: 0, as teacher and student agree; void: 0, although it differs most.
    assert kd_loss(student, teacher, target, temperature=1).item() == pytest.approx(0.1308 / 2, abs=1e-4)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for key in ("ATTNFD_CAMVID_ROOT", "ATTNFD_WORKERS"):
        monkeypatch.delenv(key, raising=False)
    return prepared_tree(tmp_path / "tree", {"train": ((8, 10),) * 3, "val": ((8, 10),) * 2})


def test_masks_of_unlabelled_splits_are_not_read(prepared) -> None:
    for file in (prepared.root / "valannot").iterdir():
        file.write_bytes(b"no mask")
    data = Segmentation(prepared, "train", unlabelled=["val"])
    assert len(data) == 5
    masks = [data[row][1] for row in range(5)]
    assert sum(bool((mask == UNLABELLED).all()) for mask in masks) == 2
    assert sum(bool((mask != UNLABELLED).all()) for mask in masks) == 3


def test_a_loader_has_both_parts_in_an_epoch(prepared) -> None:
    config = training(batch_size=5, scale=(1.0, 1.0))
    config = Distill.model_construct(**dict(config), weights="none", unlabelled=("val",))
    ((_, masks),) = train_loader(prepared, config, 0, device=CPU, workers=0)
    assert (masks == UNLABELLED).all(dim=(1, 2)).sum() == 2
    with pytest.raises(UserError, match="unknown name 'extra'"):
        train_loader(prepared, config.model_copy(update={"unlabelled": ("extra",)}), 0, device=CPU, workers=0)
