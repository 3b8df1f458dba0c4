import pytest

from attnfd.config.section import validate
from attnfd.distillers.none import NoDistillation
from attnfd.errors import UserError
from tests.distillers.helpers import build, tiny_student, tiny_teacher


def test_asks_nothing_of_the_teacher() -> None:
    distiller = build("none", tiny_student().info, tiny_teacher().info)
    assert not distiller.student_taps
    assert not distiller.teacher_taps
    assert not distiller.teacher_logits
    assert not list(distiller.parameters())


def test_a_weight_would_do_nothing_and_is_refused() -> None:
    with pytest.raises(UserError, match=r"methods\.none\.weight: found 1; allowed: .*0"):
        validate(NoDistillation.Config, {"weight": 1}, "methods.none")
