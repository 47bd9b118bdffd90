"""The methods by which models score continuations.

continuation   a decoder's Σ log p(token | everything before it). Continuations of one text share its states.
               An encoder-decoder reads the text, with a sentinel at its end if it was trained on spans.
pseudo         a masked model's Σ log p(token | both sides), each token of the continuation hidden by itself
               (pseudo-log-likelihood, Salazar et al. 2020, https://arxiv.org/abs/1910.14659)
pseudo_word    the same, with the following tokens of the same word hidden too, so that long words are not predicted
               from their own pieces (Kauf & Ivanova 2023, https://arxiv.org/abs/2305.10588)
cloze          any model that fills blanks: the continuation fills a blank at the text's end
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, ClassVar, TypeGuard

import numpy as np
import torch

from pretextlm.errors import UserError
from pretextlm.evaluation.benchmarks.request_scorer import Ids, OnProgress, Request, RequestScorer, Score, batches
from pretextlm.evaluation.trained_model import blank_scorer
from pretextlm.scoring.bidirectional import BidirectionalScorer
from pretextlm.scoring.blank import Blank, DecoderPrompt
from pretextlm.scoring.blank_layout import OPEN, EncoderRow
from pretextlm.scoring.log_probabilities import hidden_states_at, score_continuations, score_labels
from pretextlm.scoring.scorer import Scorer
from pretextlm.scoring.token_texts import TokenTexts

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer
    from pretextlm.objectives.protocol import TrainingObjective

FRAME_TOKENS = 4
"""Special tokens around a text in a row, at most."""


class AutoregressiveRequests(RequestScorer):
    """A decoder continues the text."""

    method: ClassVar[str] = "continuation"
    subtracts_context: ClassVar[bool] = True

    def prompt(self, tokens: Ids) -> DecoderPrompt | None:
        """Returns the decoder's input for a text; None for a model that was not trained to continue texts.

        What a published tokenizer adds after a text is left out, since the continuation follows.
        """
        known = self.texts.vocabulary
        prompt = self.objective.decoder_prompt(known, self.model.config.architecture, tokens)
        after = 0 if known.template is None else len(known.template.after)
        if prompt is None or prompt.source is not None or not after:
            return prompt
        return DecoderPrompt(prompt.context[:-after] or [known.bos])

    def split(self, context: str, continuation: str) -> tuple[Ids, Ids, Ids]:
        if not self.objective.answers_prompts(self.texts.vocabulary, self.model.config.architecture):
            return super().split(context, continuation)
        return tuple(self.texts.encode(context.rstrip())), tuple(self.texts.encode(continuation.strip())), ()

    def score_ids(
        self, pairs: Sequence[tuple[Ids, Ids]], counted: Sequence[Sequence[int]], on_progress: OnProgress | None = None
    ) -> list[Score]:
        jobs = self._by_context(pairs)
        found: dict[int, Score] = {}
        sizes = [len(context) + max(len(pairs[n][1]) for n in numbers) for context, numbers in jobs]
        for batch in batches(sizes, [len(numbers) for _, numbers in jobs], self.batch_size):
            prompts = [self._fitting(jobs[job][0], [pairs[n][1] for n in jobs[job][1]]) for job in batch]
            sources = [prompt.source for prompt in prompts if prompt.source is not None]
            scored = score_continuations(
                self.model,
                self.texts.vocabulary,
                [prompt.context for prompt in prompts],
                [[pairs[n][1] for n in jobs[job][1]] for job in batch],
                sources or None,
                reread=prompts[0].reread,
            )
            for job, many in zip(batch, scored, strict=True):
                for number, one in zip(jobs[job][1], many, strict=True):
                    logs = one.log_probabilities
                    found[number] = Score(float(logs.sum()), len(logs), bool(one.is_likeliest.all()))
            if on_progress is not None:
                on_progress(sum(len(jobs[job][1]) for job in batch))
        return [found[number] for number in range(len(pairs))]

    def _by_context(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[tuple[Ids, list[int]]]:
        """Returns (context, numbers of pairs that have it), at most `batch_size` numbers each, by length."""
        shared: dict[Ids, list[int]] = {}
        for number, (context, _) in enumerate(pairs):
            shared.setdefault(context, []).append(number)
        jobs: list[tuple[Ids, list[int]]] = []
        for context, numbers in shared.items():
            ordered = sorted(numbers, key=lambda n: len(pairs[n][1]))
            starts = range(0, len(ordered), self.batch_size)
            jobs += [(context, ordered[start : start + self.batch_size]) for start in starts]
        return jobs

    def _fitting(self, context: Ids, continuations: Sequence[Ids]) -> DecoderPrompt:
        """Returns the prompt with as much of the context as fits."""
        prompt, longest = self.required_prompt(context), max(map(len, continuations))
        written = len(prompt.context) + longest - 1  # the last token is only predicted
        used = 0 if prompt.source is None else len(prompt.source)
        if self.model.encoder is None:
            used += written - prompt.reread
        else:
            self.crop((), written, written)  # the decoder's row holds nothing that could be cropped
        kept = self.crop(context, used, used - len(context))
        return prompt if len(kept) == len(context) else self.required_prompt(kept)

    def required_prompt(self, tokens: Sequence[int]) -> DecoderPrompt:
        """Returns the decoder's input for a text."""
        prompt = self.prompt(tuple(tokens))
        assert prompt is not None, "a model without prompts is refused before"
        return prompt


class PseudoLikelihoodRequests(RequestScorer):
    """A masked model predicts each token from both sides.

    Class attribute `by_word`: the following tokens of the predicted token's word are hidden, too.
    """

    method: ClassVar[str] = "pseudo"
    by_word: ClassVar[bool] = False

    def _prepare(self) -> None:
        scorer = blank_scorer(self.model, self.objective, self.texts)
        if not _hides_any_token(scorer):
            raise UserError(
                f"A model trained by {self.objective.name} does not guess hidden tokens one by one.",
                "Score it otherwise: --scoring auto.",
            )
        self.layout = scorer.layout

    def score_ids(
        self, pairs: Sequence[tuple[Ids, Ids]], counted: Sequence[Sequence[int]], on_progress: OnProgress | None = None
    ) -> list[Score]:
        contexts = [self._fitting(context, ids) for context, ids in pairs]
        tasks = [(number, place) for number, places in enumerate(counted) for place in places]
        owners = np.array([number for number, _ in tasks], np.int64)
        sizes = [len(self.row(contexts[number], pairs[number][1]).tokens) for number in range(len(pairs))]
        logs, likeliest = np.zeros(len(tasks)), np.zeros(len(tasks), bool)
        open_tasks = np.array([len(places) for places in counted])
        for batch in batches([sizes[number] for number in owners], [1] * len(tasks), self.batch_size):
            some = [(contexts[number], pairs[number][1], place) for number, place in (tasks[n] for n in batch)]
            rows = [self.row(context, self._hidden(ids, place)) for context, ids, place in some]
            columns = np.array([row.columns[place] for row, (_, _, place) in zip(rows, some, strict=True)])
            hidden_ND = hidden_states_at(self.model, self.texts.vocabulary, rows, np.arange(len(rows)), columns)
            labels = torch.tensor([ids[place] for _, ids, place in some], device=hidden_ND.device)
            scored = score_labels(self.model, hidden_ND, labels)
            logs[batch], likeliest[batch] = scored.log_probabilities, scored.is_likeliest
            if on_progress is not None:
                done = np.count_nonzero(open_tasks <= 0)
                np.subtract.at(open_tasks, owners[batch], 1)
                on_progress(int(np.count_nonzero(open_tasks <= 0) - done))
        totals = np.bincount(owners, weights=logs, minlength=len(pairs))
        misses = np.bincount(owners, weights=~likeliest, minlength=len(pairs))
        return [
            Score(float(total), len(places), not missed)
            for total, places, missed in zip(totals, counted, misses, strict=True)
        ]

    def row(self, context: Ids, ids: Ids) -> EncoderRow:
        """Returns the row that shows the continuation after its context."""
        return self.layout.row(Blank(context, ()), ids)

    def _counted_places(self, request: Request, ids: Ids) -> Sequence[int]:
        if request.contrast is None:
            return range(len(ids))
        _, others, _ = self.split(request.context, request.contrast)
        blocks = SequenceMatcher(None, ids, others, autojunk=False).get_matching_blocks()
        return [place for block in blocks for place in range(block.a, block.a + block.size)]

    def _fitting(self, context: Ids, ids: Ids) -> Ids:
        """Returns as much of the context as fits."""
        used = len(self.row(context, ids).tokens)
        return self.crop(context, used, used - len(context))

    def _hidden(self, ids: Ids, place: int) -> Ids:
        """Returns the continuation with a token hidden, and with `by_word` those after it in its word."""
        stop = place + 1
        begins = self.texts.begins_word
        if self.by_word and begins.any():
            while stop < len(ids) and not begins[ids[stop]]:
                stop += 1
        return (*ids[:place], *[OPEN] * (stop - place), *ids[stop:])


def _hides_any_token(scorer: Scorer | None) -> TypeGuard[BidirectionalScorer]:
    """Returns whether any token can be hidden by itself, in any order."""
    return isinstance(scorer, BidirectionalScorer) and not scorer.layout.left_to_right


class WordPseudoLikelihoodRequests(PseudoLikelihoodRequests):
    """The same, by words."""

    method: ClassVar[str] = "pseudo_word"
    by_word: ClassVar[bool] = True


class BlankRequests(RequestScorer):
    """The continuation fills a blank at the text's end.

    Attributes:
        needs_greedy: whether `is_greedy` is needed, which takes a search for the model's own candidate.
    """

    method: ClassVar[str] = "cloze"

    def _prepare(self) -> None:
        self.scorer: Scorer = blank_scorer(self.model, self.objective, self.texts)
        self.needs_greedy = False

    def score_ids(
        self, pairs: Sequence[tuple[Ids, Ids]], counted: Sequence[Sequence[int]], on_progress: OnProgress | None = None
    ) -> list[Score]:
        found: dict[int, Score] = {}
        for batch in batches([len(a) + len(b) for a, b in pairs], [1] * len(pairs), self.batch_size):
            blanks = [self._blank(*pairs[number]) for number in batch]
            scores = self.scorer.log_likelihoods(blanks, [[pairs[number][1]] for number in batch])
            longest = max(len(pairs[number][1]) for number in batch)
            own = self.scorer.best_candidates(blanks, 1, longest) if self.needs_greedy else None
            for nth, number in enumerate(batch):
                ids = pairs[number][1]
                is_greedy = own is not None and own[nth][0].tokens == ids
                found[number] = Score(float(scores[nth].sum()), len(ids), is_greedy)
            if on_progress is not None:
                on_progress(len(batch))
        return [found[number] for number in range(len(pairs))]

    def _blank(self, context: Ids, ids: Ids) -> Blank:
        needed = len(ids) + FRAME_TOKENS
        starts_word = bool(self.texts.begins_word[ids[0]]) if len(context) else False
        context = self.crop(context, len(context) + needed, needed)
        return Blank(context, (), num_tokens=len(ids), starts_word=starts_word)


REQUEST_SCORERS: dict[str, type[RequestScorer]] = {
    one.method: one
    for one in (AutoregressiveRequests, PseudoLikelihoodRequests, WordPseudoLikelihoodRequests, BlankRequests)
}
METHODS = ("auto", *REQUEST_SCORERS)


def request_scorer(
    model: Transformer,
    objective: TrainingObjective,
    texts: TokenTexts,
    method: str = "auto",
    batch_size: int = 32,
    needs_greedy: bool = False,
) -> RequestScorer:
    """Returns the model with the method that suits it, or the one that is named.

    A decoder that continues texts does so; a masked model has pseudo-log-likelihoods; all others fill blanks.

    Args:
        model, objective, texts, batch_size: as for :class:`RequestScorer`.
        method: one of METHODS.
        needs_greedy: scores are to say whether the model would have written the continuation; a masked model then fills
            a blank of known length.

    Raises:
        UserError: there is no such method, or the model cannot follow it.
    """
    if method not in METHODS:
        raise UserError(f"There is no scoring {method!r}.", f"Known: {', '.join(METHODS)}.")
    decoder = AutoregressiveRequests(model, objective, texts, batch_size)
    continues = decoder.prompt((0,)) is not None
    if method == "continuation" and not continues:
        raise UserError(
            f"A model trained by {objective.name} with these options does not continue texts.",
            "Score it otherwise: --scoring auto.",
        )
    if method == "continuation" or (method == "auto" and continues):
        return decoder
    if method == "auto":
        method = "pseudo" if _hides_any_token(objective.scorer(model, texts)) and not needs_greedy else "cloze"
    found = REQUEST_SCORERS[method](model, objective, texts, batch_size)
    if isinstance(found, BlankRequests):
        found.needs_greedy = needs_greedy
    return found
