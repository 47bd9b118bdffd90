"""Add a pre-training objective of your own: one class, which is then trained, checked and compared like any other.

    python examples/add_an_objective.py my_text/

The objective hides one contiguous block of each row, and the model restores it from both sides:

    tokens   [CLS] the river carries the letters before dawn [SEP]
    input    [CLS] the river [MASK]  [MASK] [MASK] before dawn [SEP]
    labels     -    -    -   carries the    letters   -    -     -

To use it from the command line too, put the class into a package with an entry point in the group
"pretextlm.objectives"; CONTRIBUTING.md shows how.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

import pretextlm as pt
from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.masked import MaskedLayout
from pretextlm.objectives.protocol import Architecture
from pretextlm.testing import check_objective


@pt.register
class OneGap(pt.Objective):
    """Masked language modelling with a single gap.

    Args:
        share: share of the row that is hidden.
    """

    name: ClassVar[str] = "one_gap"
    title: ClassVar[str] = "One gap"
    paper: ClassVar[str] = "an example; for masking of spans see Joshi et al. 2020, https://arxiv.org/abs/1907.10529"
    summary: ClassVar[str] = "One block of each row is hidden, and the model restores it from the text on both sides."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder",)

    share: float = Field(default=0.15, gt=0, lt=1, description="share of the row that is hidden")

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Returns the special tokens: [CLS] before every row and [SEP] after every document."""
        return Frame(end=vocabulary.sep, lead=vocabulary.cls)

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns one shape of row: [CLS] and length - 1 tokens of text."""
        return [Variant("main", raw=length - 1, length=length)]

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns (B, T) inputs with [MASK] in the gap, and labels there."""
        tokens = rows.matrix(rows.tokens)
        size = max(1, round(self.share * rows.width))
        # The first column of each gap is uniform in 1 … T - size: column 0 is [CLS], and the gap ends inside the row.
        first = 1 + rng.integers(0, 1, rows.width - size)
        hidden = np.zeros(tokens.shape, bool)
        np.put_along_axis(hidden, first + np.arange(size), True, axis=1)
        hidden &= ~vocabulary.is_special[tokens]
        return Batch(
            input_ids=np.where(hidden, np.int32(vocabulary.mask), tokens),
            labels=np.where(hidden, tokens, np.int32(IGNORE)),
            segment_ids=rows.matrix(rows.segment_ids),
            position_ids=rows.matrix(rows.position_ids),
            attention="bidirectional",
            example_ids=rows.example_ids,
        )

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> MaskedLayout:
        """Returns how a blank is shown to the trained model: as [MASK], so that it takes part in comparisons."""
        return MaskedLayout(vocabulary, self.frame(vocabulary))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="+", help="files or directories of text")
    parser.add_argument("--out", type=Path, default=Path("one_gap"), help="directory for everything that is written")
    parser.add_argument("--tokens", type=float, default=2e6, help="training budget of each model")
    parser.add_argument("--hidden-size", type=int, default=256)
    options = parser.parse_args()

    check_objective(OneGap(share=0.3))  # raises an error that names the first promise it breaks
    store = pt.prepare(options.text, options.out / "store", vocab_size=4096)
    plan = pt.StudyPlan(
        store=store,
        objectives=[OneGap(share=0.15), pt.Masked(rate=0.15)],
        seeds=[1],
        budget={"tokens": int(options.tokens)},
        model={"hidden_size": options.hidden_size, "num_hidden_layers": 4, "num_attention_heads": 4},
        training={"batch_tokens": 2048},
    )
    study = pt.compare(plan, options.out / "study")
    print(study.summary["finding"])
    print(f"report: {study.report}")


if __name__ == "__main__":
    main()
