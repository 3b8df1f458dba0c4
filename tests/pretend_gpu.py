"""A simulated GPU: tensors in the memory of the host that report the device `cuda:0`.

Inside `pretend_gpu()`, the storage of each tensor that moves to `cuda` is marked, and so are all results
computed from it. As on a real GPU, an operation refuses a mix of GPU tensors and other tensors, and `numpy()`
refuses GPU tensors. Everything that makes the host wait for the GPU is recorded with its line in attnfd/: a
number that is read, a copy without `non_blocking`, a size that depends on values.

All numbers are computed by the CPU. CUDA kernels and autocast on a GPU need a real one: `pytest -m gpu`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import attnfd

CUDA = torch.device("cuda:0")
SOURCE = f"{Path(attnfd.__file__).parent}/"

SIZED_BY_VALUES = {"nonzero", "masked_select", "bincount", "_unique2", "unique_dim", "repeat_interleave"}
READS = {"_local_scalar_dense", "equal", "is_nonzero", *SIZED_BY_VALUES}
"""Operations that wait for the GPU."""

COPIES = {"copy_", "_to_copy"}
INDEXING = {"index", "index_put_", "index_put", "_index_put_impl_"}
IN_ANY_ORDER = {"scatter_add_", "index_add_", "scatter_reduce_"}
"""Operations whose sums on a GPU are in another order each time, which torch warns of on request."""


class Wait(NamedTuple):
    """What the host waited for, and where in attnfd/: `training/state.py:step`."""

    operation: str
    where: str


class DeviceMismatchError(RuntimeError):
    """An operation has GPU tensors and other tensors as arguments."""


class PretendGpu:
    """The tensors that are on the GPU, and the waits of the host."""

    def __init__(self) -> None:
        self.waits: list[Wait] = []
        self.warnings: list[Wait] = []
        # A weak reference prevents that another storage gets this address.
        self._storages: dict[int, StorageWeakRef] = {}

    def has(self, tensor: Tensor) -> bool:
        with torch._C.DisableTorchFunction():
            return tensor.untyped_storage()._cdata in self._storages

    def mark(self, tensor: Tensor, here: bool = True) -> None:
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
        if here:
            self._storages.setdefault(storage._cdata, StorageWeakRef(storage))
        else:
            self._storages.pop(storage._cdata, None)

    def wait(self, operation: str) -> None:
        self.waits.append(Wait(operation, _where()))

    def move(self, tensor: Tensor, device: torch.device | None, non_blocking: bool, **given: Any) -> Tensor:
        """The effect of `Tensor.to`."""
        here = self.has(tensor)
        there = here if device is None else device.type == "cuda"
        copy = given.pop("copy", False) or here != there
        moved = tensor.to(copy=copy, **given)
        self.mark(moved, there)
        if here and not there:
            self.wait("copy to the host")
        elif there and not here and not non_blocking:
            self.wait("copy to the GPU")
        return moved


class _Functions(TorchFunctionMode):
    """Replaces Python functions that read the device of tensors, move tensors, or create them on a device."""

    def __init__(self, gpu: PretendGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, gpu = dict(kwargs or {}), self.gpu
        name = getattr(function, "__name__", "")
        if name == "__get__":
            asked = getattr(function.__self__, "__name__", "")
            if asked == "device" and gpu.has(args[0]):
                return CUDA
            return gpu.has(args[0]) if asked == "is_cuda" else function(*args, **kwargs)
        if name == "to" and args and isinstance(args[0], Tensor):
            return self._to(args[0], *args[1:], **kwargs)
        if name in ("cuda", "cpu") and args and isinstance(args[0], Tensor):
            return gpu.move(args[0], torch.device(name), non_blocking=False)
        if name in ("numpy", "__array__") and gpu.has(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
        if name == "tolist" and gpu.has(args[0]):
            gpu.wait("tolist")
        device = kwargs.get("device")
        if device is None or torch.device(device).type != "cuda":
            made = function(*args, **kwargs)
            if name == "__deepcopy__" and gpu.has(args[0]):
                gpu.mark(made)
            return made
        made = function(*args, **kwargs | {"device": "cpu"})
        if name in ("tensor", "as_tensor"):
            gpu.wait("copy to the GPU")
        gpu.mark(made)
        return made

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        copy = kwargs.pop("copy", False)
        if args and isinstance(args[0], Tensor):
            other, *args = args
            kwargs = {"device": CUDA if self.gpu.has(other) else torch.device("cpu"), "dtype": other.dtype}
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        given = {"dtype": dtype or tensor.dtype, "memory_format": memory_format or torch.preserve_format}
        return self.gpu.move(tensor, device, non_blocking, copy=copy, **given)


class _Operations(TorchDispatchMode):
    """Replaces all operations, also those of autograd."""

    def __init__(self, gpu: PretendGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, gpu = kwargs or {}, self.gpu
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        here = [gpu.has(tensor) for tensor in given]
        if not any(here):
            return function(*args, **kwargs)
        name = function._schema.name.partition("::")[2]
        others = [t for t, on_gpu in zip(given, here, strict=True) if not on_gpu and t.dim()]
        if others and name == "copy_":
            gpu.wait("copy")
            return function(*args, **kwargs)
        indices = [index for index in args[1] if index is not None] if name in INDEXING else []
        if others and all(any(other is index for index in indices) for other in others):
            gpu.wait("copy of an index to the GPU")
        elif others:
            sizes = ", ".join(f"{tuple(tensor.shape)}" for tensor in others)
            raise DeviceMismatchError(f"{name}: found tensors on the CPU, {sizes}, beside others on cuda:0")
        if name in READS and kwargs.get("output_size") is None:
            gpu.wait(name)
        if any(index.dtype == torch.bool for index in indices) and not _is_masked_fill(name, args):
            gpu.wait(f"{name} by a mask")
        if name in IN_ANY_ORDER and torch.are_deterministic_algorithms_enabled():
            gpu.warnings.append(Wait(name, _where()))
        made = function(*args, **kwargs)
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                gpu.mark(leaf)
        return made


def _is_masked_fill(name: str, args: Any) -> bool:
    """Whether a mask selects elements that get one number: then no size depends on values."""
    return name.startswith("index_put") and len(args) > 2 and args[2].numel() == 1


def _where() -> str:
    """The innermost running function of attnfd/."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(SOURCE):
            return f"{file.removeprefix(SOURCE)}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "outside of attnfd"


@contextmanager
def pretend_gpu() -> Iterator[PretendGpu]:
    """A GPU for the code inside the `with` block."""
    gpu = PretendGpu()
    with _Operations(gpu), _Functions(gpu):
        yield gpu
