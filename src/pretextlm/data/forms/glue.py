"""GLUE's train.tsv and dev.tsv (Wang et al. 2019): separated by tabs, nothing quoted; CoLA's without a header.

cola   gj04⇥1⇥⇥Our friends won't buy this analysis.
sst2   sentence⇥label⏎hide new secretions⇥0
mrpc   Quality⇥#1 ID⇥#2 ID⇥#1 String⇥#2 String⏎1⇥702876⇥702977⇥Amrozi accused …⇥Referring to …
qqp    id⇥qid1⇥qid2⇥question1⇥question2⇥is_duplicate⏎133273⇥213221⇥213222⇥How is …?⇥What does …?⇥0
stsb   index⇥genre⇥filename⇥year⇥old_index⇥source1⇥source2⇥sentence1⇥sentence2⇥score⏎0⇥…⇥A plane …⇥An air plane …⇥5.000
mnli   index⇥promptID⇥pairID⇥genre⇥…⇥sentence1⇥sentence2⇥label1⇥gold_label⏎0⇥…⇥neutral⇥neutral
qnli   index⇥question⇥sentence⇥label⏎0⇥When did …?⇥Like the others …⇥not_entailment
rte    index⇥sentence1⇥sentence2⇥label⏎0⇥No weapons …⇥Weapons of …⇥not_entailment
wnli   index⇥sentence1⇥sentence2⇥label⏎0⇥I stuck a pin …⇥The carrot had a hole.⇥1
"""

from __future__ import annotations

from pretextlm.data.forms.form import Reader, Table

FORMS: dict[str, Reader] = {
    "cola": Table(header=("source", "label", "star", "sentence")),
    "sst2": Table(),
    "mrpc": Table({"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"}),
    "qqp": Table({"label": "is_duplicate"}),
    "stsb": Table({"label": "score"}),
    "mnli": Table({"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"}),
    "qnli": Table(),
    "rte": Table(),
    "wnli": Table(),
}
