"""TOML in, TOML out, and nothing taken on trust."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretextlm.config import Config, apply_overrides, read_toml, write_toml
from pretextlm.errors import UserError

KEYS = st.text(min_size=1, max_size=8).filter(lambda s: s.isprintable())
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
VALUES = st.dictionaries(
    KEYS, st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(KEYS, SCALARS, max_size=3)), max_size=5
)


@given(VALUES)
def test_what_is_written_reads_back(values):
    assert tomllib.loads(write_toml(values)) == values


def test_overrides_are_toml_and_bare_words_are_strings():
    values = apply_overrides(
        {"training": {"max_grad_norm": 1.0}}, ["training.max_grad_norm=2e-3", "objective.name=masked", "seed=3"]
    )
    assert values == {"training": {"max_grad_norm": 0.002}, "objective": {"name": "masked"}, "seed": 3}


@pytest.mark.parametrize("override", ["training.max_grad_norm", "=3", "a..b=1", "../x=1"])
def test_a_malformed_override_is_refused(override):
    with pytest.raises(UserError, match="override"):
        apply_overrides({}, [override])


def test_an_override_does_not_go_through_a_value():
    with pytest.raises(UserError, match="not a table"):
        apply_overrides({"seed": 1}, ["seed.more=2"])


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a = ", b"a = 1\na = 2", b"a = " + b"[" * 100_000, b"a = 1\x00", b"#" * (2 << 20)]
)
def test_a_hostile_file_is_one_error_with_a_hint(tmp_path, content):
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_toml(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.toml"):
        read_toml(tmp_path / "nowhere.toml")


def test_strict_types_and_unknown_keys():
    class Shape(Config):
        width: int
        sides: tuple[int, ...] = ()

    assert Shape.parse({"width": 3, "sides": [1, 2]}).sides == (1, 2)
    for values in ({"width": "3"}, {"width": 3.0}, {"width": True}, {"width": 3, "heigth": 1}):
        with pytest.raises(UserError):
            Shape.parse(values)
