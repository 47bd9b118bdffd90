"""Muon orthogonalizes and both optimizers come back from their saved state bit for bit."""

import pytest
import torch
from tests.builders import make_model

from pretextlm.training.muon import orthogonalize
from pretextlm.training.optimizers import Optimizer
from pretextlm.training.recipe import TrainingConfig


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 16, 64), (2, 64, 16)])
def test_singular_values_end_near_one_and_the_factors_stay(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonalize(matrices, torch.float32)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.3
    assert values.max() < 1.3
    aligned = torch.einsum("grk,grc,gkc->gk", u, found, vh)
    torch.testing.assert_close(aligned, values.sort(descending=True).values, atol=0.5, rtol=0)
    assert (aligned > 0.3).all()


def test_a_batch_of_matrices_equals_each_by_itself():
    torch.manual_seed(0)
    matrices = torch.randn(4, 24, 48)
    alone = torch.stack([orthogonalize(m[None], torch.float32)[0] for m in matrices])
    torch.testing.assert_close(orthogonalize(matrices, torch.float32), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_saved_state_continues_bit_for_bit(kind):
    config = TrainingConfig(budget_steps=1, optimizer=kind, weight_decay=0.1)

    def steps(model, optimizer, first, last):
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.set_multiplier(0.5)
            optimizer.step()

    whole, cut, fresh = (make_model() for _ in range(3))
    one, two = (Optimizer(m, config, torch.float32) for m in (whole, cut))
    steps(whole, one, 0, 6)
    steps(cut, two, 0, 3)
    state = {name: tensor.clone() for name, tensor in two.state().items()}
    fresh.load_state_dict(cut.state_dict())
    three = Optimizer(fresh, config, torch.float32)
    three.load(state)
    steps(fresh, three, 3, 6)
    for mine, theirs in zip(whole.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_matrices_alone_can_be_trained_by_muon_as_adapters_are():
    model = make_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("q_proj.weight"))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = Optimizer(model, TrainingConfig(budget_steps=1), torch.float32)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.set_multiplier(1.0)
    optimizer.step(norm=10.0)
    optimizer.load({name: tensor.clone() for name, tensor in optimizer.state().items()})
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if name.endswith("q_proj.weight")}


def test_muon_moves_matrices_and_adamw_the_embedding():
    model = make_model()
    optimizer = Optimizer(model, TrainingConfig(budget_steps=1), torch.float32)
    names = {id(p): n for n, p in model.named_parameters()}
    in_muon = {names[id(p)] for group in optimizer.muon.groups for p in group}
    assert "embed_tokens.weight" not in in_muon
    assert len(in_muon) == len(names) - 1


@pytest.mark.parametrize("kind", ["muon", "adamw"])
@pytest.mark.parametrize("size", [1e-3, 10.0])
def test_gradients_above_the_recipes_norm_count_as_if_they_had_been_clipped_before(kind, size):
    config = TrainingConfig(budget_steps=1, optimizer=kind, max_grad_norm=0.5)
    inside, before = make_model(), make_model()
    one, two = (Optimizer(m, config, torch.float32) for m in (inside, before))
    for step in range(3):
        for model in (inside, before):
            generator = torch.Generator().manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = size * torch.randn(parameter.shape, generator=generator)
        norm = torch.nn.utils.clip_grad_norm_(before.parameters(), 0.5)
        for optimizer in (one, two):
            optimizer.set_multiplier(0.5)
        one.step(float(norm))
        two.step()
    for mine, theirs in zip(inside.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)
