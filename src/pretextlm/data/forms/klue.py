"""KLUE 1.1 (Park et al. 2021): JSON arrays, and sentences with a unit and its tags a line below comments.

    klue_ynat   [{"guid": "…", "title": "유튜브 내달 2일까지 …", "label": "생활문화", "annotations": {…}}]
    klue_nli    [{"guid": "…", "premise": "…", "hypothesis": "…", "gold_label": "entailment", …}]
    klue_sts    [{"guid": "…", "sentence1": "…", "sentence2": "…", "labels": {"label": 3.7, "binary-label": 1, …}}]
    klue_re     [{"sentence": "…", "subject_entity": {"start_idx": 24, "end_idx": 26, …}, "label": "…", …}]
    klue_ner    ## 주석⏎## klue-ner-v1_dev_00000⇥<경찰:OG>은 …⏎경⇥B-OG⏎찰⇥I-OG⏎은⇥O⏎ ⇥O⏎⏎
    klue_dp     ## klue-dp-v1_dev_00000⇥…⏎1⇥유희열이⇥유희열 이⇥NNP+JKS⇥6⇥NP_SBJ⏎⏎

KLUE-MRC is of SQuAD's form.
"""

from __future__ import annotations

from functools import partial

from pretextlm.data.forms.form import Reader, Table
from pretextlm.data.tables import conll_rows

FORMS: dict[str, Reader] = {
    "klue_ynat": Table(json=True),
    "klue_nli": Table({"label": "gold_label"}, json=True),
    "klue_sts": Table(json=True),
    "klue_re": Table(json=True),
    "klue_ner": partial(conll_rows, names=("char", "ne_tag"), tabs=True),
    "klue_dp": partial(conll_rows, names=("index", "word_form", "lemma", "pos", "head", "deprel"), tabs=True),
}
