"""The checks for objectives say which promise is broken."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
from pydantic import Field

from pretextlm.objectives.causal import Causal
from pretextlm.objectives.masked import Masked, MaskedLayout
from pretextlm.objectives.shared.measures import Measure
from pretextlm.scoring.blank_layout import OPEN
from pretextlm.testing import check_objective

HIDDEN = {"mask_share": 1.0, "random_share": 0.0}


class Sound(Causal):
    name: ClassVar[str] = "sound"


class Nameless(Causal):
    pass


class Undescribed(Causal):
    name: ClassVar[str] = "undescribed"
    share: float = 0.5


class Writes(Causal):
    name: ClassVar[str] = "writes"

    def collate(self, rows, vocabulary, rng):
        rows.tokens[0] = vocabulary.pad
        return super().collate(rows, vocabulary, rng)


class Global(Masked):
    name: ClassVar[str] = "global"

    def collate(self, rows, vocabulary, rng):
        batch = super().collate(rows, vocabulary, rng)
        batch.input_ids[np.random.random(batch.input_ids.shape) < 0.5] = vocabulary.mask  # noqa: NPY002
        return batch


class Neighbours(Causal):
    name: ClassVar[str] = "neighbours"

    def collate(self, rows, vocabulary, rng):
        batch = super().collate(rows, vocabulary, rng)
        batch.labels[-1, 0] = -100
        return batch


class Wide(Causal):
    name: ClassVar[str] = "wide"

    def collate(self, rows, vocabulary, rng):
        batch = super().collate(rows, vocabulary, rng)
        return dataclasses.replace(batch, input_ids=batch.input_ids.astype(np.int64))


class Leaky(Causal):
    name: ClassVar[str] = "leaky"

    def collate(self, rows, vocabulary, rng):
        batch = super().collate(rows, vocabulary, rng)
        return dataclasses.replace(batch, attention="prefix", prefix=np.full_like(batch.input_ids, 99))


class Miscounted(Causal):
    name: ClassVar[str] = "miscounted"

    def counts(self, batch):
        return {"lm": 7}


class Mean(Causal):
    name: ClassVar[str] = "mean"

    def terms(self, outputs, batch):
        terms = super().terms(outputs, batch)
        return {key: dataclasses.replace(term, total=term.total / term.count) for key, term in terms.items()}


class Forgetful(Causal):
    name: ClassVar[str] = "forgetful"
    every: int = Field(default=2, description="which tokens are shown")

    def collate(self, rows, vocabulary, rng):
        batch = super().collate(rows, vocabulary, rng)
        batch.input_ids[:, :: self.every] = vocabulary.unk
        batch.labels[:, :: self.every] = vocabulary.unk
        batch.labels[:, 1 :: self.every] = vocabulary.unk
        return batch


class Contextless(Causal):
    name: ClassVar[str] = "contextless"

    def blank_layout(self, vocabulary, architecture):
        layout = super().blank_layout(vocabulary, architecture)
        layout.context = lambda blank: []
        return layout


class Open(MaskedLayout):
    def row(self, blank, candidate):
        return super().row(blank, [152 if token == OPEN else token for token in candidate])


class Unmasked(Masked):
    name: ClassVar[str] = "unmasked"

    def blank_layout(self, vocabulary, architecture):
        return Open(vocabulary, self.frame(vocabulary))


class Unexplained(Causal):
    name: ClassVar[str] = "unexplained"
    measures: ClassVar[tuple[Measure, ...]] = (Measure("mine", "Mine", ""),)


def test_sound_objectives_pass():
    check_objective(Sound())
    check_objective(Masked(**HIDDEN), noise=0.7)


@pytest.mark.parametrize(
    ("objective", "options", "promise"),
    [
        (Nameless(), {}, "`name` of its own"),
        (Undescribed(), {}, "option 'share' has a description"),
        (Writes(), {}, "does not write into the rows"),
        (Global(), {}, "same rows|same batch|other rows"),
        (Neighbours(), {}, "does not depend on the other rows"),
        (Wide(), {}, "input_ids is of type int32"),
        (Leaky(), {}, "no answer can be read off"),
        (Miscounted(), {}, r'counts\["lm"\] is the number'),
        (Mean(), {}, "does not depend on how a step is cut"),
        (Forgetful(), {}, "hold the text"),
        (Contextless(), {}, "`context` holds at least one id"),
        (Unmasked(**HIDDEN), {}, "`row` hides open places"),
        (Unexplained(), {}, "measures are titled and explained"),
        (Masked(), {}, "no token from elsewhere"),
        (Sound(), {"noise": 0.7}, "70% of the rows differ"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_broken_promise_is_named(objective, options, promise):
    with pytest.raises(AssertionError, match=promise):
        check_objective(objective, **options)


def test_the_checks_need_no_pytest():
    import subprocess
    import sys

    code = "import sys, pretextlm.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
