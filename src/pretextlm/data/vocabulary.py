"""Special tokens by role: single ids, looked up by name and never computed by arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pretextlm.data.special_tokens import FURTHER, NAMED, own_names, sentinel
from pretextlm.errors import UserError

if TYPE_CHECKING:
    from pretextlm.data.text_template import TextTemplate
    from pretextlm.data.token_splits import TokenSplits


@dataclass(frozen=True)
class Vocabulary:
    """Size and special token ids of a tokenizer, as objectives need them.

    Attributes:
        size: number of token ids; every id is below it.
        pad, unk, cls, sep, mask, bos, eos: ids of the named special tokens.
        sentinels: ids of <extra_id_0>, <extra_id_1>, … in order of use.
        special: all special ids: the above and those the tokenizer adds.
        further: ids of those tokens of FURTHER that the tokenizer has, by name.
        decoder_start: first id of a decoder over an encoder; None for the padding id, as in T5.
        also_end: further ids that end a generated text.
        forced: id that a decoder over an encoder always writes first, if there is one.
        template: special tokens around texts, of a published model and of what was trained from it; None where the
            objective or the task decides.
        make_token_splits: computes `token_splits` on first use; None if the tokens' texts are unknown.
    """

    size: int
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int
    bos: int
    eos: int
    sentinels: tuple[int, ...]
    special: frozenset[int]
    further: Mapping[str, int] = field(default_factory=dict, hash=False)
    decoder_start: int | None = None
    also_end: tuple[int, ...] = ()
    forced: tuple[int, ...] = ()
    template: TextTemplate | None = None
    make_token_splits: Callable[[], TokenSplits] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def resolve(cls, ids: Mapping[str, int], size: int, special: frozenset[int] = frozenset()) -> Vocabulary:
        """Look up the special tokens by name.

        Args:
            ids: id of every token.
            size: number of token ids.
            special: ids that the tokenizer marks as special.

        Returns:
            The vocabulary.

        Raises:
            UserError: one of the seven named tokens is missing under all of its names.
        """
        names = own_names(ids, special)
        missing = [token for token in NAMED if token not in names]
        if missing:
            raise UserError(
                f"The tokenizer has no {', '.join(missing)}.",
                "Prepare the data with `pretextlm data prepare`, which adds the special tokens.",
            )
        sentinels: list[int] = []
        while sentinel(len(sentinels)) in ids:
            sentinels.append(ids[sentinel(len(sentinels))])
        pad, unk, cls_, sep, mask, bos, eos = named = [ids[names[token]] for token in NAMED]
        further = {token: ids[token] for token in FURTHER if token in ids}
        every = special | frozenset(named) | frozenset(sentinels) | frozenset(further.values())
        return cls(size, pad, unk, cls_, sep, mask, bos, eos, tuple(sentinels), every, further)

    @property
    def start(self) -> int:
        """Returns the id that a decoder over an encoder starts from."""
        return self.pad if self.decoder_start is None else self.decoder_start

    @property
    def ends(self) -> tuple[int, ...]:
        """Returns the ids that end a text, </s> first."""
        return (self.eos, *self.also_end)

    @property
    def begin(self) -> int | None:
        """Returns the id before a document of a decoder; None for a published one whose tokenizer adds none."""
        return self.bos if self.template is None else next(iter(self.template.before), None)

    def id_of(self, token: str) -> int:
        """Returns the id of one of the FURTHER tokens.

        Raises:
            UserError: the tokenizer lacks it.
        """
        if token not in self.further:
            raise UserError(
                f"The tokenizer has no special token {token}.",
                "Prepare the data again with `pretextlm data prepare`, which adds it.",
            )
        return self.further[token]

    @cached_property
    def token_splits(self) -> TokenSplits:
        """Returns the characters of every token, and the two halves of every token that is cut inside."""
        if self.make_token_splits is None:
            raise UserError(
                "The vocabulary does not say how its tokens are spelled.", "Take it from a tokenizer: vocabulary_of."
            )
        return self.make_token_splits()

    @cached_property
    def is_special(self) -> NDArray[np.bool_]:
        """Returns (size,) bool, True for a special id. UNK counts as text: it may be masked, as in BERT."""
        table = np.zeros(self.size, dtype=bool)
        table[list(self.special - {self.unk})] = True
        return table

    @cached_property
    def ordinary(self) -> NDArray[np.int32]:
        """Returns the ids of ordinary tokens, the candidates for random replacement."""
        table = self.is_special.copy()
        table[self.unk] = True
        return np.flatnonzero(~table).astype(np.int32)
