"""Principal components of features as colours."""

import subprocess
import sys

import numpy as np
import torch

from attnfd.results.attention import FITTED, Pair, components

GENERATOR = torch.Generator().manual_seed(0)


def unit(*shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(shape, generator=GENERATOR), dim=1)


def test_the_components_and_their_scale_are_the_teachers() -> None:
    """Compared with the eigenvectors of the covariance of the teacher's vectors, except for their signs."""
    teacher, student = unit(2, 8, 9, 10), unit(2, 8, 9, 10)
    found = components({"encoder": Pair(student, teacher)})
    assert set(found) == {"teacher/encoder/components", "student/encoder/components"}
    rows = teacher.movedim(1, -1).reshape(-1, 8).double().numpy()
    centre = rows.mean(0)
    axes = np.linalg.eigh(np.cov(rows.T))[1][:, :-4:-1]
    low, high = np.percentile((rows - centre) @ axes, (2, 98), axis=0)
    for name, features in (("teacher", teacher), ("student", student)):
        places = (features.movedim(1, -1).double().numpy() - centre) @ axes
        expected = 255 * np.clip((places - low) / (high - low), 0, 1)
        colours = found[f"{name}/encoder/components"].astype(float)
        assert colours.shape == (2, 9, 10, 3)
        for channel in range(3):
            errors = [np.abs(colours[..., channel] - want).max() for want in _signs(expected[..., channel])]
            assert min(errors) < 12, (name, channel, errors)  # The solver is random.


def _signs(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return levels, 255 - levels


def test_equal_features_have_equal_colours_and_others_do_not() -> None:
    teacher, other = unit(1, 16, 6, 7), unit(1, 16, 6, 7)
    equal = components({"decoder": Pair(teacher, teacher)})
    assert (equal["teacher/decoder/components"] == equal["student/decoder/components"]).all()
    differs = components({"decoder": Pair(other, teacher)})
    assert (differs["teacher/decoder/components"] == equal["teacher/decoder/components"]).all()
    distance = np.abs(
        differs["student/decoder/components"].astype(int) - differs["teacher/decoder/components"]
    )
    assert distance.mean() > 30


def test_features_without_three_components_or_of_many_positions_have_colours_too() -> None:
    flat = torch.ones(1, 5, 3, 3) / 5**0.5
    assert (components({"backbone": Pair(flat, flat)})["student/backbone/components"] == 0).all()
    one = unit(1, 5, 1, 1)
    assert (components({"backbone": Pair(one, one)})["student/backbone/components"] == 0).all()
    two = unit(1, 2, 4, 4)
    colours = components({"backbone": Pair(two, two)})["teacher/backbone/components"]
    assert (colours[..., 2] == 0).all()
    assert colours[..., 0].any()
    side = int((3 * FITTED) ** 0.5)
    many = unit(1, 4, side, side)
    assert components({"decoder": Pair(many, many)})["teacher/decoder/components"].shape == (1, side, side, 3)


def test_scikit_learn_is_imported_only_where_something_is_drawn() -> None:
    code = (
        "import sys; from attnfd.results.attention import components; import stages.evaluate; "
        "assert components({}) == {}; print('sklearn' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"
