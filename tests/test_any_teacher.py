"""The three teachers of the how-to in the whole miniature pipeline, with random weights, offline."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

from attnfd.config.network import NetworkConfig
from attnfd.config.section import validate
from attnfd.networks.base import make_network
from attnfd.readers.shapes import Shapes
from tests import miniature

PAGE = (miniature.PROJECT / "docs/any-network.md").read_text(encoding="utf-8")
(MINE,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
TEACHERS: dict[str, dict[str, Any]] = {
    str(teacher.get("build") or teacher["architecture"]).rpartition(":")[2]: teacher
    for block in re.findall(r"^```yaml\n(train_teacher:.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for teacher in [YAML(typ="safe").load(block)["train_teacher"]]
}
CLASSES = {"UPerNet": 8, "deeplab": 8, "segformer": 19}
ATTENTION = dict.fromkeys(("backbone", "encoder", "decoder"), "in the path, fitted alone")


def of_page() -> ModuleType:
    module = ModuleType("mine")
    exec(MINE, module.__dict__)
    return module


def net(name: str, classes: int) -> nn.Module:
    """The network of the page, with other BN statistics than the initial ones."""
    if TEACHERS[name]["network"] == "module":
        build: Callable[[int], nn.Module] = getattr(of_page(), name)
        made = build(classes)
    else:
        own = {key: value for key, value in TEACHERS[name].items() if key != "checkpoint"}
        made = make_network(validate(NetworkConfig, own, name), classes).net
    with torch.no_grad():
        for _ in range(2):
            made.train()(torch.randn(4, 3, 64, 64))
    return made.eval()


def save(name: str, folder: Path) -> None:
    """As the page says; a SegFormer comes from a folder that transformers wrote."""
    made, file = net(name, CLASSES[name]), folder / TEACHERS[name]["checkpoint"]
    file.parent.mkdir()
    if name == "segformer":
        made.save_pretrained(folder / "theirs")  # type: ignore[operator]
        made = type(made).from_pretrained(folder / "theirs")  # type: ignore[attr-defined]
        shutil.rmtree(folder / "theirs")
    if file.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(made.state_dict(), file)
    else:
        torch.save(made.state_dict(), file)


def test_the_page_has_three_teachers() -> None:
    assert set(TEACHERS) == set(CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_of_the_how_to_runs_the_whole_pipeline(name: str, tmp_path: Path) -> None:
    """One of them is a SegFormer with 19 classes, and a SegFormer is its student."""
    pytest.importorskip("transformers" if name == "segformer" else "segmentation_models_pytorch")
    folder = miniature.clone(tmp_path / "project")
    (folder / "networks/mine.py").write_text(MINE)
    save(name, folder)
    teacher = TEACHERS[name] | {"fit_epochs": 1}
    if name == "segformer":
        # Two of its classes for each class of the dataset; the others are dropped.
        theirs = [f"class {number}" for number in range(19)]
        teacher |= {"classes": theirs, "class_map": dict(zip(theirs, [*Shapes.classes * 2], strict=False))}
    student = {"network": "smp", "architecture": "Segformer", "encoder": "mit_b0"}
    run = {"students": ["segformer"], "ablate": {"students": ["segformer"], "variants": ["b"], "seeds": [0]}}
    shapes = {"train_teacher": teacher, "distill": {"optimizer": "adamw", "lr": 6e-5, "warmup": 0.1}}
    miniature.change(folder, {"students": {"segformer": student}, "run": run, "recipes": {"shapes": shapes}})
    miniature.commit(folder, "teacher")
    done = miniature.run(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    card = json.loads((folder / "models/shapes/frozen/card.json").read_text())
    assert card["attention"] == ATTENTION
    assert card["bns"]["not_folded"] == []
    assert card["architecture"]["classes"] == CLASSES[name]
    cells = {"segformer/none/0", "segformer/attnfd/0", "teacher"}
    for cell in cells:
        metrics = json.loads((folder / "results/shapes" / cell / "metrics.json").read_text())
        assert 0 <= metrics["miou"] <= 1
    assert "segformer" in (folder / "reports/shapes/report.md").read_text()
    again = miniature.run(folder, "dvc", "status")
    assert "up to date" in again.stdout
    # An edit of the file makes the teacher stale, because it may change the result.
    with (folder / "networks/mine.py").open("a") as file:
        file.write("# edited\n")
    assert "train_teacher@shapes" in miniature.run(folder, "dvc", "status").stdout
