"""A model as a file that runs without this package: from pixels to classes, for any batch and image size."""

import copy
import importlib.util
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, fx

from attnfd import discovery, paths
from attnfd.config.params import load_params
from attnfd.data.depth import FULL
from attnfd.data.images import UNREADABLE, decode_image
from attnfd.data.prepared import open_prepared
from attnfd.data.transforms import normalize
from attnfd.deploy.predict import find
from attnfd.deploy.source import Model
from attnfd.errors import UserError
from attnfd.evaluation.inference import ClassMap
from attnfd.models.tapped import Tapped
from attnfd.results.examples import evenly

SUFFIX = {"onnx": ".onnx", "torch-export": ".pt2"}
"""Suffix of the file, by format."""

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""Packages that an export to ONNX needs."""

INSTALL = "`pip install 'attnfd[export]'`"
OPSET = 20
MIN_SIDE = 17
"""Smallest side of an image in pixels: below it, a feature map has one position, which export rejects."""

IMAGES = 8
"""Number of images on which an export is compared with the network."""

ODD_SIZE = (97, 131)
TOLERANCE = 1e-3
AGREEMENT = 0.999
HALF_TOLERANCE = 2e-2
HALF_AGREEMENT = 0.99
LOOPS = {"Loop", "If", "Scan"}
"""Operators of ONNX whose control flow depends on values."""

Answer = tuple[NDArray[np.uint8], NDArray[np.float32]]
Runner = Callable[[NDArray[np.uint8]], Answer]


class Form(NamedTuple):
    """Options of an exported file.

    `opset`: version of ONNX's operators. `half`: compute in float16. `size`: height and width of every image;
    None: any. `probabilities`: return the probabilities of the classes instead of the classes.
    """

    opset: int = OPSET
    half: bool = False
    size: tuple[int, int] | None = None
    probabilities: bool = False


PLAIN = Form()


class Comparison(NamedTuple):
    """How close an export is to the network.

    `difference`: `max|a - b| / max|a|` of the logits. `agreement`: share of pixels with the same class.
    """

    images: int
    difference: float
    agreement: float


def export(
    model: Model,
    kind: str,
    out: str | Path,
    *,
    images: Sequence[str] = (),
    overwrite: bool = False,
    form: Form = PLAIN,
) -> Comparison:
    """Write a model, and its inputs and outputs as `<out>.json`; write nothing if its results differ.

    Args:
        kind: one of `SUFFIX`.
        images: sources of images to compare on, see `attnfd.deploy.predict.find`; if empty, validation
            images of the model's dataset are used.
        overwrite: whether `out` may exist already.
        form: see `Form`.

    Raises:
        UserError: a name is not valid, a package is missing, there are no images, or the export differs from
            the network.
    """
    out = Path(out)
    discovery.one_of(kind, tuple(SUFFIX), "--format")
    check_packages(kind)
    if out.suffix != SUFFIX[kind]:
        raise UserError(
            f"{out}: found {out.suffix!r}; allowed for {kind}: a name that ends in {SUFFIX[kind]}"
        )
    card = out.with_name(f"{out.name}.json")
    if not overwrite and (out.exists() or card.exists()):
        raise UserError(f"{out}: already exists; name another file, or add --overwrite")
    cases = _cases(_given(model, images, out) if images else _validation(model), form.size)
    tolerance, least = (HALF_TOLERANCE, HALF_AGREEMENT) if form.half else (TOLERANCE, AGREEMENT)

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        file = Path(scratch, out.name)
        write(model.network, kind, file, form)
        found = compare(model.network, RUNNERS[kind](file), cases)
        if not (found.difference <= tolerance and found.agreement >= least):
            raise UserError(
                f"{model.name}: as {kind}, its logits differ by {found.difference:.1e}, and "
                f"{100 * found.agreement:.2f} % of the pixels have the same class; allowed: at most "
                f"{tolerance:.0e}, and at least {100 * least:.1f} %; nothing was written"
            )
        card_of_file = _describe(model, kind, found, form)
        if kind == "onnx":
            card_of_file["tensorrt"] = obstacles(file)
        text = json.dumps(card_of_file, indent=2, ensure_ascii=False)
        Path(scratch, card.name).write_text(text + "\n", encoding="utf-8")
        file.replace(out)
        Path(scratch, card.name).replace(card)
    return found


def check_packages(kind: str) -> None:
    """Check that the packages that a format needs are installed.

    Raises:
        UserError: one is missing.
    """
    for package in PACKAGES if kind == "onnx" else ():
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{package}: not installed; run {INSTALL}")


class Half(torch.nn.Module):
    """A copy of a network that computes in float16."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, images: Tensor) -> Any:
        return self.network(images.half())


def obstacles(file: Path) -> list[str]:
    """What TensorRT would refuse in a graph, or run slowly.

    TensorRT accepts bytes only if a cast reads them. It supports no 64-bit outputs, and no loops that depend
    on values.
    """
    import onnx

    graph = onnx.load(file).graph
    first = {node.op_type for node in graph.node if graph.input[0].name in node.input} - {"Shape"}
    wide = [
        output.name for output in graph.output if output.type.tensor_type.elem_type == onnx.TensorProto.INT64
    ]
    found = [f"the input is read by {name}" for name in sorted(first - {"Cast"})]
    found += [f"the output {name} is int64" for name in wide]
    return found + sorted({f"has {node.op_type}" for node in graph.node if node.op_type in LOOPS})


def write(network: torch.nn.Module, kind: str, file: Path, form: Form = PLAIN) -> None:
    """Write a network on the CPU, in eval mode, as `ClassMap`: uint8 (B, H, W, 3) → uint8 (B, H, W)."""
    if kind == "torch-export" and isinstance(network, Tapped):
        raise UserError(
            "--format: found torch-export, which does not support this kind of network; allowed: onnx"
        )
    # Sizes must differ and must not be 1, or torch.export would treat them as constants.
    example = torch.zeros(2, *(form.size or (64, 96)), 3, dtype=torch.uint8)
    axes = (
        {}
        if form.size
        else {1: torch.export.Dim("height", min=MIN_SIDE), 2: torch.export.Dim("width", min=MIN_SIDE)}
    )
    dynamic = {"images": {0: torch.export.Dim("batch"), **axes}}
    others = isinstance(network, Tapped)
    answering = ClassMap(Half(network) if form.half else network, probabilities=form.probabilities).eval()
    with torch.no_grad():
        try:
            program = torch.export.export(
                answering,
                (example,),
                # Torch cannot prove the sizes of a network from another library; the comparison checks them.
                dynamic_shapes={"images": dict.fromkeys(dynamic["images"], torch.export.Dim.AUTO)}
                if others
                else dynamic,
                prefer_deferred_runtime_asserts_over_guards=others,
            )
        except Exception as error:
            if not others:
                raise
            reason = str(error).strip().split("\n")[0]
            raise UserError(
                f"export: torch cannot export this network for variable image sizes ({reason})"
            ) from None
    if kind == "torch-export":
        torch.export.save(program, file)
        return
    exported = torch.onnx.export(
        program,
        opset_version=form.opset,
        input_names=["images"],
        output_names=[_answer(form)],
        dynamic_shapes=dynamic,  # only names the axes
        verbose=False,
    )
    assert exported is not None
    exported.save(file, external_data=False)


def _answer(form: Form) -> str:
    return "probabilities" if form.probabilities else "classes"


def _validation(model: Model) -> list[NDArray[np.uint8]]:
    """Some validation images of the model's dataset."""
    dataset = model.legend.dataset
    if not (paths.prepared(dataset) / paths.CARD).exists():
        raise UserError(
            f"{paths.prepared(dataset)}: not found; the export is compared with the network on its images: "
            f"run `dvc repro prepare@{dataset}`, or name other images by --images"
        )
    prepared = open_prepared(load_params(), dataset)
    names = prepared.split("val")["image"]
    chosen = [prepared.root / names[position] for position in evenly(IMAGES, len(names))]
    return [decode_image(file, model.legend.depth) for file in chosen]


def _given(model: Model, sources: Sequence[str], without: Path) -> list[NDArray[np.uint8]]:
    """Some of the images that a user names."""
    files = list(find(sources, without=without).values())
    images = []
    for position in evenly(IMAGES, len(files)):
        try:
            images.append(decode_image(files[position], model.legend.depth))
        except UNREADABLE as error:
            raise UserError(f"{files[position]}: cannot be read ({error}); fix it or leave it out") from None
        if min(images[-1].shape[:2]) < MIN_SIDE:
            height, width = images[-1].shape[:2]
            raise UserError(
                f"{files[position]}: found {height}×{width} pixels; allowed: sides of {MIN_SIDE} or more"
            )
    return images


def _cases(images: Sequence[NDArray[np.uint8]], size: tuple[int, int] | None) -> list[NDArray[np.uint8]]:
    """Each image alone at its own size, and a batch of three at a size that no stride divides.

    With a `size`, all images have that size.
    """
    height, width = size or ODD_SIZE

    def resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.array(Image.fromarray(image).resize((width, height)))

    odd = [resized(images[place % len(images)]) for place in range(3)]
    return [*((resized(image) if size else image)[None] for image in images), np.stack(odd)]


def _describe(model: Model, kind: str, found: Comparison, form: Form) -> dict[str, Any]:
    """The card of an exported file."""
    legend, sides = model.legend, form.size or ("height", "width")
    values = "probability of each class" if form.probabilities else "index of the class"
    return {
        "format": kind,
        **({"opset": form.opset} if kind == "onnx" else {}),
        "arithmetic": "float16" if form.half else "float32",
        "input": {
            "name": "images",
            "type": "uint8",
            "shape": ["batch", *sides, 3],
            "channels": "RGB",
            "smallest_side": MIN_SIDE,
            "preprocessing": "none: the file contains it, (x / 255 - mean) / std",
            "mean": legend.mean,
            "std": legend.std,
            "deep_images": {
                **(legend.depth or FULL).model_dump(),
                "rule": "of more than 8 bits: 256 * (min(max(x, low), high) - low) // (high - low + 1)",
            },
        },
        "output": {
            "name": _answer(form),
            "type": "float32" if form.probabilities else "uint8",
            "shape": ["batch", *([len(legend.classes)] if form.probabilities else []), *sides],
            "values": f"{values} of every pixel",
        },
        "classes": [
            {"index": index, "name": name, "colour": colour}
            for index, (name, colour) in enumerate(zip(legend.classes, legend.palette, strict=True))
        ],
        "dataset": legend.dataset,
        "architecture": model.card["architecture"],
        "model_sha256": model.card["sha256"],
        "compared": {
            "images": found.images,
            "logits_max_relative_difference": found.difference,
            "pixels_of_the_same_class": found.agreement,
        },
    }


def compare(network: torch.nn.Module, run: Runner, cases: Sequence[NDArray[np.uint8]]) -> Comparison:
    """Compare the results of a file with those of the network.

    Args:
        run: RGB images (B, H, W, 3), uint8 → classes (B, H, W) and logits (B, K, H, W).
        cases: RGB images (B, H, W, 3), uint8.
    """
    differences, agreed, pixels = [], 0, 0
    for images in cases:
        classes, logits = run(images)
        with torch.inference_mode():
            live = network(normalize(torch.from_numpy(images).permute(0, 3, 1, 2))).logits.numpy()
        differences.append(np.abs(live - logits).max() / np.abs(live).max())
        agreed += int((live.argmax(1) == classes).sum())
        pixels += classes.size
    worst = float(np.max(differences))  # NaN stays NaN
    return Comparison(sum(map(len, cases)), worst, agreed / pixels)


def _onnx(file: Path) -> Runner:
    """Runs the file's graph with its logits, the input of ArgMax, as a second output."""
    import onnx
    import onnxruntime

    graph = onnx.load(file)
    last = [node for node in graph.graph.node if node.op_type in ("ArgMax", "Softmax")][-1]
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(last.input[0]))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(images: NDArray[np.uint8]) -> Answer:
        answer, logits = session.run(None, {"images": images})
        return to_classes(answer), logits.astype(np.float32)

    return run


def to_classes(answer: NDArray[Any]) -> NDArray[Any]:
    """Classes (B, H, W) from a file's output, which may be probabilities (B, K, H, W)."""
    return answer if answer.ndim == 3 else answer.argmax(1)


class _Recorder(fx.Interpreter):
    """Runs an exported graph and keeps its logits, the input of argmax or softmax."""

    logits: Tensor

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target in (torch.ops.aten.argmax.default, torch.ops.aten.softmax.int):
            self.logits = args[0].float()
        return super().call_function(target, args, kwargs)


def _torch_export(file: Path) -> Runner:
    recorder = _Recorder(torch.export.load(file).module())

    def run(images: NDArray[np.uint8]) -> Answer:
        with torch.inference_mode():
            answer = recorder.run(torch.from_numpy(images))
        return to_classes(answer.numpy()), recorder.logits.numpy()

    return run


RUNNERS: dict[str, Callable[[Path], Runner]] = {"onnx": _onnx, "torch-export": _torch_export}
