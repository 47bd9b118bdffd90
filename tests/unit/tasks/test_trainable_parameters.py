"""What is frozen keeps its bits, adapters leave the matrices alone, rates fall with depth, blocks thaw in turn."""

from __future__ import annotations

import pytest
import torch
from tests.builders import sentences

from pretextlm.compression.prune import Pruning, prune_run
from pretextlm.errors import UserError
from pretextlm.training.checkpoint import newest
from pretextlm.training.pretrain import pretrain
from pretextlm.training.run_directory import Run

RECORDS = [{"text": text, "label": i % 2} for i, text in enumerate(sentences(24))]
TASK = {"name": "text_classification"}


@pytest.fixture
def tuned(recipe, written, tmp_path):
    """A run under these settings."""

    def run(name="run", tuning=None, **training):
        return pretrain(recipe(TASK, written(RECORDS), tuning=tuning, **training), tmp_path / name)

    return run


def changed(run, start) -> set[str]:
    """Names of the weights that are no longer those of the run it began from."""
    before, after = Run.open(start).load_model().state_dict(), run.load_model().state_dict()
    return {name for name in before if name in after and not torch.equal(before[name], after[name])}


def test_a_frozen_trunk_keeps_its_bits_and_the_head_learns(tuned, start):
    assert changed(tuned(tuning={"freeze": ["trunk"]}), start) == set()
    some = changed(tuned("other", tuning={"freeze": ["embed*", "encoder.0.*"]}), start)
    assert some
    assert not any(name.startswith(("embed", "encoder.0.")) for name in some)


def test_a_pattern_that_names_no_weight_is_refused(tuned):
    with pytest.raises(UserError, match=r"No weight's name matches 'encoder\.9\.\*'"):
        tuned(tuning={"freeze": ["encoder.9.*"]})


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_adapters_change_their_targets_alone_and_merge_into_them(tuned, start, kind):
    pytest.importorskip("peft", reason="adapters are made by peft")
    run = tuned(tuning={"lora": {"rank": 4, "kind": kind}}, learning_rate=1e-2)
    assert changed(run, start) == {f"encoder.{i}.self_attn.{m}_proj.weight" for i in (0, 1) for m in "qv"}
    stored = newest(run.checkpoints).model()
    merged = run.load_model().state_dict()["encoder.0.self_attn.q_proj.weight"]
    place = "encoder.0.self_attn.q_proj"
    base, a, b = (stored[f"{place}.{part}.weight"] for part in ("base_layer", "lora_A.default", "lora_B.default"))
    if kind != "dora":
        scale = 16 / (4 if kind == "lora" else 2)
        assert torch.allclose(merged, base + scale * b @ a, atol=1e-6)


def test_a_run_with_adapters_can_be_pruned_and_opened_again(tuned, tmp_path):
    pytest.importorskip("peft", reason="adapters are made by peft")
    run = tuned(tuning={"lora": {}}, learning_rate=1e-2)
    prune_run(run.directory, tmp_path / "smaller", Pruning(layers=(0,)))
    whole, smaller = run.load_model().state_dict(), Run.open(tmp_path / "smaller").load_model().state_dict()
    assert all(torch.equal(smaller[name], whole[name]) for name in smaller)
    assert "encoder.0.self_attn.q_proj.weight" in smaller


def test_adapters_begin_by_the_seed_alone(tuned):
    pytest.importorskip("peft", reason="adapters are made by peft")
    torch.manual_seed(1)
    one = newest(tuned("one", tuning={"lora": {}}).checkpoints).model()
    torch.manual_seed(2)
    other = newest(tuned("other", tuning={"lora": {}}).checkpoints).model()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_rate_of_a_weight_falls_with_the_blocks_above_it(tuned, recipe, written, tmp_path):
    from pretextlm.training.corpus import open_corpus
    from pretextlm.training.plan import make_plan
    from pretextlm.training.progress import Silent
    from pretextlm.training.runtime import Runtime
    from pretextlm.training.trainer import Trainer

    chosen, corpus = open_corpus(recipe(TASK, written(RECORDS), tuning={"layer_decay": 0.5}, learning_rate=1e-3))
    plan = make_plan(chosen, corpus, torch.device("cpu"))
    trainer = Trainer(Run(tmp_path, chosen), corpus, plan, Runtime.choose(chosen.training, 0.0), Silent())
    rates = {id(p): group["top"] for group in trainer.optimizer.adamw.param_groups for p in group["params"]}
    found = {name: rates[id(p)] for name, p in trainer.model.named_parameters() if id(p) in rates}
    trainer.close()
    assert found["heads.task.out.weight"] == 1e-3
    assert found["encoder.1.mlp.up_proj.weight"] == 5e-4
    assert found["encoder.0.mlp.up_proj.weight"] == 2.5e-4
    assert found["embed_tokens.weight"] == 1.25e-4


def test_blocks_thaw_from_the_last_to_the_first(tuned, start):
    whole = tuned("whole", {"thaw": 0.5}, budget_steps=8)
    assert any(name.startswith("encoder.0.") for name in changed(whole, start))
    from pretextlm.training.trainable_parameters import TuningConfig, thaw

    model = Run.open(start).load_model()
    trained = []
    for share in (0.0, 0.3, 0.6, 0.99, 1.0):
        thaw(model, TuningConfig(thaw=1.0), share)
        trained.append(
            {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad and "encoder." in name}
        )
    assert trained == [set(), {"1"}, {"1", "0"}, {"1", "0"}, {"1", "0"}]
    assert model.embed_tokens.weight.requires_grad


def test_muon_has_no_rates_by_depth(recipe, written):
    with pytest.raises(UserError, match="adamw"):
        recipe(TASK, written(RECORDS), tuning={"layer_decay": 0.9}, optimizer="muon")
