import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnfd.bench import timing
from attnfd.deploy import benchmark
from attnfd.deploy.benchmark import ONNX_RUNTIME, OPENVINO, PYTORCH, Cost
from attnfd.deploy.source import Model
from attnfd.errors import UserError
from tests.deploy.conftest import LEGEND, network


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNFD_DEVICE", "cpu")
    monkeypatch.setattr(benchmark, "has_onnx_runtime", lambda: False)


def model(name: str, miou: float | None = None) -> Model:
    return Model(name, network(), LEGEND, {}, miou)


def run(models: list[Model], **changes: object) -> None:
    options: dict = {"size": (32, 48), "batch": 2, "rounds": 2, "numbers": None, "plot": None}
    benchmark.benchmark(models, **(options | changes))


def test_cost_by_hand() -> None:
    seconds = [0.005, 0.001, 0.002, 0.004, 0.003]
    found = benchmark._cost(model("m", 0.5), PYTORCH, "cpu", 7, seconds, batch=6)
    assert found.p50_ms == pytest.approx(3)
    assert found.p95_ms == pytest.approx(4.8)  # between the 4th and the 5th, at 0.95 · 4 = 3.8
    assert found.images_per_second == pytest.approx(2000)
    assert found.parameters == 5_811_427  # 5 816 053 parameters with 21 classes, minus 18 · (256 + 1)
    assert (found.macs, found.miou) == (7, 0.5)


def test_models_are_timed_in_turn_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(
        benchmark, "_pytorch", lambda network, images, device: (lambda: called.append(network), "cpu")
    )
    monkeypatch.setattr(benchmark, "multiply_adds", lambda network, size: 0)
    models = [model("a"), model("b")]
    benchmark.measure(models, size=(32, 48), batch=1, rounds=4)
    assert called == [models[0].network, models[1].network] * (4 + timing.WARM_UP)


def test_table_numbers_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers, plot = tmp_path / "new" / "cost.json", tmp_path / "cost.png"
    run([model("teacher", 0.75), model("student", 0.5)], numbers=numbers, plot=plot)
    shown = capsys.readouterr().out
    for word in ("teacher", "student", "75.00", "50.00", "1.00×", "5.8M", "attnfd[export]"):
        assert word in shown
    found = json.loads(numbers.read_text())
    assert (found["size"], found["batch"], found["rounds"]) == ([32, 48], 2, 2)
    assert [cost["model"] for cost in found["costs"]] == ["teacher", "student"]
    for cost in found["costs"]:
        assert 0 < cost["p50_ms"] <= cost["p95_ms"]
        assert cost["images_per_second"] == pytest.approx(2000 / cost["p50_ms"])
    with Image.open(plot) as image:
        assert np.array(image).std() > 0


def test_speed_is_relative_to_the_first_in_the_same_runtime() -> None:
    def cost(name: str, runtime: str, p50: float) -> Cost:
        return Cost(name, runtime, "cpu", 1, 1, p50, p50, 1.0, None)

    costs = [
        cost("a", PYTORCH, 8),
        cost("a", ONNX_RUNTIME, 6),
        cost("b", PYTORCH, 2),
        cost("b", ONNX_RUNTIME, 4),
    ]
    (speed,) = (column for column in benchmark.table(costs).columns if column.header == "speed")
    assert list(speed.cells) == ["1.00×", "1.00×", "4.00×", "1.50×"]


def test_plot_needs_scores_before_anything_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "measure", lambda *args, **options: pytest.fail("timed"))
    with pytest.raises(UserError, match=r"new: has no metrics\.json"):
        run([model("old", 0.5), model("new")], plot=tmp_path / "cost.png")


def test_plot_has_a_point_per_model_and_runtime() -> None:
    costs = [
        Cost("a", PYTORCH, "cpu", 1, 1, 8.0, 9.0, 1.0, 0.5),
        Cost("a", ONNX_RUNTIME, "cpu", 1, 1, 4.0, 5.0, 1.0, 0.5),
        Cost("a", OPENVINO, "cpu", 1, 1, 3.0, 5.0, 1.0, 0.5),
    ]
    (axes,) = benchmark.trade_off(costs).axes
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines]
    assert points == [(8.0, 50.0), (4.0, 50.0), (3.0, 50.0)]


@pytest.mark.slow
def test_openvino_is_timed_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(benchmark, "has_onnx_runtime", lambda: True)
    costs = benchmark.measure([model("m")], size=(32, 48), batch=1, rounds=1)
    assert [cost.runtime for cost in costs] == [PYTORCH, ONNX_RUNTIME, OPENVINO]
    assert costs[2].p50_ms > 0


def test_onnx_runtime_is_timed_beside_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(benchmark, "has_onnx_runtime", lambda: True)
    costs = benchmark.measure([model("m")], size=(32, 48), batch=1, rounds=1)
    assert [cost.runtime for cost in costs] == [PYTORCH, ONNX_RUNTIME]
    assert costs[0].macs == costs[1].macs > 0
    assert torch.is_grad_enabled()
