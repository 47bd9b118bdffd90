"""One model on many devices: a copy on each (DDP), or its parts parallelize over them (FSDP2).

Whatever the way, gradients are summed, never averaged: every process has divided its part of the loss by the number of
targets of the whole step already.

    ddp      weights, gradients and optimizer whole on each device
    zero2    gradients and optimizer in parts; weights are gathered for a step (Rajbhandari et al. 2020,
             https://arxiv.org/abs/1910.02054, stage 2)
    zero3    weights in parts too, gathered block by block (stage 3)
    hybrid   zero3 on the devices of one machine, copies of it on the others
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pretextlm.errors import UserError
from pretextlm.model.blocks import Block
from pretextlm.training.distributed import DistributedContext

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

Way = Literal["ddp", "zero2", "zero3", "hybrid"]

_KEPT: list[nn.Module] = []
"""DDP's wrappers, for as long as the process lives. Freeing one frees its group of processes under Python's lock; if a
thread of that group is just giving back a tensor, it waits for that lock, and both wait for ever."""


def parallelize(
    module: nn.Module, distributed: DistributedContext, way: Way, device: torch.device, every_weight_used: bool
) -> nn.Module:
    """The module as it is to be called; its weights are the same on all processes before.

    Args:
        every_weight_used: whether each forward pass reads every weight, so that DDP need not look for those left out.

    Raises:
        UserError: "hybrid" where the machines differ in their number of processes.
    """
    if distributed.world_size == 1:
        return module
    if way == "ddp":
        whole = DistributedDataParallel(
            module, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=not every_weight_used
        )
        whole.register_comm_hook(None, _sum)
        _KEPT.append(whole)
        return whole
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = _mesh(distributed, way, device)
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    for block in [part for part in module.modules() if isinstance(part, Block)]:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=way != "zero2")
    fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)
    return module


def exchange_gradients(module: nn.Module, wanted: bool) -> None:
    """Whether the next backward pass exchanges gradients, or only adds to this process's own."""
    if isinstance(module, DistributedDataParallel):
        module.require_backward_grad_sync = wanted
    elif is_sharded(module):
        module.set_requires_gradient_sync(wanted)  # type: ignore[operator]


def is_sharded(module: nn.Module) -> bool:
    """Whether its weights are parallelize over processes."""
    return hasattr(module, "set_requires_gradient_sync")


def _sum(_, bucket):  # type: ignore[no-untyped-def]  # the wrapper refuses annotations that are strings
    """All processes' gradients of some weights, added up."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None, "the work goes on behind us"
    return work.get_future().then(lambda done: done.value()[0])


def _mesh(distributed: DistributedContext, way: Way, device: torch.device) -> DeviceMesh:
    from torch.distributed.device_mesh import init_device_mesh

    if way != "hybrid":
        return init_device_mesh(device.type, (distributed.world_size,), mesh_dim_names=("shard",))
    if distributed.world_size % distributed.local_world_size:
        raise UserError(
            f"training.parallel is 'hybrid', but {distributed.world_size} processes are not a multiple of "
            f"{distributed.local_world_size}.",
            "Start as many processes on each machine, or use training.parallel=zero3.",
        )
    shape = (distributed.world_size // distributed.local_world_size, distributed.local_world_size)
    return init_device_mesh(device.type, shape, mesh_dim_names=("replicate", "shard"))
