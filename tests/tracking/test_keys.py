"""Class names as keys of a real store: each has a separate key and can be read again."""

import unicodedata
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnfd.tracking import keys, notes
from attnfd.tracking import store as tracking_store

mlflow = tracking_store.library()
fuzz = partial(settings, deadline=None, derandomize=True)

ADE20K = [
    "bicycle, bike, wheel, cycle", "signboard, sign", "pool table, billiard table, snooker table",
    "crt screen", "screen, silver screen, projection screen", "bulletin board, notice board",
]  # fmt: skip
"""As the data set spells them."""

AWKWARD = [
    "", " ", ".", "..", "a/..", "/a", "a/", "a//b", "trees/", "misc.", ".other", "a..b", "a b ", " a", "a:b",
    "a\n", "100 %", "#1", "R&D", "car (old)", "car [old]", "car (new)", "a+b", "a*b", "a|b", "it's", "\x00",
    "_", "_x", "_x2c_", "_X2c_", "_x_", ",x2c_", "_xa,", "_xx0123456789abcdef", "x", "X", "Car", "car", "CAR",
    "é", "e\u0301", "É", "ß", "ss", "ſ", "汽车", "🚗", "\ud800", "l" * 300, "L" * 300, "ü" * 300, "," * 300,
]  # fmt: skip

names = st.one_of(st.sampled_from(AWKWARD), st.text(max_size=12), st.text("aAxX_2c.,/ :-é\u0301", max_size=6))


def logged(classes: list[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics and params of a run that logged these classes, as stored."""
    from mlflow.entities import Metric, Param

    client, experiment = tracking_store.connect("keys")
    run = client.create_run(experiment).info.run_id
    scores = keys.encode(keys.leaves({"iou": {name: n for n, name in enumerate(classes)}}, "val"), "/")
    settings = keys.encode(keys.leaves({"prepare": {"classes": {n: v for v, n in enumerate(classes)}}}), ".")
    client.log_batch(
        run,
        metrics=[Metric(key, value, 0, 0) for key, value in scores.items()],
        params=[Param(key, str(value)) for key, value in settings.items()],
    )
    data = client.get_run(run).data
    return data.metrics, data.params


def folded(key: str) -> str:
    """The key in a store that ignores case, accents and trailing spaces."""
    plain = unicodedata.normalize("NFKD", key.casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter)).casefold().rstrip()


def check(classes: list[str]) -> None:
    metrics, params = logged(classes)
    assert sorted(metrics.values()) == list(range(len(classes)))
    assert len({folded(key) for key in metrics}) == len({folded(key) for key in params}) == len(classes)
    for found, separator, above in ((metrics, "/", ("val", "iou")), (params, ".", ("prepare", "classes"))):
        for key, value in found.items():
            assert len(key) <= keys.LONGEST
            if keys.CUT not in key:
                assert keys.decode(key, separator) == (*above, classes[int(value)])


@fuzz(max_examples=100)
@given(st.lists(names, min_size=1, max_size=12, unique=True))
def test_any_names_are_logged_apart_and_read_back(classes: list[str]) -> None:
    check(classes)


def test_all_awkward_names_at_once() -> None:
    check(AWKWARD)


def test_as_many_classes_as_there_can_be() -> None:
    check([f"{ADE20K[n % 6]}, {n}" for n in range(254)])


def test_names_stay_readable() -> None:
    metrics, params = logged(
        [*ADE20K[:2], "traffic light", "pole-group", "lane_marking", "Straße", "汽车", "misc."]
    )
    assert sorted(metrics) == [
        "val/iou/Straße",
        "val/iou/bicycle_x2c_ bike_x2c_ wheel_x2c_ cycle",
        "val/iou/lane_marking",
        "val/iou/misc_x2e_",
        "val/iou/pole-group",
        "val/iou/signboard_x2c_ sign",
        "val/iou/traffic light",
        "val/iou/汽车",
    ]
    assert params["prepare.classes.misc_x2e_"] == "7"


def test_names_that_differ_in_case_or_accents_are_all_of_lower_case_ascii() -> None:
    assert keys.encode({("Car",): 0, ("car",): 1, ("Ö",): 2}, "/") == {"_x43_ar": 0, "car": 1, "_xd6_": 2}
    assert list(keys.encode({("é",): 0, ("e",): 1}, "/")) == ["_xe9_", "e"]


def test_a_key_that_is_too_long_is_cut_and_stays_its_own() -> None:
    long = [keys.encode({("val", "iou", "l" * 299 + end): 0}, "/") for end in "ab"]
    (first,), (second,) = long
    assert len(first) == len(second) == 250
    assert first != second
    with pytest.raises(ValueError, match="was cut to 250 characters"):
        keys.decode(first, "/")


def test_many_long_names_fit_a_registered_model() -> None:
    description = notes.registered("ade", [f"{ADE20K[2]} {n}" for n in range(254)])
    assert len(description) <= 5000
    assert "Classes: 0 pool table, billiard table, snooker table 0, 1 pool" in description
    assert description.endswith("….\n")
