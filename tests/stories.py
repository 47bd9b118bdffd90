"""Text for short trainings: stories whose order matters, translations, and functions with their docstrings.

Each is generated from the lists below by counter, so that every machine trains on the same text.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PEOPLE = ["Mira", "Jonas", "the miller", "Aunt Rose", "the young captain", "Dr. Penn", "Hana", "the baker", "old Tom"]
PLACES = ["the harbour", "the village", "the forest", "the market", "the school", "the station", "the island"]
THINGS = ["boat", "clock", "kite", "bicycle", "lamp", "bridge", "piano", "kettle", "map", "window", "basket", "ladder"]
FLAWS = ["broken", "rusty", "dusty", "crooked", "cracked", "stuck", "bent", "worn out"]
TOOLS = ["a hammer", "some oil", "warm water", "a long rope", "two spoons", "a little glue", "a sharp knife"]
HELPERS = ["a neighbour", "her brother", "the teacher", "three children", "a sailor", "nobody", "the postman"]
WEATHER = [
    "It rained all day.",
    "The sun was shining.",
    "A cold wind blew.",
    "Snow lay on the roofs.",
    "It was very quiet.",
]
BEGINNINGS = [
    "One morning {who} found a {flaw} {thing} near {place}.",
    "Once there was a {flaw} {thing} near {place}, and {who} wanted it.",
    "In spring {who} bought a {thing} at {place}, but it was {flaw}.",
]
MIDDLES = [
    ["First {who} cleaned the {thing} with {tool}.", "First {who} looked at the {thing} for an hour."],
    ["Then {helper} came from {place} to help.", "Then {who} asked {helper} about the {thing}.", "{weather}"],
    ["After that they tried {tool}, because the {thing} was still {flaw}.", "Next {who} went back to {place}."],
    ["Later the {thing} was better, but not good.", "Later {helper} brought {tool}.", "{weather}"],
]
ENDINGS = [
    "In the end the {thing} was as good as new, and {who} was happy.",
    "At last {who} gave the {thing} to {helper}.",
    "Finally {who} carried the {thing} home from {place}.",
]
QUESTIONS = ["who mended the {thing}", "why was the {thing} {flaw}", "what happened near {place}", "did {who} go home"]

GERMAN = {
    "house": "Haus", "boat": "Boot", "book": "Buch", "gate": "Tor", "field": "Feld", "village": "Dorf",
    "window": "Fenster", "knife": "Messer", "bed": "Bett", "child": "Kind", "glass": "Glas", "picture": "Bild",
    "old": "alt", "new": "neu", "small": "klein", "large": "groß", "green": "grün", "white": "weiß",
    "round": "rund", "heavy": "schwer", "quiet": "ruhig", "warm": "warm", "cold": "kalt", "clean": "sauber",
}  # fmt: skip
NOUNS, ADJECTIVES = list(GERMAN)[:12], list(GERMAN)[12:]


def stories(count: int) -> Iterator[dict[str, str]]:
    """A question and a story of five to seven sentences, in which each sentence has its place."""
    rng = np.random.Generator(np.random.PCG64(11))

    def one(choices: list[str]) -> str:
        return choices[int(rng.integers(len(choices)))]

    for _ in range(count):
        words = {"who": PEOPLE, "place": PLACES, "thing": THINGS, "flaw": FLAWS, "tool": TOOLS, "helper": HELPERS}
        chosen = {name: one(some) for name, some in words.items()} | {"weather": one(WEATHER)}
        middles = [one(some) for some in MIDDLES if rng.random() < 0.9]
        lines = [line.format(**chosen) for line in (one(BEGINNINGS), *middles, one(ENDINGS))]
        text = " ".join(line[0].upper() + line[1:] for line in lines)
        yield {"text": f"{one(QUESTIONS).format(**chosen).capitalize()}? {text}"}


def translations(count: int) -> Iterator[dict[str, str]]:
    """A sentence about a thing in English and in German; all nouns are neuter."""
    rng = np.random.Generator(np.random.PCG64(12))
    for _ in range(count):
        noun = NOUNS[int(rng.integers(len(NOUNS)))]
        first, second = (ADJECTIVES[int(i)] for i in rng.choice(len(ADJECTIVES), 2, replace=False))
        german = f"Das {GERMAN[first]}e {GERMAN[noun]} ist {GERMAN[second]}."
        yield {"en": f"The {first} {noun} is {second}.", "de": german}


def functions(count: int) -> Iterator[dict[str, str]]:
    """Functions of Python's own library that have a docstring."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8", errors="replace"))):
            if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)) and len(node.body) > 1 and count:
                count -= 1
                node.body = node.body[1:]
                yield {"docstring": text[:200], "code": ast.unparse(node)[:300]}
