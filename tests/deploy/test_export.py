"""Exports compute the same as the network for every image size. Each file is written once for the module."""

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnfd.data.depth import Depth
from attnfd.deploy import export
from attnfd.deploy.source import Model, open_model
from attnfd.errors import UserError
from tests.deploy.conftest import LEGEND, network, save

if any(find_spec(package) is None for package in export.PACKAGES):
    pytest.skip("without ONNX", allow_module_level=True)

SHAPES = [(1, 64, 96), (3, 65, 97), (1, 33, 17), (2, 17, 131)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(str(save(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(2):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        coarse.resize((70 + number, 50)).save(folder / f"{number}.png")
    return str(folder)


@pytest.fixture(scope="module", params=sorted(export.SUFFIX))
def exported(
    request: pytest.FixtureRequest, model: Model, photos: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    file = tmp_path_factory.mktemp("out") / f"model{export.SUFFIX[request.param]}"
    found = export.export(model, request.param, file, images=[photos], overwrite=False)
    assert found.images == 2 + 3
    assert found.difference < 1e-4
    assert found.agreement > 0.999
    return file


@pytest.fixture(scope="module")
def answer(exported: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The view of a product that does not use this package."""
    if exported.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
        return lambda images: session.run(None, {"images": images})[0]
    program = torch.export.load(exported).module()
    return lambda images: program(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("shape", SHAPES)
def test_answers_at_any_batch_and_size(
    answer: Callable[[np.ndarray], np.ndarray], shape: tuple[int, int, int]
) -> None:
    images = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    classes = answer(images)
    assert classes.dtype == np.uint8
    assert classes.shape == shape
    scaled = (images / 255 - np.array(LEGEND.mean)) / np.array(LEGEND.std)
    with torch.no_grad():
        logits = network()(torch.from_numpy(scaled).float().permute(0, 3, 1, 2)).logits.numpy()
    assert (classes == logits.argmax(1)).mean() > 0.999
    assert len(np.unique(classes)) > 1


def test_card_says_what_goes_in_and_comes_out(exported: Path, model: Model) -> None:
    card = json.loads(exported.with_name(f"{exported.name}.json").read_text())
    assert card["classes"][1] == {"index": 1, "name": "green", "colour": [0, 150, 0]}
    assert (card["input"]["type"], card["input"]["shape"][3]) == ("uint8", 3)
    assert card["input"]["mean"] == [0.485, 0.456, 0.406]
    assert card["input"]["deep_images"].items() >= {"low": 0, "high": 65535, "clip": False}.items()
    assert card["model_sha256"] == model.card["sha256"]
    if exported.suffix == ".onnx":
        import onnx

        graph = onnx.load(exported)
        assert card["opset"] == graph.opset_import[0].version == export.OPSET
        (given,) = graph.graph.input
        assert given.name == card["input"]["name"]
        names = [axis.dim_param or axis.dim_value for axis in given.type.tensor_type.shape.dim]
        assert names == card["input"]["shape"]
        assert [output.name for output in graph.graph.output] == [card["output"]["name"]]


def test_an_existing_file_is_kept_without_overwrite(exported: Path, model: Model, photos: str) -> None:
    kind = next(kind for kind, suffix in export.SUFFIX.items() if suffix == exported.suffix)
    before = exported.stat().st_mtime_ns
    with pytest.raises(UserError, match=r"already exists; .*--overwrite"):
        export.export(model, kind, exported, images=[photos], overwrite=False)
    assert exported.stat().st_mtime_ns == before


def test_file_that_answers_differently_is_refused_and_not_left(
    exported: Path, model: Model, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = next(kind for kind, suffix in export.SUFFIX.items() if suffix == exported.suffix)
    monkeypatch.setattr(
        export, "write", lambda network, kind, file, form: file.write_bytes(exported.read_bytes())
    )
    other = Model("other", network(seed=1), model.legend, model.card, None)
    out = tmp_path / exported.name
    with pytest.raises(UserError, match=r"logits differ by .* nothing was written"):
        export.export(other, kind, out, images=[photos], overwrite=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("onx", "a.onnx", "--format: unknown name 'onx'; did you mean 'onnx'"),
        ("onnx", "a.pt2", r"a\.pt2: found '\.pt2'; allowed for onnx: .*\.onnx"),
        ("onnx", "a.onnx", r"data/tiny: not found; .*--images"),
    ],
)
def test_what_is_invalid_is_refused(
    kind: str, name: str, message: str, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        export.export(model, kind, Path(name), images=[], overwrite=False)
    assert not list(tmp_path.iterdir())


def test_images_to_compare_on_are_scaled_as_in_the_training(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases: list[np.ndarray] = []

    def compare(network: object, runner: object, images: list[np.ndarray]) -> export.Comparison:
        cases.extend(images)
        return export.Comparison(1, 0.0, 1.0)

    monkeypatch.setattr(export, "write", lambda network, kind, file, form: file.write_bytes(b""))
    monkeypatch.setattr(export, "compare", compare)
    monkeypatch.setitem(export.RUNNERS, "onnx", lambda file: None)
    grey = np.random.default_rng(0).integers(0, 4096, (20, 30), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    depth = Depth(low=0, high=4095, clip=False)
    twelve = replace(model, legend=model.legend.model_copy(update={"depth": depth}))
    export.export(twelve, "onnx", tmp_path / "a.onnx", images=[str(tmp_path / "a.png")], overwrite=False)
    np.testing.assert_array_equal(cases[0][0, ..., 0], grey >> 4)
    card = json.loads((tmp_path / "a.onnx.json").read_text())
    assert card["input"]["deep_images"]["high"] == 4095


def test_small_and_unreadable_images_are_no_comparison(model: Model, tmp_path: Path) -> None:
    small = tmp_path / "small.png"
    Image.new("RGB", (16, 40)).save(small)
    with pytest.raises(UserError, match=r"small\.png: found 40×16 pixels; allowed: sides of 17"):
        export.export(model, "onnx", tmp_path / "a.onnx", images=[str(small)], overwrite=False)
    small.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"small\.png: cannot be read"):
        export.export(model, "onnx", tmp_path / "a.onnx", images=[str(small)], overwrite=False)


def test_missing_package_is_named(
    model: Model, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnx: not installed; run .*attnfd\[export\]"):
        export.export(model, "onnx", tmp_path / "a.onnx", images=[photos], overwrite=False)


def answers(file: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


FORMS = {
    "opset 18": export.Form(opset=18),
    "half": export.Form(half=True),
    "static": export.Form(size=(48, 81)),
    "probabilities": export.Form(probabilities=True),
    "all": export.Form(opset=21, half=True, size=(33, 65), probabilities=True),
}


@pytest.mark.parametrize("kind", sorted(export.SUFFIX))
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "all" else pytest.mark.slow) for name in FORMS]
)
def test_forms_of_a_file(name: str, kind: str, model: Model, photos: str, tmp_path: Path) -> None:
    form, file = FORMS[name], tmp_path / f"model{export.SUFFIX[kind]}"
    found = export.export(model, kind, file, images=[photos], form=form)
    assert found.agreement > 0.99
    card = json.loads(file.with_name(f"{file.name}.json").read_text())
    sides = list(form.size or ("height", "width"))
    assert card["input"]["shape"] == ["batch", *sides, 3]
    assert card["output"]["shape"] == ["batch", *([3] if form.probabilities else []), *sides]
    assert card["arithmetic"] == ("float16" if form.half else "float32")
    if kind != "onnx":
        return
    import onnx

    graph = onnx.load(file)
    assert graph.opset_import[0].version == card["opset"] == form.opset
    kinds = {
        onnx.TensorProto.DataType.Name(weight.data_type) for weight in graph.graph.initializer if weight.dims
    }
    assert ("FLOAT16" in kinds) == form.half
    images = np.random.default_rng(1).integers(0, 256, (3, *(form.size or (65, 97)), 3), dtype=np.uint8)
    answer = answers(file, images)
    scaled = (images / 255 - np.array(LEGEND.mean)) / np.array(LEGEND.std)
    with torch.no_grad():
        logits = network()(torch.from_numpy(scaled).float().permute(0, 3, 1, 2)).logits
    if form.probabilities:
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer.sum(1), 1, atol=2e-3)
        np.testing.assert_allclose(answer, logits.softmax(1).numpy(), atol=2e-2 if form.half else 1e-4)
    else:
        assert answer.dtype == np.uint8
        assert (answer == logits.argmax(1).numpy()).mean() > 0.99


def test_what_tensorrt_wants_of_a_graph(exported: Path) -> None:
    """TensorRT accepts uint8 inputs if a cast to float reads them. Any other problem is named."""
    if exported.suffix != ".onnx":
        pytest.skip("no graph of ONNX")
    import onnx

    graph = onnx.load(exported).graph
    assert json.loads(exported.with_name(f"{exported.name}.json").read_text())["tensorrt"] == []
    assert {node.op_type for node in graph.node if "images" in node.input} <= {"Cast", "Shape"}
    (last,) = (node for node in graph.node if "classes" in node.output)
    assert last.op_type == "Cast"
    (before,) = (node for node in graph.node if last.input[0] in node.output)
    assert before.op_type == "Cast"
    assert {attribute.i for attribute in before.attribute if attribute.name == "to"} == {
        onnx.TensorProto.FLOAT
    }


def test_what_tensorrt_would_refuse_is_named(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    given = helper.make_tensor_value_info("images", TensorProto.UINT8, [1, 2, 2, 3])
    classes = helper.make_tensor_value_info("classes", TensorProto.INT64, [1, 3, 2, 2])
    nodes = [
        helper.make_node("Transpose", ["images"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["classes"], to=TensorProto.INT64),
    ]
    save(helper.make_model(helper.make_graph(nodes, "g", [given], [classes])), tmp_path / "a.onnx")
    assert export.obstacles(tmp_path / "a.onnx") == [
        "the input is read by Transpose",
        "the output classes is int64",
    ]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="without OpenVINO")
def test_openvino_answers_the_same(exported: Path) -> None:
    if exported.suffix != ".onnx":
        pytest.skip("no graph of ONNX")
    import openvino

    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(exported), "CPU", precision)
    for shape in SHAPES:
        images = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
        (found,) = compiled(images).values()
        assert (found == answers(exported, images)).mean() > 0.999
