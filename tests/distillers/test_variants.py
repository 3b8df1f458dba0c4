"""Properties of every ablation in `params.yaml`."""

import itertools

import pytest
import torch
from torch import nn

from attnfd.config.params import load_params
from attnfd.distillers.attnfd import AttnFD
from tests.distillers.helpers import PARAMS, batch, tiny_student, tiny_teacher

SHIPPED = load_params(PARAMS)
VARIANTS = tuple(SHIPPED.raw["ablate"])


def settings(variant: str | None) -> AttnFD.Config:
    return SHIPPED.method("attnfd", "voc", variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_takes_a_step(variant: str) -> None:
    torch.manual_seed(0)
    student, teacher = tiny_student(), tiny_teacher()
    distiller = AttnFD(student.info, teacher.info, settings(variant))
    parts = nn.ModuleList([student, distiller])
    images, target = batch()
    with torch.no_grad():
        taught = teacher(images, taps=distiller.teacher_taps, logits=distiller.teacher_logits)
    # Late in the training, so that a decay has an effect.
    terms = distiller(student(images, taps=distiller.student_taps), taught, target, progress=0.9)
    assert all(term.isfinite() and term > 0 for term in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    idle = [
        name for name, value in distiller.named_parameters() if value.grad is None or not value.grad.any()
    ]
    assert not idle
    torch.optim.SGD(parts.parameters(), lr=0.1).step()
    assert all(value.isfinite().all() for value in parts.parameters())


def test_no_variant_equals_another_or_the_method() -> None:
    for one, other in itertools.combinations((None, *VARIANTS), 2):
        assert settings(one) != settings(other), (one, other)


def test_every_combination_of_layers_is_trained_once() -> None:
    """All subsets but two, which are cells of `distill`: no layer is `none`, all layers are `attnfd`."""
    layers = settings(None).layers
    wanted = {frozenset(some) for size in (1, 2) for some in itertools.combinations(layers, size)}
    rest = {"layers": layers}
    found = [
        frozenset(settings(variant).layers)
        for variant in VARIANTS
        if settings(variant).model_copy(update=rest) == settings(None)
    ]
    assert len(found) == len(wanted)
    assert set(found) == wanted


def test_a_variant_has_a_name_of_its_own() -> None:
    """Methods and variants are in one table of the report; and a key of DVC must not contain a dot."""
    assert not set(VARIANTS) & set(SHIPPED.raw["methods"])
    assert all(variant.isidentifier() for variant in VARIANTS)
