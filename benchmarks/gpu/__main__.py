"""The process of one check or measurement, which its argument describes; `check`, `bench` and `curves` start it."""

import json
import sys

from benchmarks.gpu.isolation import run_ordered

if __name__ == "__main__":
    run_ordered(json.loads(sys.argv[1]))
