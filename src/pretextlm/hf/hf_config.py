"""Reading a config.json in Hugging Face's format: the family and our model configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError
from pretextlm.hf.untrusted_files import check_numbers, read_object

if TYPE_CHECKING:
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.base import Family

CONFIG_FILE = "config.json"


def read_config(directory: Path) -> tuple[Mapping[str, Any], Family, ModelConfig]:
    """Read a config.json.

    Returns:
        (values of the file, family, model configuration).

    Raises:
        UserError: the file is missing or invalid.
    """
    from pretextlm.model.families.registry import FAMILIES

    where = directory / CONFIG_FILE
    values = read_object(where)
    check_numbers(values, str(where))
    kind = values.get("model_type")
    if not isinstance(kind, str):
        raise UserError(f"{where} has no model_type.", f"Known: {', '.join(FAMILIES)}.")
    family: Family = FAMILIES[kind]()
    try:
        return values, family, family.config_from_hf(values)
    except KeyError as error:
        raise UserError(f"{where} has no {error.args[0]!r}.", "Fetch the model again.") from None
    except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError) as error:
        raise UserError(f"{where} is not sound: {str(error)[:200]}.", "Fetch the model again.") from None
