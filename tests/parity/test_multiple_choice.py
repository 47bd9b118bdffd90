"""Multiple choice beside transformers' classes: loss, gradient and logits of ragged choices, and there and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.parity.fine_tuned import PAIRS, TEXTS, foreign, ours_of, published, tuned

from pretextlm.data.examples import ExampleReader
from pretextlm.errors import UserError
from pretextlm.evaluation.task_evaluation import evaluate_task, examples_of
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.hf.peft_adapter import export_adapter
from pretextlm.hf.state_dict import translated
from pretextlm.model.families.registry import FAMILIES as REGISTRY
from pretextlm.model.model_inputs import prepare
from pretextlm.training.corpus import read_split

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

pytestmark = pytest.mark.slow

CHOICES = [(TEXTS + PAIRS)[n : n + 2 + n % 3] for n in range(6)]
RIGHT = [1, 0, 3, 1, 2, 0]
ROWS = [{"text": t, "choices": c, "label": r} for t, c, r in zip(TEXTS, CHOICES, RIGHT, strict=True)]
TASK = {"name": "multiple_choice", "label_names": ["0", "1", "2", "3"]}
TASK_CLASSES = {name: family.task_classes for name, family in REGISTRY.items() if name != "pretextlm"}
FAMILIES = [family for family, kinds in TASK_CLASSES.items() if "choice" in kinds]
EMBEDDING = "bert.embeddings.word_embeddings.weight"
SURE = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(BertForMultipleChoice of random weights, the run it was imported to, the batch of all examples, these)."""
    place = tmp_path_factory.mktemp("both")
    model = foreign("bert", "choice", place / "theirs", **SURE)
    run = import_model(str(place / "theirs"), place / "run")
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    task = run.recipe.training_objective.model_copy(update={"label_names": tuple(TASK["label_names"])})
    records = read_split(run.recipe.model_copy(update={"task": task}), "validation", str(place / "rows.jsonl"))
    ours = run.load_model()
    examples = examples_of(ours, task, run, records)
    numbers = np.arange(len(examples))
    batch = task.collate(ExampleReader(examples).read(numbers, numbers * 0, 0), run.vocabulary, None)
    return model, ours, run, task, batch, examples


def padded(examples, index):
    """What transformers reads of one example: (1, K, T) ids, types and mask."""
    span = slice(*examples.offsets[index : index + 2])
    texts = examples.texts[span]
    parts = [texts == one for one in range(texts.max() + 1)]
    shape = (1, len(parts), max(int(part.sum()) for part in parts))
    ids, types, mask = (np.zeros(shape, np.int64) for _ in range(3))
    for place, part in enumerate(parts):
        size = int(part.sum())
        ids[0, place, :size] = examples.tokens[span][part]
        types[0, place, :size] = examples.types[span][part]
        mask[0, place, :size] = 1
    names = ("input_ids", "token_type_ids", "attention_mask")
    return dict(zip(names, map(torch.from_numpy, (ids, types, mask)), strict=True))


def test_loss_and_gradient_of_ragged_choices_are_those_of_padded_ones_one_by_one(both):
    model, ours, run, task, batch, examples = both
    assert examples.labels[:, 1].tolist() == [len(one) for one in CHOICES]
    for one in (model.eval(), ours.eval()):
        one.zero_grad()
    found = task.terms(ours(prepare(batch, ours.config, torch.device("cpu"), torch.float32)), batch)["choice"]
    (found.total / found.count).backward()
    wanted = [model(**padded(examples, i), labels=torch.tensor([right])).loss for i, right in enumerate(RIGHT)]
    torch.stack(wanted).mean().backward()
    assert (found.total / found.count).item() == pytest.approx(torch.stack(wanted).mean().item(), rel=1e-5)
    own = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in ours.named_parameters()}
    mine = translated(run.recipe.model, own, "bert", None, task).theirs
    theirs = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    rows = min(len(theirs[EMBEDDING]), len(mine[EMBEDDING]))
    mine[EMBEDDING] = mine[EMBEDDING][:rows]
    assert set(theirs) <= set(mine)
    scale = max(float(g.abs().max()) for g in theirs.values())
    for name, gradient in theirs.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-4, atol=1e-5 * scale)


def test_logits_of_ragged_choices_are_those_of_padded_ones(both):
    model, ours, _, task, batch, examples = both
    with torch.inference_mode():
        found = task.class_scores(ours(prepare(batch, ours.config, torch.device("cpu"), torch.float32)), batch)
        for index, size in enumerate(examples.labels[:, 1]):
            expected = model.eval()(**padded(examples, index)).logits[0]
            torch.testing.assert_close(found[index, :size], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tuned_run_is_exported_as_the_familys_class_and_comes_back_with_its_answers(family, tmp_path):
    two = {"multiple_choice": [{**row, "choices": row["choices"][:2], "label": n % 2} for n, row in enumerate(ROWS)]}
    run = tuned(tmp_path, published(family, tmp_path), TASK, two)
    done = export_model(run.directory, tmp_path / "out")
    assert done.architecture == TASK_CLASSES[family]["choice"].theirs
    assert done.lost == ()
    model = transformers.AutoModelForMultipleChoice.from_pretrained(tmp_path / "out")
    expected = theirs_of(model, tmp_path / "out", two["multiple_choice"])
    np.testing.assert_allclose(ours_of(run)[0], expected, atol=1e-4)
    back = import_model(str(tmp_path / "out"), tmp_path / "back")
    records = f"{run.recipe.data.validation}?label_names=0,1,2,3"
    found, wanted = (evaluate_task(one, records)["metrics"]["accuracy"]["value"] for one in (back, run))
    assert found == wanted


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_peft_reads_the_adapters_and_the_head_of_a_run_of_choices(family, tmp_path):
    peft = pytest.importorskip("peft", reason="adapters are read by peft (extra lora)")
    start = published(family, tmp_path)
    two = {"multiple_choice": [{**row, "choices": row["choices"][:2], "label": n % 2} for n, row in enumerate(ROWS)]}
    run = tuned(tmp_path, start, TASK, two, tuning={"lora": {"rank": 4}}, learning_rate=0.05)
    export_model(start, tmp_path / "base")
    export_adapter(run.directory, tmp_path / "adapter")
    export_model(run.directory, tmp_path / "whole")
    base = transformers.AutoModelForMultipleChoice.from_pretrained(tmp_path / "base")
    model = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    expected = theirs_of(model, tmp_path / "whole", two["multiple_choice"])
    np.testing.assert_allclose(ours_of(run)[0], expected, atol=1e-4)


def theirs_of(model, place, rows):
    """(M,) probabilities of the choices by a model of transformers, by the tokenizer at that place."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    read = tokenizer([r["text"] for r in rows for _ in range(2)], [c for r in rows for c in r["choices"]], padding=True)
    with torch.inference_mode():
        shaped = {name: torch.tensor(values).view(len(rows), 2, -1) for name, values in read.items()}
        return model(**shaped).logits.softmax(1).flatten().numpy()


def test_a_head_of_another_make_is_refused_by_name(tmp_path):
    foreign("electra", "choice", tmp_path / "theirs", summary_activation="tanh")
    with pytest.raises(UserError, match="ElectraForMultipleChoice with summary_activation = 'tanh'"):
        import_model(str(tmp_path / "theirs"), tmp_path / "run")
