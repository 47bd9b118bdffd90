"""Training against the same models of transformers; each module is one claim, run by `python -m`."""
