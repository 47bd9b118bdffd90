"""Callbacks of a training: one file per concern that is attached to the loop."""
