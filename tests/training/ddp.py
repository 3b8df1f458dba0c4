"""A step with DDP in one process, see test_gpu.py.

`torchrun --nproc-per-node 1 tests/training/ddp.py DEVICE FILE`: FILE gets the gradients of a step without
DDP, and of a step whose outputs are gathered as if there were two processes; on a GPU with NCCL.
"""

import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from attnfd.runtime import processes
from attnfd.training.objective import Objective
from tests.distillers.helpers import batch, build, tiny_student, tiny_teacher


def gradients(fabric: Fabric, *, together: bool) -> dict[str, Tensor]:
    torch.manual_seed(0)
    student, teacher = tiny_student(), tiny_teacher().to(fabric.device)
    objective = Objective(student, build("attnfd", student.info, teacher.info), teacher).train()  # type: ignore[arg-type]
    objective.to(fabric.device)
    called: nn.Module = objective
    if together:
        processes.count = lambda: 2  # Only torch knows the group; it has one process.
        if fabric.device.type == "cuda":
            processes.synchronise_bn(objective.model)
            assert any(isinstance(module, nn.SyncBatchNorm) for module in objective.model.modules())
        called = fabric.setup(objective)
    images, target = fabric.to_device(batch(4))
    fabric.backward(sum(called(images, target, 0.0).values()))
    found = {name: value.grad for name, value in objective.named_parameters()}
    return {name: gradient.cpu() for name, gradient in found.items() if gradient is not None}


def main(device: str, file: Path) -> None:
    fabric = Fabric(accelerator=device, devices=1, strategy="ddp", precision="32-true")
    fabric.launch()
    assert torch.distributed.get_backend() == ("nccl" if device == "cuda" else "gloo")
    torch.save([gradients(fabric, together=together) for together in (False, True)], file)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
