"""Questions about paragraphs of articles, with answers by character: SQuAD 1.1 and 2.0, KorQuAD 1.0, KLUE-MRC.

    {"version": "v2.0", "data": [{"title": "Normans", "paragraphs": [{"context": "The Normans …", "qas": [
        {"id": "56ddde6b", "question": "In what country is Normandy?", "is_impossible": false,
         "answers": [{"text": "France", "answer_start": 159}]}]}]}]}

A record is a question. Its columns are those of the hub: id, title, context, question, is_impossible and "answers", an
object of lists, which are the columns "answer" and "start", too. Of an impossible question the plausible answers are
left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pretextlm.data.forms.form import Reader
from pretextlm.data.streams import DamagedError
from pretextlm.data.tables import Row, Rules, json_value

HINT = 'Name the form that the file has: data.form="json" is an array of records.'


def squad_rows(path: Path, rules: Rules) -> Iterator[Row]:
    """Yields a record for each question; its number is that of the question.

    Raises:
        DamagedError: the file is no JSON, or of another form.
    """
    number = 0
    for article, about in _objects(json_value(path, rules), "data", str(path)):
        for paragraph, within in _objects(article, "paragraphs", about):
            context = _field(paragraph, "context", within)
            for question, where in _objects(paragraph, "qas", within):
                number += 1
                answers = [one for one, _ in _objects(question, "answers", where)] if "answers" in question else []
                is_impossible = bool(question.get("is_impossible", False))
                texts, starts = (
                    [_field(one, key, where) for one in answers] if not is_impossible else []
                    for key in ("text", "answer_start")
                )
                yield (
                    number,
                    {
                        "id": question.get("id", question.get("guid", str(number))),
                        "title": article.get("title", ""),
                        "context": context,
                        "question": _field(question, "question", where),
                        "answers": {"text": texts, "answer_start": starts},
                        "answer": texts,
                        "start": starts,
                        "is_impossible": is_impossible,
                    },
                )


def _field(value: Any, key: str, where: str) -> Any:
    """Returns a field of an object."""
    if not isinstance(value, Mapping) or key not in value:
        raise DamagedError(f"{where} has no {key!r}, as SQuAD's form has it.", HINT)
    return value[key]


def _objects(value: Any, key: str, where: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yields the objects of a list that is a field of an object, each with its location for messages."""
    found = _field(value, key, where)
    if not isinstance(found, list):
        raise DamagedError(f"{where}: {key!r} is no list.", HINT)
    for place, one in enumerate(found):
        if not isinstance(one, Mapping):
            raise DamagedError(f"{where}, {key}[{place}] is no object.", HINT)
        yield one, f"{where}, {key}[{place}]"


FORMS: dict[str, Reader] = dict.fromkeys(("squad", "squad_v2", "korquad", "klue_mrc"), squad_rows)
