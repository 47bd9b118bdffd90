"""A run's newest model, opened to be measured: with its objective, its tokens, its store, and as a scorer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pretextlm.data.store import Store
from pretextlm.data.tokenizer import same_ids
from pretextlm.errors import UserError
from pretextlm.scoring.token_texts import TokenTexts
from pretextlm.training.corpus import store_hashes
from pretextlm.training.recipe_paths import beside_run
from pretextlm.training.run_directory import first_directory
from pretextlm.training.run_manifest import check_held_out

if TYPE_CHECKING:
    import torch

    from pretextlm.model.transformer import Transformer
    from pretextlm.objectives.base import Objective
    from pretextlm.objectives.protocol import TrainingObjective
    from pretextlm.scoring.scorer import Scorer
    from pretextlm.training.run_directory import Run


def open_trained(
    run: Run, device: torch.device | None = None, parse_special_tokens: bool = False
) -> tuple[Transformer, Objective, TokenTexts]:
    """Returns the run's newest model, the objective that it is measured by, and its tokens.

    Args:
        run: the run.
        device: of the model.
        parse_special_tokens: the name of a special token in a text is that token, as in transformers, and not text.

    Raises:
        UserError: there is no checkpoint, or nothing has trained the language-model head of an import.
    """
    from pretextlm.hf.untrained import LM_HEAD, refuse_untrained
    from pretextlm.objectives.replaced_token import ReplacedToken

    if not isinstance(run.recipe.training_objective, ReplacedToken):  # its model has a head of its own
        refuse_untrained(run, LM_HEAD)
    objective = cast("Objective", run.recipe.training_objective.at_evaluation())  # tasks only continue texts
    model = run.load_model(device)
    model.trained_vocab_size = published_vocab_size(run)
    parser = run.parsing_tokenizer if parse_special_tokens else None
    return model, objective, TokenTexts(run.tokenizer, run.vocabulary, parser)


def weights_used(run: Run) -> dict[str, Any]:
    """Returns what a result says of the weights it is of: their step, and which newer checkpoints are broken."""
    return run.checkpoint.used if run.checkpoint is not None else {}


def open_scorer(run: Run, device: torch.device | None = None, parse_special_tokens: bool = False) -> Scorer:
    """Returns the run's newest model as a scorer, which fills blanks; the arguments are those of `open_trained`.

    Raises:
        UserError: there is no checkpoint, the model does not fill blanks, or nothing has trained the head or generator
            that it fills them with.
    """
    from pretextlm.hf.state_dict import GENERATOR
    from pretextlm.hf.untrained import refuse_untrained

    refuse_untrained(run, GENERATOR)
    return blank_scorer(*open_trained(run, device, parse_special_tokens))


def blank_scorer(model: Transformer, objective: TrainingObjective, texts: TokenTexts) -> Scorer:
    """Returns a model as a scorer, in the way that the objective declares.

    Raises:
        UserError: a model so trained does not fill blanks.
    """
    scorer = objective.scorer(model, texts)
    if scorer is None:
        raise UserError(
            f"A model trained by {objective.name} with these options does not fill blanks.",
            "See its own measures instead: pretextlm evaluate RUN",
        )
    return scorer


def published_vocab_size(run: Run) -> int | None:
    """Returns the vocabulary of a published model that was not trained since, without ids that the import added.

    None for any other run: all ids have a probability.
    """
    from pretextlm.hf.provenance import origin_of

    checkpoint = run.checkpoint
    origin = None if checkpoint is not None and checkpoint.step > 0 else origin_of(run.directory)
    return None if origin is None else origin.vocab_size


def open_store(run: Run, place: Path | None = None) -> Store:
    """Returns the store that a run is measured on; by default its own.

    Raises:
        UserError: there is none, it was prepared with another tokenizer, or the run's own one was replaced.
    """
    given = run.recipe.data.store
    if place is None and not given:
        raise UserError(
            f"{run.directory} has no store of its own.",
            f"Give --text FILE, or --store DIR (made by pretextlm data prepare … --tokenizer {run.directory}).",
        )
    if place is None and not Path(given).exists():
        tried = dict.fromkeys(
            [os.path.abspath(given), beside_run(given, first_directory(run.directory), run.directory)]
        )
        raise UserError(
            f"The store of the run {run.directory} is not there: looked for {' and '.join(tried)}.",
            "Say where it is now: --store DIR",
        )
    store = Store.open(place or Path(given))
    if place is None:
        hashes = store_hashes(store.path)
        check_held_out(run.directory, {name: hashes[name] for name in hashes if "/validation/" in name})
    if not same_ids(store.path / "tokenizer.json", run.directory / "tokenizer.json"):
        raise UserError(
            f"{store.path} was prepared with another tokenizer than the run {run.directory}.",
            f"Prepare the text with the run's: pretextlm data prepare … --tokenizer {run.directory / 'tokenizer.json'}",
        )
    return store
