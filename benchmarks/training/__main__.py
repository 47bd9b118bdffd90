"""All tracks, one after another, each as its own module would run: about 110 minutes of one core.

    python -m benchmarks.training --data DIRECTORY --json build/benchmarks

`--only systems recipe` runs some of them. `shakespeare` needs its text and has a command of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

TRACKS = {
    "systems": ("tokens per CPU second, share of the peak, memory: full rows", 25),
    "ragged": ("text tokens per CPU second: documents of natural length", 20),
    "recipe": ("time to a tuned rival's loss, three seeds", 60),
    "startup": ("seconds to the first step", 5),
}
"""What each shows, and minutes of one core that it takes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(TRACKS), choices=TRACKS)
    parser.add_argument("--data", type=Path, help="for ragged: holds tasks/boolq and tasks/imdb")
    parser.add_argument("--json", type=Path, help="directory for one file for each track")
    options = parser.parse_args()
    print(f"about {sum(TRACKS[track][1] for track in options.only)} minutes of one idle core", flush=True)
    for track in options.only:
        shows, minutes = TRACKS[track]
        if track == "ragged" and options.data is None:
            print("== ragged left out: it needs --data", flush=True)
            continue
        print(f"== {track}: {shows}, about {minutes} minutes", flush=True)
        command = [sys.executable, "-m", f"benchmarks.training.{track}"]
        if track == "ragged":
            command += ["--data", str(options.data), "--corpora", "boolq"]
        if options.json:
            command += ["--json", str(options.json / f"{track}.json")]
        start = time.monotonic()
        subprocess.run(command, check=True)
        print(f"== {track} took {(time.monotonic() - start) / 60:.0f} minutes", flush=True)


if __name__ == "__main__":
    main()
