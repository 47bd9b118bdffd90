"""Names of forms → their readers. A form has the name of the recipe for its data set (recipes/tasks)."""

from __future__ import annotations

from pretextlm.data.forms import conll, glue, klue, korean, plain, squad
from pretextlm.data.forms.form import Reader
from pretextlm.errors import UserError, did_you_mean

FORMS: dict[str, Reader] = {
    **plain.FORMS,
    **glue.FORMS,
    **squad.FORMS,
    **klue.FORMS,
    **korean.FORMS,
    **conll.FORMS,
}


def form_named(name: str) -> Reader:
    """Returns the reader of a form.

    Raises:
        UserError: there is no form of this name.
    """
    if name not in FORMS:
        raise UserError(f"There is no form {name!r} of labelled files.", did_you_mean(name, FORMS))
    return FORMS[name]
