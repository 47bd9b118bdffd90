"""Records as they are, whatever the file's suffix.

csv          text,label⏎"A fine, long film.",good        texts with separators in double quotes
tsv          text⇥label⏎"Fine" film⇥good                 quotation marks are plain text
quoted_tsv   text⇥label⏎"A ""fine"" film"⇥good            … or enclose texts, as pandas and spreadsheets write them
jsonl        {"text": "A fine film.", "label": "good"}
json         [{"text": "A fine film.", "label": "good"}]
"""

from __future__ import annotations

from pretextlm.data.forms.form import Reader, Table
from pretextlm.data.tables import json_rows

FORMS: dict[str, Reader] = {
    "csv": Table(tabs=False, quotes=True),
    "tsv": Table(),
    "quoted_tsv": Table(quotes=True),
    "jsonl": json_rows,
    "json": Table(json=True),
}
