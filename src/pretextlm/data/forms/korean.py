"""Korean data sets in tables that are separated by tabs.

    nsmc      id⇥document⇥label⏎9976970⇥아 더빙.. 진짜 짜증나네요 목소리⇥0     ratings_train.txt; some reviews are empty
    kornli    sentence1⇥sentence2⇥gold_label⏎그는 개념적으로 …⇥…⇥neutral
    korsts    genre⇥filename⇥year⇥id⇥score⇥sentence1⇥sentence2⏎…⇥5.000⇥비행기가 이륙하고 있다.⇥비행기가 이륙하고 있다.

KoBEST (Kim et al. 2022), whose texts may stand in quotes:

    kobest_boolq       ID⇥Text⇥Question⇥Answer⏎1⇥구한말, …⇥봉룡은 숙정을 죽였는가?⇥False
    kobest_copa        ID⇥sentence⇥question⇥1⇥2⇥Answer⏎1⇥전쟁이 시작되었다.⇥결과⇥병사들이 …⇥병사들이 …⇥2
    kobest_hellaswag   context⇥choice1⇥choice2⇥choice3⇥choice4⇥label⏎모자를 쓴 투수가 …⇥…⇥3
    kobest_sentineg    ID⇥Text⇥Label⏎1⇥만족입니다⇥1
    kobest_wic         ID⇥Target⇥SENTENCE1⇥…⇥SENTENCE2⇥…⇥ANSWER⏎1⇥실정⇥백제는 … [실정]으로 …⇥…⇥False
"""

from __future__ import annotations

from pretextlm.data.forms.form import Reader, Table, from_one, truth

FORMS: dict[str, Reader] = {
    "nsmc": Table(),
    "kornli": Table({"label": "gold_label"}),
    "korsts": Table({"label": "score"}),
    "kobest_boolq": Table(
        {"paragraph": "Text", "question": "Question", "label": "Answer"}, {"label": truth}, quotes=True
    ),
    "kobest_copa": Table(
        {"premise": "sentence", "alternative_1": "1", "alternative_2": "2", "label": "Answer"},
        {"label": from_one},
        quotes=True,
    ),
    "kobest_hellaswag": Table({f"ending_{n}": f"choice{n}" for n in range(1, 5)}, quotes=True),
    "kobest_sentineg": Table({"sentence": "Text", "label": "Label"}, quotes=True),
    "kobest_wic": Table(
        {"word": "Target", "context_1": "SENTENCE1", "context_2": "SENTENCE2", "label": "ANSWER"},
        {"label": truth},
        quotes=True,
    ),
}
