"""Trying out a foreign tokenizer in a process of its own, within limits of time and memory.

A pattern with catastrophic backtracking, tables that make the library allocate without end, or a panic in it cannot be
seen in the file. The process (`python -m pretextlm.data.tokenizer_probe WORD`, the file as its standard input) builds
the tokenizer, encodes texts of its own vocabulary and hostile ones, writes it, and reads it again.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

from pretextlm.data.untrusted_tokenizer import HINT, build
from pretextlm.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SECONDS, SECONDS_PER_MB = 1.2, 0.6
"""Processor time that a tokenizer may take, by the size of its file: some four times what published ones take."""
BYTES, BYTES_PER_BYTE = 1 << 30, 64
"""Memory that it may take."""
PATIENCE = 60.0
"""Seconds that pass by the clock, however busy the machine is."""

PROBES = ("a" * 3000 + "!", " " * 3000 + "a", "0" * 3000 + "a", "ab " * 1000, "é" * 3000 + "\0", "x" * 3000, "a", "")
"""Texts on which patterns with catastrophic backtracking and cubic word-piece models fail."""
SAMPLE = 500
"""Tokens of its vocabulary that are encoded."""


def probe_tokenizer(text: str, where: str) -> None:
    """Tries out a tokenizer.json, once for each content.

    Args:
        text: its content, which `check_tokenizer_json` accepts.
        where: names the file in an error.

    Raises:
        UserError: it cannot be built, fails on a text, takes too long or too much memory, yields ids outside of its
            vocabulary, or is another tokenizer after it was written and read.
    """
    if fault := _fault(text):
        raise UserError(f"{where} is not a sound tokenizer: {fault}.", HINT)


@lru_cache(maxsize=16)
def _fault(text: str) -> str:
    """Returns why a tokenizer is not sound; empty if it is."""
    data = text.encode()
    # -P: the working directory may hold modules of anybody.
    command = [sys.executable, "-P", "-m", "pretextlm.data.tokenizer_probe"]
    paths = os.pathsep.join(os.path.abspath(place) for place in sys.path if place)
    environment = {**os.environ, "PYTHONPATH": paths, "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, input=data, capture_output=True, env=environment, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return "it takes too long"
    if done.returncode == -signal.SIGPROF:
        return "it takes too long"
    if done.returncode < 0 or b"memory" in done.stderr:
        return "it takes too much memory"
    said, log = (stream.decode(errors="replace").strip() for stream in (done.stdout, done.stderr))
    return said or (log.split("\n")[-1][:200] if done.returncode else "")


def limit_process(size: int) -> None:
    """Limits the time and memory of this process to what a tokenizer.json of so many bytes may take."""
    seconds = SECONDS + SECONDS_PER_MB * size / 1e6
    signal.setitimer(signal.ITIMER_PROF, seconds)  # in any thread; its signal ends the process
    pages = int(open("/proc/self/statm").read().split()[0]) if sys.platform == "linux" else 0  # noqa: SIM115
    most = pages * resource.getpagesize() + BYTES + BYTES_PER_BYTE * size
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _findings(text: str) -> str:
    tokenizer, added = build(text), json.loads(text).get("added_tokens") or []
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    texts = [*PROBES, *_own_texts(tokenizer, vocabulary)]
    ids = _ids(tokenizer, texts)
    if not {index for one in ids for index in one} <= set(vocabulary.values()):
        return "it yields ids outside of its vocabulary"
    wrong = [token for token in added if tokenizer.token_to_id(token["content"]) != token["id"]]
    if wrong:
        return f"its token {wrong[0]['content']!r} cannot have the id {wrong[0]['id']}: there is a gap before it"
    tokenizer.encode("a", "b")
    if _ids(tokenizer, texts) != ids:
        return "it encodes a text in another way each time"
    text = tokenizer.to_str()
    del tokenizer
    again = build(text)
    if again.get_vocab(with_added_tokens=True) != vocabulary or _ids(again, texts) != ids:
        return "written and read again it is another tokenizer"
    return ""


def _own_texts(tokenizer: Tokenizer, vocabulary: dict[str, int]) -> list[str]:
    """Returns what tokens of its vocabulary, evenly chosen, stand for: each by itself, and all of them in a row."""
    ids = sorted(vocabulary.values())
    chosen = ids[:: max(1, len(ids) // SAMPLE)]
    texts = [tokenizer.decode([index], skip_special_tokens=False) for index in chosen]
    return [*texts, "".join(texts), tokenizer.decode(chosen)]


def _ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [one.ids for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def main() -> None:
    """Prints why the tokenizer of standard input is not sound; nothing if it is."""
    text = sys.stdin.buffer.read().decode()
    limit_process(len(text))
    try:
        print(_findings(text))
    except BaseException as error:  # the Rust side's panics are no Exception
        print(f"{error}"[:200])
        sys.exit(1)


if __name__ == "__main__":
    main()
