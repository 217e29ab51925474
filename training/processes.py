"""Several processes that train one network: `torchrun --nproc-per-node 2 -m understudy train CONFIG`.

Each process takes its share of every batch. Sums of the loss go over all of them before a root is taken, so that the
loss, and its gradient, is that of the whole batch; PyTorch's DistributedDataParallel averages the gradients. All come
to the same weights; the first one keeps the clock and writes the files. Alone, every function here is the identity.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes if torchrun started several: gloo on CPUs, NCCL on GPUs, one GPU a process."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
        dist.barrier()
    finally:
        dist.destroy_process_group()


def several() -> bool:
    """Whether there are others."""
    return dist.is_available() and dist.is_initialized()


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if several() else 1


def place() -> int:
    """Of this process, from 0."""
    return dist.get_rank() if several() else 0


def is_first() -> bool:
    """Whether this process writes files and shows progress."""
    return place() == 0


def total(values: Tensor) -> Tensor:
    """Sum over all processes, differentiable."""
    if not several():
        return values
    summed: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return summed


def as_the_first_has_it(value: Any) -> Any:
    """The first process's value, in all."""
    if not several():
        return value
    held = [value]
    dist.broadcast_object_list(held)
    return held[0]


def wait_for_the_first() -> None:
    """Until the first process has come here too, with all the files that it writes before."""
    if several():
        dist.barrier()


def in_step(module: torch.nn.Module) -> torch.nn.Module:
    """A module whose backward pass averages the gradients of all processes."""
    return DistributedDataParallel(module) if several() else module
