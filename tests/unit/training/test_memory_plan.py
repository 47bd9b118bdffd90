"""How a step is cut to fit into memory: what is chosen, what it saves, and that it changes no gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.builders import make_store

import pretextlm.training.memory_plan as module
from pretextlm.model.loss import CHUNK_CPU
from pretextlm.model.transformer import meta_model
from pretextlm.training.corpus import Corpus
from pretextlm.training.distributed import SINGLE_PROCESS
from pretextlm.training.memory_estimate import estimate_memory
from pretextlm.training.memory_plan import USABLE, MemoryPlan, plan_memory
from pretextlm.training.plan import make_loader, make_plan
from pretextlm.training.pretrain import pretrain
from pretextlm.training.progress import Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.runtime import Runtime
from pretextlm.training.trainer import Trainer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OBJECTIVES = ("causal", "masked", "span_corruption", "replaced_token")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("fit") / "store")


def recipe(store, objective="causal", layers=4, **training):
    values = {
        "name": "fit",
        "data": {"store": str(store.path), "length": 32},
        "objective": objective,
        "model": {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2},
        "training": {"budget_steps": 2, "batch_tokens": 256, "dtype": "fp32", "compile": "off", **training},
    }
    return Recipe.load(values).with_vocabulary(store.vocabulary)


def found(store, free, device=CPU, monkeypatch=None, **options) -> MemoryPlan:
    """The way that is chosen with so many free bytes."""
    monkeypatch.setattr(module, "free_memory", lambda device: free)
    whole = recipe(store, **options)
    runtime = replace(Runtime.choose(whole.training, 0.0), device=device)
    return plan_memory(whole, make_plan(whole, Corpus.of_store(whole, store), device), runtime, SINGLE_PROCESS)


def needed(store, recomputed, rows=8, **options) -> int:
    whole = recipe(store, **options)
    plan = make_plan(whole, Corpus.of_store(whole, store), CPU)
    model = meta_model(whole.model, whole.training_objective.heads)
    estimate = estimate_memory(model, "muon", rows, plan.length, "fp32", plan.target_length, recomputed, CHUNK_CPU)
    return estimate.total


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("recomputed", [1, 4])
def test_gradients_are_the_same_to_the_last_bit_when_blocks_are_computed_twice(store, tmp_path, objective, recomputed):
    whole = recipe(store, objective)
    plan = make_plan(whole, Corpus.of_store(whole, store), CPU)
    gradients = []
    for blocks in (0, recomputed):
        run = Run(tmp_path, whole)
        trainer = Trainer(
            run,
            Corpus.of_store(whole, store),
            replace(plan, recomputed=blocks),
            Runtime.choose(whole.training, 0.0),
            Silent(),
        )
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                parameter.normal_(0.0, 0.1, generator=generator)
        with make_loader(whole, Corpus.of_store(whole, store), None) as loader:
            trainer.gradients(list(loader.step(0, plan.rows, plan.micro_rows)))
        trainer.close()
        gradients.append([p.grad for p in trainer.model.parameters() if p.grad is not None])
    assert gradients[0]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_a_run_whose_blocks_are_computed_twice_ends_with_the_same_weights(store, tmp_path):
    runs = [
        pretrain(recipe(store, gradient_checkpointing=wish), tmp_path / wish).load_model().state_dict()
        for wish in ("off", "blocks")
    ]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_what_autograd_keeps_shrinks_block_by_block(store):
    """Counted from what autograd really saves, not from the estimate."""
    whole = recipe(store, layers=6)
    plan = make_plan(whole, Corpus.of_store(whole, store), CPU)
    kept = []
    for blocks in (0, 3, 6):
        trainer = Trainer(
            Run(store.path, whole),
            Corpus.of_store(whole, store),
            replace(plan, recomputed=blocks),
            Runtime.choose(whole.training, 0.0),
            Silent(),
        )
        with make_loader(whole, Corpus.of_store(whole, store), None) as loader:
            batch = next(iter(loader.step(0, plan.rows, plan.micro_rows)))
        weights = {p.data_ptr() for p in trainer.model.parameters()}
        saved: dict[int, int] = {}

        def note(tensor, saved=saved, weights=weights):
            if tensor.data_ptr() not in weights:
                saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            trainer.forward(batch)
        kept.append(sum(saved.values()))
        trainer.close()
    block = (kept[0] - kept[2]) / 6
    assert kept[2] < 0.5 * kept[0]
    assert kept[1] == pytest.approx(kept[0] - 3 * block, rel=0.05)


def test_the_logits_of_a_chunk_of_targets_count(store):
    model = meta_model(recipe(store).model.model_copy(update={"vocab_size": 100_000}))
    sizes = [estimate_memory(model, "muon", 8, 64, "fp32", chunk=chunk).total for chunk in (0, 128, 512, 4096)]
    assert sizes[1] - sizes[0] == 128 * 100_000 * 16
    assert sizes[2] == sizes[3] == sizes[0] + 512 * 100_000 * 16  # there are no more targets
    assert 4 * (sizes[1] - sizes[0]) == sizes[2] - sizes[0]


def test_nothing_is_recomputed_where_all_fits_or_nobody_knows(store, monkeypatch):
    for free in (None, 1 << 40):
        chosen = found(store, free, monkeypatch=monkeypatch)
        assert (chosen.micro_rows, chosen.recomputed, chosen.fits) == (8, 0, True)


def test_as_few_blocks_as_need_be_are_recomputed(store, monkeypatch):
    sizes = [needed(store, blocks) for blocks in range(4)]
    assert sizes == sorted(set(sizes), reverse=True)
    for blocks in range(1, 4):
        chosen = found(store, int(sizes[blocks] / USABLE) + 8, monkeypatch=monkeypatch)
        assert (chosen.recomputed, chosen.fits) == (blocks, True)
    chosen = found(store, 1000, monkeypatch=monkeypatch)
    assert (chosen.recomputed, chosen.fits) == (4, False)


def test_the_wish_of_the_recipe_is_followed_whether_it_fits_or_not(store, monkeypatch):
    off = found(store, 1000, monkeypatch=monkeypatch, gradient_checkpointing="off")
    assert (off.recomputed, off.fits) == (0, False)
    assert found(store, 1 << 40, monkeypatch=monkeypatch, gradient_checkpointing="blocks").recomputed == 4


def test_on_a_gpu_the_batch_is_halved_before_blocks_are_recomputed_but_not_below_what_keeps_it_busy(store, monkeypatch):
    monkeypatch.setattr(module, "ENOUGH_TOKENS", 64)
    half = int(needed(store, 0, rows=4) / USABLE) + 100
    chosen = found(store, half, CUDA, monkeypatch)
    assert (chosen.micro_rows, chosen.recomputed) == (4, 0)
    one = int(needed(store, 2, rows=2) / USABLE) + 100
    chosen = found(store, one, CUDA, monkeypatch)
    assert (chosen.micro_rows, chosen.recomputed) == (2, 2)
    fixed = found(store, half, CUDA, monkeypatch, micro_batch_tokens=256)
    assert (fixed.micro_rows, fixed.recomputed > 0) == (8, True)


def test_blocks_with_shared_weights_are_recomputed_all_together(store, monkeypatch):
    whole = recipe(store)
    shared = whole.model_copy(update={"model": whole.model.model_copy(update={"share_layers": True})})
    monkeypatch.setattr(module, "free_memory", lambda device: 1000)
    chosen = plan_memory(
        shared,
        make_plan(shared, Corpus.of_store(shared, store), CPU),
        Runtime.choose(shared.training, 0.0),
        SINGLE_PROCESS,
    )
    assert chosen.recomputed == 4
    model = meta_model(shared.model)
    model.set_gradient_checkpointing(chosen.recomputed)
    assert model.decoder[0].gradient_checkpointing
