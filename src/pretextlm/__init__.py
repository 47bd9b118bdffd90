"""pretextlm: every pre-training objective on one Transformer, measured side by side."""

__version__ = "0.1.0"
