"""Sharded weights: a group of one GPU, or two processes of a CPU, gives what one process alone gives."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from benchmarks.gpu.checks.common import assert_near, environment, losses, place, store, tables, train
from benchmarks.gpu.checks.models import batch, score
from benchmarks.gpu.isolation import item
from tests.builders import make_model
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from pretextlm.model.blocks import Block
from pretextlm.model.model_inputs import prepare
from pretextlm.training.optimizers import Optimizer
from pretextlm.training.recipe import TrainingConfig
from pretextlm.training.sharded_checkpoint import is_sharded_tensor

SECTION = "10 sharded"


@item(SECTION, seconds=240, cases=["ddp", "zero2", "zero3"])
def two_processes_are_one(device: str, case: str) -> str:
    """Losses of two processes that share the gradients, over gloo; on a machine of one GPU they run on the CPU."""
    data = store()
    recipe = place() / "recipe.json"
    values = tables("cpu", data, parallel=case, optimizer="muon", batch_tokens=512, micro_batch_tokens=256)
    wanted = losses(train(values))
    recipe.write_text(json.dumps(values))
    program = (
        "import json,sys;from pretextlm.training.pretrain import pretrain;"
        "pretrain(json.load(open(sys.argv[1])),sys.argv[2])"
    )
    script = place() / "program.py"
    script.write_text(program)
    out = place() / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(script), str(recipe), str(out)],
        env={**environment(), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=220,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    found = torch.tensor([line["loss"] for line in lines if "loss" in line])
    return f"relative error {assert_near(found, wanted, 1e-5, 'losses'):.1e}"


@item(SECTION, needs_gpu="NCCL needs one", cases=["zero2", "zero3"])
def a_group_of_one_gpu(device: str, case: str) -> str:
    """Gradients and Muon's step of sharded blocks equal those of whole ones."""
    init = f"file://{place() / 'rendezvous'}"
    dist.init_process_group("nccl", init_method=init, rank=0, world_size=1, timeout=timedelta(seconds=60))
    results = []
    for sharded in (False, True):
        model = make_model(architecture="decoder", hidden_size=64).to(device).train()
        if sharded:
            mesh = init_device_mesh("cuda", (1,), mesh_dim_names=("shard",))
            policy = MixedPrecisionPolicy(cast_forward_inputs=False)
            for block in [part for part in model.modules() if isinstance(part, Block)]:
                fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=case == "zero3")
            fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
        optimizer = Optimizer(model, TrainingConfig(budget_steps=1), torch.bfloat16)
        inputs = prepare(batch("rotary", model.config), model.config, torch.device(device), torch.bfloat16)
        score(model(inputs).hidden_BTD).backward()
        gradients = torch.cat(
            [whole(weight.grad).flatten() for weight in model.parameters() if weight.grad is not None]
        )
        optimizer.set_multiplier(1.0)
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        optimizer.step()
        results.append([gradients, torch.cat([whole(weight).flatten() for weight in model.parameters()])])
    errors = [assert_near(b, a, 2e-2, what) for a, b, what in zip(*results, ("gradient", "weights"), strict=True)]
    dist.destroy_process_group()
    return "relative errors " + ", ".join(f"{error:.1e}" for error in errors)


def whole(tensor: torch.Tensor | nn.Parameter | None) -> torch.Tensor:
    """A sharded tensor put together."""
    assert tensor is not None, "a gradient"
    return tensor.full_tensor() if is_sharded_tensor(tensor) else tensor.detach()  # type: ignore[attr-defined,no-any-return]
