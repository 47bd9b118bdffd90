"""How a run leaves, by its recipe alone: the class that is named is the class that is written."""

import pytest
from tests.builders import make_store

from pretextlm.errors import UserError
from pretextlm.hf.export_format import export_format
from pretextlm.hf.export_model import export_model
from pretextlm.model.families.registry import FAMILIES
from pretextlm.model.presets.preset import presets
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDER = {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
OBJECTIVES = {"encoder": "masked", "decoder": "causal", "encoder_decoder": "span_corruption"}
SAME_AS = {"mt5": "t5", "xlm-roberta": "roberta"}
"""Families that differ from another in their tokenizers alone."""
MNTP = {"name": "masked", "predict": "next"}


def recipe(objective, store="", **model):
    values = {
        "data": {"store": str(store or "stores/none"), "length": 64},
        "objective": objective if isinstance(objective, dict) else {"name": objective},
        "model": {"vocab_size": 0 if store else 300, **SMALL, **model},
        "training": {"budget_steps": 1, "batch_tokens": 128, "dtype": "fp32", "compile": "off", "validations": 0},
    }
    return Recipe.load(values)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store", train=40, validation=10)


@pytest.mark.parametrize(
    ("objective", "preset", "architecture"),
    [
        ("causal", None, "NanoChatForCausalLM"),
        ("fill_in_middle", None, "NanoChatForCausalLM"),
        ("mixed_visibility", None, "NanoChatForCausalLM"),
        ("masked", "bert-base-uncased", "BertForMaskedLM"),
        ("next_sentence", "bert-base-uncased", "BertForPreTraining"),
        ("masked", "modernbert-base", "ModernBertForMaskedLM"),
        ({"name": "masked", "predict": "next"}, "bert-base-uncased", "BertModel"),
        ("permutation", "bert-base-uncased", "BertModel"),
        ("replaced_token", "electra-small", "ElectraForPreTraining"),
        ("span_corruption", "t5-v1_1-small", "T5ForConditionalGeneration"),
        ("denoising", "bart-base", "BartForConditionalGeneration"),
        ("causal", "gpt2", "GPT2LMHeadModel"),
    ],
)
def test_a_recipe_of_a_published_shape_leaves_as_its_class(objective, preset, architecture):
    found = export_format(recipe(objective, **({"preset": preset} if preset else {})))
    assert found.architecture == architecture
    assert str(found) == f"Exports as {architecture} (transformers)"


def of_each_family():
    """The first preset of each family, made smaller."""
    first = {preset.family: name for name, preset in reversed(presets().items())}
    return [pytest.param(name, family, id=name) for family, name in sorted(first.items())]


@pytest.mark.parametrize(("name", "family"), of_each_family())
def test_a_run_of_any_preset_leaves_as_its_class_with_padding_of_our_tokenizers(name, family):
    shape = presets()[name].config()
    groups = {"num_key_value_heads": 4} if shape.num_key_value_heads != shape.num_attention_heads else {}
    found = export_format(recipe(OBJECTIVES[shape.architecture], preset=name, **WIDER, **groups), pad=0)
    assert found.architecture == next(iter(FAMILIES[SAME_AS.get(family, family)].classes))


@pytest.mark.parametrize(
    "objective",
    [
        MNTP,
        "prefix",
        {"name": "mixed_visibility", "causal": 0, "prefix": 1},
        {"name": "span_corruption", "layout": "prefix"},
        {"name": "distillation", "teacher": "runs/none", "inner": {"name": "prefix"}},
    ],
)
def test_a_decoder_that_reads_in_both_directions_leaves_as_no_class_that_only_looks_back(objective):
    found = export_format(recipe(objective, architecture="decoder", preset="nanochat-d20"))
    assert found.family in ("", "pretextlm")
    assert "in both directions" in found.reason


def test_a_prefix_under_sliding_windows_does_not_leave():
    windows = {"attention": {"sliding_windows": [4, 0]}}
    assert export_format(recipe("prefix", **windows)).family == ""
    assert export_format(recipe(MNTP, architecture="decoder", **windows)).family == "pretextlm"


def test_a_family_that_is_named_is_taken_for_a_prefix_model_but_never_for_a_bidirectional_one():
    assert export_format(recipe("prefix"), family="nanochat").architecture == "NanoChatForCausalLM"
    with pytest.raises(UserError, match="in both directions"):
        export_format(recipe(MNTP, architecture="decoder"), family="nanochat")


@pytest.mark.parametrize(
    "values",
    [
        {"objective": "causal"},
        {"objective": "masked", "preset": "roberta-base"},  # its padding has another id here
        {"objective": "replaced_token", "preset": "electra-small-discriminator"},
        {"objective": "permutation", "preset": "bert-base-uncased"},
    ],
)
def test_what_is_written_is_what_was_said(store, tmp_path, values):
    wanted = recipe(values.pop("objective"), store.path, **values)
    said = export_format(wanted.with_vocabulary(store.vocabulary), store.vocabulary.pad)
    done = export_model(pretrain(wanted, tmp_path / "run"), tmp_path / "out")
    assert (done.family, done.architecture) == (said.family, said.architecture)


def test_a_run_that_continues_an_import_leaves_as_that_family_unless_it_reads_in_both_directions():
    wanted = {"architecture": "decoder", "preset": "qwen3-0.6b", "num_key_value_heads": 2}
    assert export_format(recipe("causal", **wanted), origin="qwen3").architecture == "Qwen3ForCausalLM"
    assert export_format(recipe("prefix", **wanted), origin="qwen3").family == "pretextlm"


def test_a_bidirectional_decoder_does_not_leave_as_a_text_generator(store, tmp_path):
    run = pretrain(recipe(MNTP, store.path, architecture="decoder"), tmp_path / "run")
    with pytest.raises(UserError, match="in both directions"):
        export_model(run, tmp_path / "out", family="nanochat")
    assert not (tmp_path / "out").exists()


def test_the_generator_of_a_run_of_the_default_trunk_leaves_with_it(store, tmp_path):
    run = pretrain(recipe("replaced_token", store.path), tmp_path / "run")
    done = export_model(run, tmp_path / "out", part="generator")
    assert (done.family, done.architecture) == ("pretextlm", "PretextForMaskedLM")
