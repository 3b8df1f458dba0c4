"""The card of a teacher of any kind describes its attention, and the BNs that could not be folded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from attnfd import paths
from attnfd.config.network import NetworkConfig
from attnfd.config.params import load_params
from attnfd.config.schema import LAYERS
from attnfd.config.section import validate
from attnfd.config.task import Task
from attnfd.models import checkpoint
from attnfd.models.frozen import bns
from attnfd.models.tapped import Tapped
from attnfd.networks.base import make_network
from stages.freeze import freeze
from stages.prepare import prepare
from stages.train_teacher import train_teacher
from tests import miniature, tasks
from tests.networks.test_networks import NETWORKS, ZOO, needs
from tests.test_stages import FRESH, TEACHER, Curves

FITTED = dict.fromkeys(LAYERS, "in the path, fitted alone")
ODD = {
    "network": "module",
    "build": f"{ZOO}:odd",
    "taps": {"backbone": "body", "encoder": "neck", "decoder": "last"},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("attnfd.networks.module.FOLDER", "tests.networks")
    Path("params.yaml").write_bytes((miniature.PROJECT / "params.yaml").read_bytes())
    miniature.change(tmp_path, {"recipes": {"shapes": miniature.SHAPES}})
    prepare(tasks.of(load_params(), "shapes"))
    return tmp_path


def frozen_card(settings: dict[str, Any], project: Path) -> dict[str, Any]:
    """The card of a frozen teacher: a checkpoint with random weights that was imported, fitted and frozen."""
    torch.manual_seed(0)
    made = make_network(validate(NetworkConfig, settings, "teacher"), 8).train()
    with torch.no_grad():
        made(torch.randn(4, 3, 33, 33))  # other BN statistics than the initial ones
    if isinstance(made, Tapped):
        torch.save(made.net.state_dict(), "teacher.pth")
        file = "teacher.pth"
    else:
        checkpoint.save("elsewhere", made, {})
        file = "elsewhere"
    changes = {"checkpoint": file, "fit_epochs": 1, **settings}
    miniature.change(project, {"recipes": {"shapes": {"train_teacher": changes}}})
    train_teacher([Task(load_params(), TEACHER, Curves(), FRESH)])
    freeze(tasks.of(load_params(), "shapes"))
    live, card = checkpoint.load(TEACHER.model)
    network, own = checkpoint.load(paths.frozen("shapes"))
    assert own["attention"] == card["attention"]
    assert own["bns"]["not_folded"] == bns(network)
    assert own["bns"]["folded"] == len(bns(live)) - len(bns(network))
    assert set(own["taps"]) == set(network.attention)
    return own


@pytest.mark.parametrize("name", NETWORKS)
def test_all_of_a_known_network_is_fitted_and_folded(name: str, project: Path) -> None:
    needs(name)
    card = frozen_card(NETWORKS[name], project)
    assert card["attention"] == FITTED
    assert card["bns"]["folded"] > 3
    assert card["bns"]["not_folded"] == []


def test_what_an_object_gives_has_gates_without_weights_and_some_bns_stay(project: Path) -> None:
    card = frozen_card(ODD, project)
    assert card["attention"] == FITTED | {"backbone": "beside the path, without weights"}
    # `late` follows a ReLU; `last` follows a convolution that is a tap. Two of the folded BNs are in gates.
    assert card["bns"] == {"folded": 3, "not_folded": ["net.late", "net.last"]}
    assert isinstance(checkpoint.load(paths.frozen("shapes"))[0].net.body.bn, nn.Identity)
