"""Changed values of params: any YAML, new keys, and no other change in the file."""

import pytest

from attnfd.config.params import load_params, parse_params
from attnfd.config.yaml_file import load_yaml
from attnfd.errors import UserError
from attnfd.sweep import changed
from attnfd.sweep.graph import Graph
from tests import miniature


def test_values_are_yaml_and_the_rest_stays() -> None:
    text = "a: {b: 1, c: [1.0e-5, null]}\nd: text\n"
    found = load_yaml(changed.change(text, ["a.b={x: [1, 'y']}", "d=", "e.f.g=1e-3", "a.b.x=true"]), "")
    assert found == {"a": {"b": {"x": True}, "c": [1.0e-5, None]}, "d": None, "e": {"f": {"g": 1e-3}}}


def test_a_section_that_shares_an_alias_does_not_change_with_another() -> None:
    text = "a: &both {weight: 1}\nb: *both\nc: {<<: *both, more: 2}\n"
    found = load_yaml(changed.change(text, ["b.weight=3"]), "")
    assert found == {"a": {"weight": 1}, "b": {"weight": 3}, "c": {"weight": 1, "more": 2}}


def test_nothing_but_the_change_differs_in_the_real_params() -> None:
    file = miniature.PROJECT / "params.yaml"
    text = file.read_text(encoding="utf-8")
    before = load_params(file)
    assert parse_params(changed.change(text, ["training.lr=0.007"]), "").raw == before.raw
    after = parse_params(changed.change(text, ["methods.attnfd.weight=3"]), "")
    assert after.method("attnfd", "voc").weight == 3
    assert after.method("kd", "voc") == before.method("kd", "voc")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("training.lr", "--set: found 'training.lr'; allowed: KEY=VALUE"),
        ("=3", "--set: found '=3'; allowed: KEY=VALUE"),
        (
            "training.lr.x=3",
            r"--set training.lr.x: training.lr is 0.007 and has no keys; set training.lr itself",
        ),
        ("run.seeds.0=3", r"--set run.seeds.0: run.seeds is \[0\] and has no keys"),
        ("training.lr=[1", "--set training.lr"),
        ("training.lr=!!python/name:os.system ''", "--set training.lr"),
    ],
)
def test_what_is_no_change(given: str, message: str) -> None:
    text = (miniature.PROJECT / "params.yaml").read_text(encoding="utf-8")
    with pytest.raises(UserError, match=message):
        changed.change(text, [given])


def test_axes_change_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(miniature.PROJECT)
    text = (miniature.PROJECT / "params.yaml").read_text(encoding="utf-8")
    graph = Graph(changed.change(text, ["run.seeds=[5, 6]", "run.students=[resnet34]", "run.methods=[kd]"]))
    assert [name for name in graph.jobs if name.startswith("distill")] == [
        "distill@shapes-resnet34-kd-5", "distill@shapes-resnet34-kd-6",
    ]  # fmt: skip


def test_text_with_a_colon_can_be_read_again() -> None:
    """DVC's library refuses it without quotes in a list or mapping on one line."""
    text = 'a: {build: "networks.mine:deeplab"}\nb: ["x:y", z]\nc: 1\n'
    found = load_yaml(changed.change(text, ["c=2"]), "")
    assert found == {"a": {"build": "networks.mine:deeplab"}, "b": ["x:y", "z"], "c": 2}
