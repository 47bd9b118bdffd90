"""What an objective reads beside the text that is shown: other documents, a second sentence, a pair, a function.

next_sentence  "나는 밥을 먹었다. 이어서 커피를 마셨다."     and three sentences, from which random B's come
bimodal_code   "Return the larger of two numbers."          and a function
text_to_text   "The house is old."                          and a pair, since half of its rows are pairs
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field

from pretextlm.data.sentences import sentence_starts
from pretextlm.objectives.base import Objective
from pretextlm.objectives.distillation import Distillation
from pretextlm.objectives.preview.encoded_text import Parts
from pretextlm.objectives.replaced_token import ReplacedToken
from pretextlm.objectives.shared.sentence_pairs import SentencePairs
from pretextlm.objectives.shared.wrapper import Wrapper
from pretextlm.objectives.text_to_text import TextToText

PARTS = re.compile(r"\t|\s+=>\s+")
"""What separates the two texts of a pair."""

_HANGUL = re.compile(r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Examples:
    """Texts of a language that are brought along.

    Attributes:
        others: sentences of other documents.
        continuation: a second sentence for a text of one.
        pair: a source and its target.
        description: of the function.
    """

    others: tuple[str, ...]
    continuation: str
    pair: tuple[str, str]
    description: str


ENGLISH = Examples(
    others=("The cat sleeps by the window.", "The train left at six.", "A full moon rose over the sea."),
    continuation="Then they walked home.",
    pair=("translate English to German: The house is old.", "Das Haus ist alt."),
    description="Return the larger of two numbers.",
)
KOREAN = Examples(
    others=("고양이가 창가에서 잔다.", "기차는 여섯 시에 떠났다.", "바다 위로 보름달이 떴다."),
    continuation="그다음 집까지 걸어갔다.",
    pair=("영어를 한국어로 번역: The house is old.", "그 집은 오래되었다."),
    description="두 수 가운데 큰 수를 돌려준다.",
)
FUNCTION = "def larger(a, b):\n    return a if a > b else b"


@dataclass(frozen=True)
class Reading:
    """Documents that an objective reads, and the form of it that reads them.

    Attributes:
        objective: the objective, or the part of it that such rows go to.
        documents: the text's and those that are brought along, the row's own first.
        title: of its cases, "" for the only one.
    """

    objective: Objective
    documents: list[Parts]
    title: str = ""


@dataclass
class Plan:
    """How a text is shown.

    Attributes:
        readings: in the order of the output.
        notes: sentences on what was brought along.
        proposed: further texts whose words a generator proposes.
    """

    readings: list[Reading] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    proposed: list[Parts] = field(default_factory=list)


def plan(objective: Objective, text: str) -> Plan:
    """Returns what is read for a text that is not empty: one document per line, or one that is Python code."""
    documents = [text.strip()] if _is_code(text) else [line.strip() for line in text.splitlines() if line.strip()]
    examples = KOREAN if _HANGUL.search(text) else ENGLISH
    core = objective
    while isinstance(core, Wrapper):
        core = core.inner
    made = Plan()
    if isinstance(objective, Distillation):
        made.notes.append(
            "The teacher reads the same input. At every token its probabilities are a target, too; none is run here."
        )
    if isinstance(objective, ReplacedToken):
        made.proposed = [[sentence] for sentence in examples.others]
        made.notes.append(
            "No generator is trained here: words are proposed as often as they occur in this text and in three "
            "example sentences."
        )
    pairs = [PARTS.split(document, maxsplit=1) for document in documents]
    if isinstance(core, TextToText):
        _text_to_text(made, core, pairs, documents, examples)
    elif objective.reads_pairs:
        made.readings.append(Reading(objective, [_described(made, pair, examples) for pair in pairs]))
    elif isinstance(core, SentencePairs):
        whole = objective if core is not objective or "short" in core.model_fields_set else _uncut(core)
        made.readings.append(Reading(whole, _with_partners(made, core, documents, examples)))
    else:
        if len(_WORD.findall(text)) < 2:
            documents = [_continued(made, documents[0], examples)]
        made.readings.append(Reading(objective, [[document] for document in documents]))
    return made


def _is_code(text: str) -> bool:
    """Returns whether a text is a Python function or class."""
    tree = _parsed(text)
    return tree is not None and any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body)


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text.strip())
    except (SyntaxError, ValueError):
        return None


def _text_to_text(made: Plan, core: TextToText, pairs: list[Parts], documents: list[str], examples: Examples) -> None:
    """Adds rows of pairs and rows of plain text, those that have a share, of the text or of examples."""
    given = [pair for pair in pairs if len(pair) == 2]
    plain = [document for document, pair in zip(documents, pairs, strict=True) if len(pair) == 1]
    if core.unsupervised < 1:
        if not given:
            made.notes.append('The pair is an example; give one of your own as "source => target".')
        elif core.unsupervised:
            made.notes.append(f"A share of {core.unsupervised:g} of the rows is plain text with spans to restore.")
        paired = core.model_copy(update={"unsupervised": 0.0})
        made.readings.append(Reading(paired, given or [list(examples.pair)], "a pair"))
    if core.unsupervised and not given:
        if len(_WORD.findall(plain[0])) < 2:
            plain[0] = _continued(made, plain[0], examples)
        made.readings.insert(0, Reading(core.denoiser, [[text] for text in plain], "plain text"))
    elif core.unsupervised == 1:
        made.readings.append(Reading(core.denoiser, [[text] for text in documents], "plain text"))


def _described(made: Plan, pair: Parts, examples: Examples) -> Parts:
    """Returns a pair of a description and a function; what a document of one text lacks is brought along."""
    if len(pair) == 2:
        return pair
    [text] = pair
    if not _is_code(text):
        made.notes.append("The text is read as a description, with an example function as its code.")
        return [text, FUNCTION]
    tree = _parsed(text)
    assert tree is not None, "code has a tree"
    node = next(node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))
    description = ast.get_docstring(node)
    if description is None:
        made.notes.append("The function has no docstring; its description is an example.")
        return [examples.description, text]
    first = node.body[0]
    lines = text.strip().encode().split(b"\n")  # columns of a tree count bytes
    begin, stop = first.lineno - 1, (first.end_lineno or first.lineno) - 1
    head, tail = lines[begin][: first.col_offset], lines[stop][first.end_col_offset :].lstrip(b"; ")
    kept = [*lines[:begin], *([head + tail] if (head + tail).strip() else []), *lines[stop + 1 :]]
    made.notes.append("The function's docstring is the description, the rest of it the code.")
    return [" ".join(description.split()), b"\n".join(kept).decode()]


def _uncut(core: SentencePairs) -> SentencePairs:
    """Returns the objective without documents that are cut into rows of random size."""
    return core.model_copy(update={"short": 0.0})


def _with_partners(made: Plan, core: SentencePairs, documents: list[str], examples: Examples) -> list[Parts]:
    """Returns documents, the first of two sentences or more, and others if random B's are taken from them."""
    several = [document for document in documents if len(sentence_starts(document)) > 1]
    first = several[0] if several else _continued(made, documents[0], examples)
    rest = [document for document in documents if document is not (several or documents)[0]]
    if any(kind.relation == "random" for kind in core.kinds) and not rest:
        rest = list(examples.others)
        made.notes.append(f"Negatives are sampled from three example sentences: {' '.join(rest)}")
    return [[document] for document in (first, *rest)]


def _continued(made: Plan, document: str, examples: Examples) -> str:
    """Returns a document with a second sentence."""
    made.notes.append(f"The text is followed by an example sentence: {examples.continuation}")
    joined = f"{document} {examples.continuation}"
    ends = len(sentence_starts(joined)) > len(sentence_starts(document))
    return joined if ends else f"{document}\n\n{examples.continuation}"
