"""Compare pre-training objectives on your own text.

    python examples/compare_objectives.py my_text/ --tokens 2e6

Prepares the text, trains a causal and a masked model of the same size on the same number of tokens, evaluates both on
the same held-out blanks, and writes one report. The masked model is exported for Hugging Face's transformers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pretextlm as pt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="+", help="files or directories of text")
    parser.add_argument("--out", type=Path, default=Path("compared"), help="directory for everything that is written")
    parser.add_argument("--tokens", type=float, default=2e6, help="training budget of each model")
    parser.add_argument("--seeds", type=int, default=1, help="models per objective, for confidence intervals")
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--vocab-size", type=int, default=4096)
    options = parser.parse_args()

    store = pt.prepare(options.text, options.out / "store", vocab_size=options.vocab_size)
    plan = pt.StudyPlan(
        name="Causal and masked language modelling",
        store=store,
        # A preset gives a model the shape of a published family, so that it can be exported; `model` sets its size.
        objectives=[
            {"name": "causal", "model": {"preset": "gpt2"}},
            {"name": "masked", "rate": 0.3, "model": {"preset": "bert-base-uncased"}},
        ],
        seeds=list(range(1, options.seeds + 1)),
        budget={"tokens": int(options.tokens)},
        model={"hidden_size": options.hidden_size, "num_hidden_layers": 4, "num_attention_heads": 4},
        training={"batch_tokens": 2048},
    )
    study = pt.compare(plan, options.out / "study")

    print(study.summary["finding"])
    for label, measures in study.summary["conditions"].items():
        print(f"{label}: {measures['blank_choice_accuracy']['mean']:.1%} of the blanks answered correctly")
    exported = pt.export_model(study.runs["masked-seed1"], options.out / "my-bert")
    print(f"report: {study.report}\nfor transformers: {exported.directory} ({exported.architecture})")


if __name__ == "__main__":
    main()
