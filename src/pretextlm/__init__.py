"""pretextlm: every pre-training objective on one Transformer, compared side by side.

    import pretextlm as pt

    store = pt.prepare(["my_text/"], "stores/mine")
    recipe = pt.Recipe(
        data=pt.DataConfig(store=store),
        objective=pt.Masked(rate=0.3),
        training=pt.TrainingConfig(budget_tokens=2e6),
    )
    run = pt.pretrain(recipe, "runs/masked")

Names are imported on first access, so that `import pretextlm` loads neither torch nor numpy. Type checkers and editors
read them from `__init__.pyi`.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_MODULES = {
    # Recipes
    "Recipe": "training.recipe",
    "DataConfig": "training.recipe",
    "ModelConfig": "model.config",
    "TrainingConfig": "training.recipe",
    "TuningConfig": "training.trainable_parameters",
    "LoraConfig": "training.trainable_parameters",
    "EvaluationConfig": "training.recipe",
    "StudyPlan": "study.plan",
    # Data, runs and studies
    "Store": "data.store",
    "Run": "training.run_directory",
    "StudyResults": "study.study_results",
    # Functions
    "prepare": "data.prepare",
    "pretrain": "training.pretrain",
    "finetune": "evaluation.finetune",
    "evaluate": "evaluation.evaluate",
    "evaluate_text": "evaluation.sliding_window",
    "predict": "evaluation.predict",
    "generate": "evaluation.generate",
    "fill": "evaluation.fill",
    "compare": "study.compare",
    "import_model": "hf.import_model",
    "export_model": "hf.export_model",
    # Extensions
    "register": "extensions",
    "Objective": "objectives.base",
    "Task": "tasks.base",
    "Callback": "training.callbacks.base",
    "UserError": "errors",
    # Objectives
    "BimodalCode": "objectives.bimodal_code",
    "Causal": "objectives.causal",
    "Denoisers": "objectives.denoisers",
    "Denoising": "objectives.denoising",
    "Distillation": "objectives.distillation",
    "FillInMiddle": "objectives.fill_in_middle",
    "Masked": "objectives.masked",
    "MaskedSequence": "objectives.masked_sequence",
    "MixedVisibility": "objectives.mixed_visibility",
    "NextSentence": "objectives.next_sentence",
    "Permutation": "objectives.permutation",
    "Prefix": "objectives.prefix",
    "ReplacedToken": "objectives.replaced_token",
    "SentenceOrder": "objectives.sentence_order",
    "SpanBoundary": "objectives.span_boundary",
    "SpanCorruption": "objectives.span_corruption",
    "TextToText": "objectives.text_to_text",
    "WordStructure": "objectives.word_structure",
    # Tasks
    "Instruction": "tasks.instruction",
    "MultiLabelClassification": "tasks.multi_label_classification",
    "MultipleChoice": "tasks.multiple_choice",
    "QuestionAnswering": "tasks.question_answering",
    "SentenceEmbedding": "tasks.sentence_embedding",
    "SequenceToSequence": "tasks.text_to_text",
    "TextClassification": "tasks.text_classification",
    "TextRegression": "tasks.text_regression",
    "TokenClassification": "tasks.token_classification",
}
"""Public name → the module that defines it, without the package's own name."""

__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
