"""Checks an exported directory: transformers loads it, and it gives the same ids and logits as the run on a few texts.

    text → exported tokenizer → transformers' class → logits  =  text → the run's tokenizer → the run's model → logits

Both compute in fp32 on the CPU, one text at a time. If the weights were rounded (bf16, int8), the run's model is given
the rounded weights, so that only a difference of the format is left to see.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pretextlm.batch import Batch
from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.data.text_template import FIRST, SECOND
from pretextlm.errors import UserError
from pretextlm.hf import int8
from pretextlm.hf.export_tokenizer import exported_template

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.attention_mask import AttentionKind
    from pretextlm.model.transformer import Transformer
    from pretextlm.tasks.base import Task
    from pretextlm.training.run_directory import Run

TEXTS = (
    "The old ship sails down the river, and nobody on board knows where it will end.",
    "그 배는 강을 따라 내려간다.",
    "def add(a, b):\n    return a + b  # 2 + 3 = 5",
)
LENGTH = 32
"""Most tokens of a text."""
TOLERANCE = 1e-4
"""Largest difference of two logits, as a fraction of the largest logit: fp32 in another order of summation."""
ROUNDED = 1e-2
"""The same for quantized weights, which transformers multiplies with their scales in the dtype of the scales."""
UNREAD = ("pooler",)
"""Parts of bare models that published checkpoints may lack, and that nothing compared here depends on."""
SKIPPED = "not checked: "


@dataclass(frozen=True)
class Written:
    """What is compared with the directory.

    Attributes:
        run: the exported run, for its tokenizer.
        model: with the weights as written.
        values: of config.json.
        task: of a class with the head of a task; None for a language model.
        attention: how the written class reads a text.
        own_tokenizer: the tokenizer's files were written from the run's, rather than copied as they came.
    """

    run: Run
    model: Transformer
    values: Mapping[str, Any]
    task: Task | None
    attention: AttentionKind
    own_tokenizer: bool


def missing_library(values: Mapping[str, Any]) -> str:
    """Returns why a directory cannot be checked here, by the values of its config.json; "" if it can."""
    needed = {"transformers": True, "compressed_tensors": int8.KEY in values}
    missing = [name for name, wanted in needed.items() if wanted and importlib.util.find_spec(name) is None]
    return f"{SKIPPED}{missing[0].replace('_', '-')} is not installed" if missing else ""


def check_export(directory: Path, written: Written) -> str:
    """Compares a directory with the run it was written from.

    Args:
        directory: the exported one.
        written: what it must equal.

    Returns:
        A statement on what was compared, or why nothing was.

    Raises:
        UserError: transformers cannot load the directory, or gives other ids or logits.
    """
    import transformers

    if int(transformers.__version__.split(".")[0]) < 5:
        return f"{SKIPPED}transformers {transformers.__version__} is installed, and 5 or newer is needed"
    with _quiet():
        try:
            tokenizer = None
            if written.own_tokenizer:  # transformers reads the configuration, too, whose code is ours
                trust = {"trust_remote_code": "auto_map" in written.values}
                tokenizer = transformers.AutoTokenizer.from_pretrained(directory, **trust)
            theirs = _loaded(directory, written.values)
        except UserError:
            raise
        except Exception as error:  # whatever another library raises on what we wrote
            reason = str(error).strip().split("\n")[0][:300]
            raise _failed(f"transformers cannot load it: {type(error).__name__}: {reason}") from None
        largest = max(_difference(tokenizer, theirs, written, text) for text in TEXTS)
    return (
        f"checked: transformers {transformers.__version__} loads it and computes the same on {len(TEXTS)} texts "
        f"(largest difference {largest:.0e} of the largest output)"
    )


def check_adapter(directory: Path, base: str, written: Written) -> str:
    """Loads adapters onto the directory of their base with peft and compares the outputs with the run's.

    Args:
        directory: of the adapters.
        base: of the model below them.
        written: what both together must compute.

    Returns:
        A statement on what was compared.

    Raises:
        UserError: peft cannot load the adapters, or both together compute something else.
    """
    import peft

    labels = written.values.get("id2label")
    with _quiet():
        try:
            options = {"num_labels": len(labels)} if labels else {}
            below = _loaded(Path(base), written.values, complete=False, **options)
            theirs = peft.PeftModel.from_pretrained(below, str(directory)).eval()
        except UserError:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:300]
            raise _failed(f"peft cannot load it: {type(error).__name__}: {reason}") from None
        largest = max(_difference(None, theirs, written, text) for text in TEXTS)
    return f"checked: peft {peft.__version__} on {base} computes the same (largest difference {largest:.0e})"


def _failed(message: str, hint: str = "Please report it. Without this check: --no-check.") -> UserError:
    return UserError(f"The export was written and is wrong, so it was removed: {message}.", hint)


def _loaded(directory: Path, values: Mapping[str, Any], complete: bool = True, **more: Any) -> Any:
    """Returns the model as transformers loads it, in fp32.

    Args:
        directory: of the model.
        values: of config.json.
        complete: whether it must have every tensor; the model below adapters may have another head.
        more: options of the class.

    Raises:
        UserError: tensors are missing or unknown.
    """
    import torch
    import transformers

    name = str(values["architectures"][0])
    cls = getattr(transformers, name, None)
    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True, **more}
    if cls is None:  # a class of its own, in a file of the directory
        auto = next((key for key, place in values.get("auto_map", {}).items() if place.endswith(f".{name}")), None)
        if auto is None:
            raise _failed(f"transformers has no class {name}")
        cls, options["trust_remote_code"] = getattr(transformers, auto), True
    model, report = cls.from_pretrained(directory, **options)
    if not complete:
        return model
    missing = [key for key in report["missing_keys"] if not any(part in key for part in UNREAD)]
    for what, keys in (("misses", missing), ("does not know", report["unexpected_keys"])):
        if keys:
            raise _failed(f"{name} {what} {sorted(keys)[0]}, and {len(keys)} tensors in all")
    return model.eval()


def _difference(tokenizer: Any, theirs: Any, written: Written, text: str) -> float:
    """Returns the largest difference of an output, as a fraction of the largest output.

    Raises:
        UserError: the ids differ, or the outputs do by more than rounding.
    """
    import torch

    ids = exported_template(written.run).around(_text_ids(written.run, text))
    if tokenizer is not None:
        _check_tokens(tokenizer, written.run, text)
    limit = written.run.recipe.model.positions
    most = limit.max_position_embeddings - limit.offset if limit.max_position_embeddings else LENGTH
    ids = [index for index in ids if index < written.values["vocab_size"]][: min(LENGTH, most)]
    with torch.inference_mode():
        expected, given = _our_output(written, ids), _their_output(theirs, written, ids)
    if expected.shape != given.shape:
        raise _failed(f"its outputs have shape {tuple(given.shape)}, the run's {tuple(expected.shape)}")
    difference = float((expected - given).abs().max() / expected.abs().max().clamp(min=1e-30))
    if not difference <= (ROUNDED if int8.KEY in written.values else TOLERANCE):
        raise _failed(f"its outputs for {text[:30]!r} differ from the run's by {difference:.1e} of the largest")
    return difference


def _check_tokens(tokenizer: Any, run: Run, text: str) -> None:
    """Checks that a text, and a pair of it and another, have the run's tokens and its special tokens around them.

    Raises:
        UserError: they do not.
    """
    template = exported_template(run)
    for pieces, texts in ((template.single, [text]), (template.pair, [text, TEXTS[0]])):
        own = {FIRST: _text_ids(run, text), SECOND: _text_ids(run, TEXTS[0])}
        parts = [own.get(index, [index]) for index, _ in pieces]
        expected = [index for part in parts for index in part]
        found = tokenizer(*texts)
        if found["input_ids"] != expected:
            raise _failed(
                f"transformers' tokenizer splits {text[:30]!r} into {found['input_ids'][:8]}, the run's into "
                f"{expected[:8]}",
                "For some families, transformers replaces any tokenizer by one of the published kind. Export it as "
                "another family, or use --no-check and load the tokenizer by PreTrainedTokenizerFast.",
            )
        types = [kind for part, (_, kind) in zip(parts, pieces, strict=True) for _ in part]
        if found.get("token_type_ids", types) != types:
            raise _failed("transformers' tokenizer gives a pair of texts other token types than the run")


def _text_ids(run: Run, text: str) -> list[int]:
    """Returns the ids of a text alone, as the run reads it."""
    ids: list[int] = OffsetTokenizer(run.tokenizer, run.vocabulary).encode([text]).tokens.tolist()
    return ids


def _decoder_ids(written: Written, ids: Sequence[int]) -> list[int]:
    """Returns what the decoder of an encoder-decoder reads in the comparison: its start and the first tokens."""
    return [written.run.vocabulary.start, *ids[: LENGTH // 4]]


def _our_output(written: Written, ids: Sequence[int]) -> Tensor:
    """Returns the run's output: (T, V) logits, (C,) or (T, C) scores of a head, or (T, D) hidden states."""
    import torch

    from pretextlm.model.model_inputs import prepare

    model, arrays = written.model, {"input_ids": np.array([ids], np.int32)}
    if model.config.architecture == "encoder_decoder":
        arrays |= {"decoder_input_ids": np.array([_decoder_ids(written, ids)], np.int32)}
    batch = Batch(**arrays, attention=written.attention)
    hidden_TD: Tensor = model(prepare(batch, model.config, torch.device("cpu"), torch.float32)).hidden_BTD[0]
    name = str(written.values["architectures"][0])
    if written.task is not None:
        per_text = written.task.head_kind in ("sequence", "choice")
        place = -1 if written.attention == "causal" else 0
        scores: Tensor = model.heads["task"](hidden_TD[place] if per_text else hidden_TD)
        return scores
    if name.endswith("ForPreTraining") and "replaced" in model.heads:
        judged: Tensor = model.heads["replaced"](hidden_TD)
        return judged
    if name.endswith("Model") and "LMHead" not in name:
        return hidden_TD
    logits: Tensor = model.logits(hidden_TD)
    known: int = written.values["vocab_size"]
    return logits[:, :known]  # without rows that the import added


def _their_output(theirs: Any, written: Written, ids: Sequence[int]) -> Tensor:
    """Returns the output of transformers' class in the same form."""
    import torch

    one_choice = written.task is not None and written.task.head_kind == "choice"
    arrays = {"input_ids": torch.tensor([[list(ids)]] if one_choice else [list(ids)])}
    if written.model.config.architecture == "encoder_decoder":
        arrays["decoder_input_ids"] = torch.tensor([_decoder_ids(written, ids)])
    many = written.model.config.attention.global_tokens
    if many:  # Longformer: transformers has no global token unless it is given which
        arrays["global_attention_mask"] = torch.tensor([[int(place < many) for place in range(len(ids))]])
    found = theirs(**arrays)
    if "start_logits" in found:
        return torch.stack([found.start_logits[0], found.end_logits[0]], dim=-1)
    name = next(key for key in ("prediction_logits", "logits", "last_hidden_state") if key in found)
    output: Tensor = found[name][0]
    return output


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers and compressed-tensors from printing reports and progress bars while they load."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
