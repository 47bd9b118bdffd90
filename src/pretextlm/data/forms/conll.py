"""Files of the CoNLL shared tasks, and CoNLL-U.

conll2003   EU NNP B-NP B-ORG⏎rejects VBZ B-VP O⏎⏎          with -DOCSTART- between documents
wnut17      Empire⇥B-location⏎State⇥I-location⏎⏎
conllu      # text = Ein Haus⏎1⇥Ein⇥ein⇥DET⇥ART⇥Case=Nom⇥2⇥det⇥_⇥_⏎2⇥Haus⇥Haus⇥NOUN⇥NN⇥_⇥0⇥root⇥_⇥_⏎⏎
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pretextlm.data.forms.form import Reader
from pretextlm.data.tables import Row, Rules, conll_rows

CONLLU = ("id", "tokens", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


def conllu_rows(path: Path, rules: Rules) -> Iterator[Row]:
    """Yields the sentences of a CoNLL-U file by words: no ranges of a contracted word (1-2), no empty nodes (3.1)."""
    for number, columns in conll_rows(path, rules, CONLLU, tabs=True):
        kept = [place for place, one in enumerate(columns["id"]) if one.isdecimal()]
        yield number, {name: [values[place] for place in kept] for name, values in columns.items()}


FORMS: dict[str, Reader] = {
    "conll2003": partial(conll_rows, names=("tokens", "pos", "chunk", "tags")),
    "wnut17": partial(conll_rows, names=("tokens", "tags"), tabs=True),
    "conllu": conllu_rows,
}
