"""Data parallelism: a replica of the model on each device (DDP), or shards of it (FSDP2).

In every mode gradients are summed, not averaged, because each process has already divided its part of the loss by the
number of targets of the global batch.

    ddp      weights, gradients and optimizer state replicated
    zero2    gradients and optimizer state sharded; weights gathered for a step (Rajbhandari et al. 2020,
             https://arxiv.org/abs/1910.02054, stage 2)
    zero3    weights sharded too, gathered block by block (stage 3)
    hybrid   zero3 among the devices of a node, replicated between nodes
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

ParallelMode = Literal["ddp", "zero2", "zero3", "hybrid"]

_KEPT_ALIVE: list[nn.Module] = []
"""DDP wrappers, kept until the process ends. Freeing one destroys its process group while holding the interpreter lock;
if a thread of that group is releasing a tensor at that moment, it waits for the same lock: a deadlock."""


def parallelize(
    module: nn.Module,
    distributed: DistributedContext,
    mode: ParallelMode,
    device: torch.device,
    every_weight_used: bool,
) -> nn.Module:
    """Wraps a module for several processes.

    Args:
        module: with the same weights on all processes.
        distributed: the processes.
        mode: of parallelism.
        device: of the weights.
        every_weight_used: whether each forward pass uses every weight, so that DDP need not search for unused ones.

    Returns:
        The module to call in training.

    Raises:
        UserError: the mode is "hybrid" and the nodes have different numbers of processes.
    """
    if distributed.world_size == 1:
        return module
    if mode == "ddp":
        wrapper = DistributedDataParallel(
            module, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=not every_weight_used
        )
        wrapper.register_comm_hook(None, _sum)
        _KEPT_ALIVE.append(wrapper)
        return wrapper
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = _mesh(distributed, mode, device)
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    for block in [part for part in module.modules() if isinstance(part, Block)]:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=mode != "zero2")
    fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)
    return module


def set_gradient_sync(module: nn.Module, sync: bool) -> None:
    """Chooses whether the next backward pass sums the gradients over processes or only accumulates them locally.

    Args:
        module: as returned by `parallelize`.
        sync: True for the last micro-batch of a step.
    """
    if isinstance(module, DistributedDataParallel):
        module.require_backward_grad_sync = sync
    elif is_sharded(module):
        module.set_requires_gradient_sync(sync)  # type: ignore[operator]


def is_sharded(module: nn.Module) -> bool:
    """Returns whether the module's weights are sharded."""
    return hasattr(module, "set_requires_gradient_sync")


def _sum(_, bucket):  # type: ignore[no-untyped-def]  # DDP rejects annotations that are strings
    """Communication hook that sums a bucket of gradients; DDP's own would average them."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None, "an asynchronous all-reduce returns its work"
    return work.get_future().then(lambda done: done.value()[0])


def _mesh(distributed: DistributedContext, mode: ParallelMode, device: torch.device) -> DeviceMesh:
    from torch.distributed.device_mesh import init_device_mesh

    if mode != "hybrid":
        return init_device_mesh(device.type, (distributed.world_size,), mesh_dim_names=("shard",))
    if distributed.world_size % distributed.local_world_size:
        raise UserError(
            f"training.parallel is 'hybrid', but {distributed.world_size} processes are not a multiple of "
            f"{distributed.local_world_size}.",
            "Start the same number of processes on each node, or use training.parallel=zero3.",
        )
    shape = (distributed.world_size // distributed.local_world_size, distributed.local_world_size)
    return init_device_mesh(device.type, shape, mesh_dim_names=("replicate", "shard"))
