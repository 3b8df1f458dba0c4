"""Results of several processes that share the same batches, see test_processes.py.

`torchrun … tests/training/together.py FOLDER FILE`: FOLDER contains the dataset `tiny` and its tree. The
results in FILE: for every method, the gradients and buffers after some steps on a batch of which every
process has a part; the output and the buffers of a BN with bfloat16 input; and the confusion matrix of a
split.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed.nn import functional as collective

from attnfd import discovery, paths
from attnfd.data.loaders import eval_loader
from attnfd.data.prepared import Prepared
from attnfd.evaluation import inference
from attnfd.models.taps import Output
from attnfd.runtime import processes
from attnfd.runtime.fabric import start_fabric
from attnfd.training.objective import Objective
from tests.distillers.helpers import batch, build, tiny_student, tiny_teacher

IMAGES, STEPS = 4, 3


def main(folder: Path, file: Path) -> None:
    os.chdir(folder)
    fabric = start_fabric("64-true", together=True)
    found = {name: train(name, fabric) for name in discovery.names("distillers")}
    found["bfloat16"] = normalised()
    found["confusion"] = confusion()
    everyone = processes.everyones(found)
    if processes.rank() == 0:
        torch.save(everyone, file)


def train(name: str, fabric: Fabric) -> dict[str, Tensor]:
    torch.manual_seed(0)
    student, teacher = tiny_student().double(), tiny_teacher().double()
    # The mean of the parts' losses is not the batch's: one image is nearly void, and their contrasts differ.
    images, target = batch(IMAGES)
    target[1, 1:] = 255
    images = images.double() * torch.tensor([1.0, 3.0, 0.3, 1.0], dtype=torch.double).view(-1, 1, 1, 1)
    part = IMAGES // processes.count()
    mine = slice(part * processes.rank(), part * (processes.rank() + 1))
    distiller = build(name, student.info, teacher.info).double()
    objective = Objective(student, distiller, teacher).train()  # type: ignore[arg-type]
    synchronise_bn(objective.model)
    optimizer = torch.optim.SGD(objective.parameters(), lr=1e-3)
    wrapped, stepping = fabric.setup(objective, optimizer)
    for _ in range(STEPS):
        terms = wrapped(images[mine], target[mine], 0.0)
        stepping.zero_grad()
        fabric.backward(sum(terms.values()))
        stepping.step()
    state = {f"term {key}": value.detach() for key, value in terms.items()}
    state |= {f"buffer {key}": value.clone() for key, value in objective.named_buffers()}
    gradients = {key: value.grad for key, value in objective.named_parameters()}
    return state | {f"gradient {key}": value.clone() for key, value in gradients.items() if value is not None}


def synchronise_bn(network: nn.Module) -> None:
    if processes.count() > 1:
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = SynchronousBN


class SynchronousBN(nn.BatchNorm2d):
    """Does on a CPU what `nn.SyncBatchNorm` does on GPUs; that class refuses a CPU."""

    def forward(self, feature: Tensor) -> Tensor:
        if not self.training:
            return super().forward(feature)
        axes = (0, 2, 3)
        pixels = feature.numel() // feature.shape[1] * processes.count()
        given = feature.dtype
        feature = feature.to(self.weight.dtype)  # The statistics of a bfloat16 feature are float32.
        mean = collective.all_reduce(feature.sum(axes)) / pixels
        centred = feature - mean[:, None, None]
        variance = collective.all_reduce(centred.square().sum(axes)) / pixels
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * pixels / (pixels - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(given)


def normalised() -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(3))
    feature = 2 + 3 * torch.randn(IMAGES, 3, 5, 7)
    synchronise_bn(network)
    part = feature.chunk(processes.count())[processes.rank()]
    output = processes.gather(network(part.bfloat16()))
    return {"output": output.detach(), **dict(network.named_buffers())}


def confusion() -> Tensor:
    """The confusion matrix of images of several sizes; the network's output is their brightness."""
    prepared = Prepared.load(paths.prepared("tiny"), Path("tree"))
    share = processes.rank(), processes.count()
    loader = eval_loader(prepared, "val", 2, device=torch.device("cpu"), share=share)
    matrices = inference.confusion(Brightness(), loader, 11, device="cpu")
    return torch.from_numpy(processes.total(matrices.sum(0)))


class Brightness(nn.Module):
    def forward(self, images: Tensor) -> Any:
        levels = torch.linspace(-2, 2, 11).view(1, -1, 1, 1)
        return Output(-(images.mean(1, keepdim=True) - levels).abs(), {})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
