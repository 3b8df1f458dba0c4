import hashlib
import json
import pickle

import pytest
import torch

from attnfd import paths
from attnfd.errors import UserError
from attnfd.models import backbones, checkpoint
from attnfd.models.deeplab import DeepLabV3Plus
from attnfd.models.frozen import freeze


@pytest.mark.parametrize("name", backbones.names())
@pytest.mark.parametrize("frozen", [True, False])
def test_round_trip(name, frozen, trained, attention, images, tmp_path):
    model = trained(name, classes=7, attention=attention if frozen else None)
    model = freeze(model) if frozen else model
    checkpoint.save(tmp_path, model, {"classes": ["sky"], "seed": 3})
    loaded, card = checkpoint.load(tmp_path)
    model.to(
        memory_format=torch.channels_last
    )  # The layout after loading; another layout changes the last digits.
    assert card["frozen"] is frozen
    assert (card["classes"], card["seed"]) == (["sky"], 3)
    assert loaded.architecture == model.architecture
    assert not loaded.training
    assert torch.equal(loaded(images).logits, model(images).logits)
    assert set(loaded.state_dict()) == set(model.state_dict())
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    for key, parameter in loaded.named_parameters():
        assert parameter.requires_grad is not frozen, key
    if frozen:
        for layer, value in model.info.margins.items():
            assert torch.equal(loaded.info.margins[layer], value)
    else:
        loaded.train()(images).logits.sum().backward()


def test_same_model_same_bytes(trained, tmp_path):
    model = trained("mobilenetv2")
    checkpoint.save(tmp_path / "a", model, {"b": 1, "a": 2})
    checkpoint.save(tmp_path / "b", model.to(memory_format=torch.channels_last), {"a": 2, "b": 1})
    for file in (paths.MODEL, paths.CARD):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    digest = hashlib.sha256((tmp_path / "a" / paths.MODEL).read_bytes()).hexdigest()
    assert checkpoint.fingerprint(tmp_path / "a") == digest
    assert checkpoint.load(tmp_path / "a")[1]["sha256"] == digest


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    checkpoint.save(tmp_path, DeepLabV3Plus("mobilenetv2", 3), {})
    return tmp_path


def edit_card(folder, **changes):
    file = folder / paths.CARD
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refuse(folder, message):
    with pytest.raises(UserError, match=message) as caught:
        checkpoint.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", [paths.MODEL, paths.CARD])
def test_missing_file(file, saved):
    (saved / file).unlink()
    refuse(saved, f"{file}: cannot be read .No such file")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"architecture": {}}'])
def test_damaged_card(text, saved):
    (saved / paths.CARD).write_text(text)
    refuse(saved, r"card\.json: .*dvc repro")


@pytest.mark.parametrize(
    ("key", "value"), [("classes", 0), ("classes", "3"), ("dropout", [0.5]), ("attention", 1), ("extra", 1)]
)
def test_impossible_architecture(key, value, saved):
    architecture = json.loads((saved / paths.CARD).read_text())["architecture"]
    edit_card(saved, architecture=architecture | {key: value})
    refuse(saved, rf"card\.json: architecture\.{key}")


def test_unknown_backbone(saved):
    architecture = json.loads((saved / paths.CARD).read_text())["architecture"]
    edit_card(saved, architecture=architecture | {"backbone": "vgg"})
    refuse(saved, "unknown name 'vgg'")


@pytest.mark.parametrize("length", [0, 5, 100_000])
def test_truncated_weights(length, saved):
    file = saved / paths.MODEL
    file.write_bytes(file.read_bytes()[:length])
    refuse(saved, r"model\.safetensors: damaged")
    edit_card(saved, sha256=checkpoint.fingerprint(saved))
    refuse(saved, r"model\.safetensors: cannot be read as weights")


def test_another_number_of_classes(saved):
    architecture = json.loads((saved / paths.CARD).read_text())["architecture"]
    edit_card(saved, architecture=architecture | {"classes": 4})
    refuse(saved, r"shape: .*classifier\.weight \(3, 256, 1, 1\) instead of \(4, 256, 1, 1\)")


def test_weights_of_a_live_network_called_frozen(saved):
    edit_card(saved, frozen=True)
    refuse(saved, r"missing: .* and \d+ more; unknown: .* and \d+ more")


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_pickle_posing_as_weights_never_runs(saved):
    sprung = saved / "sprung"
    (saved / paths.MODEL).write_bytes(pickle.dumps(Trap(sprung)))
    edit_card(saved, sha256=checkpoint.fingerprint(saved))
    refuse(saved, "cannot be read as weights")
    assert not sprung.exists()


def test_own_entries_cannot_be_overwritten(trained, tmp_path):
    with pytest.raises(AssertionError):
        checkpoint.save(tmp_path, trained("mobilenetv2"), {"sha256": "0"})
