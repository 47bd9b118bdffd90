"""Continue the pre-training of a published encoder on Korean text.

    python examples/continue_in_korean.py my_korean_text/ --model hf:klue/bert-base

Imports the model, prepares the text with the model's own tokenizer, trains on from its weights with masked language
modelling, measures what it has learned and what it has forgotten, and exports it for Hugging Face's transformers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pretextlm as pt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="+", help="files or directories of Korean text")
    parser.add_argument("--model", default="hf:klue/bert-base", help="a directory in Hugging Face's format, or hf:NAME")
    parser.add_argument("--out", type=Path, default=Path("korean"), help="directory for everything that is written")
    parser.add_argument("--tokens", type=float, default=1e7, help="training budget")
    parser.add_argument("--blank", default="대한민국의 수도는 ____이다.", help="a text with a blank, to compare")
    options = parser.parse_args()

    published = pt.import_model(options.model, options.out / "published")
    store = pt.prepare(options.text, options.out / "store", tokenizer=published, text_mode="paragraphs")
    recipe = pt.Recipe(
        start=published,  # weights and shape are those of the published model
        data=pt.DataConfig(store=store, length=128),
        objective=pt.Masked(rate=0.15, unit="word"),
        training=pt.TrainingConfig(budget_tokens=options.tokens, optimizer="adamw", learning_rate=5e-5, warmup=0.1),
    )
    run = pt.pretrain(recipe, options.out / "continued")

    for title, model in (("published", published), ("continued", run)):
        loss = pt.evaluate(model, store=store)["metrics"]["loss"]["value"]
        print(f"{title}: loss {loss:.3f} on held-out text; {pt.fill(model, options.blank).text}")
    exported = pt.export_model(run, options.out / "my-korean-bert")
    print(f"for transformers: {exported.directory} ({exported.architecture})")


if __name__ == "__main__":
    main()
