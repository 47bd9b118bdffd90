"""Conditions are told apart by colour too, whatever eye looks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pretextlm.report import page


def test_the_colours_stand_out_from_the_paper_and_from_each_other_for_every_eye() -> None:
    """WCAG's contrast of 3 for graphics; distances in OKLab, where 0.02 can just be seen, under Machado's simulations
    of full protanopia, deuteranopia and tritanopia."""
    css = (Path(page.__file__).parent / "page.css").read_text()
    for scheme in css.split("@media (prefers-color-scheme: dark)")[:2]:
        paper = _linear(re.findall(r"--paper: (#\w{6})", scheme)[0])
        colours = np.array([_linear(found) for found in re.findall(r"--c\d: (#\w{6})", scheme)[:8]])
        assert len(colours) == 8
        light = np.sort(np.stack([_luminance(colours), np.full(8, _luminance(paper))]), axis=0) + 0.05
        assert (light[1] / light[0]).min() > 2.95
        for eye in EYES.values():
            lab = _oklab(np.clip(colours @ np.array(eye).T, 0, 1))
            distances = np.linalg.norm(lab[:, None] - lab, axis=2)[np.triu_indices(8, 1)]
            assert distances.min() > 0.04


EYES = {
    "usual": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def _linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _luminance(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([0.2126, 0.7152, 0.0722])


def _oklab(rgb: np.ndarray) -> np.ndarray:
    cones = [
        [0.41222147, 0.53633254, 0.05144599],
        [0.2119035, 0.68069955, 0.10739696],
        [0.08830246, 0.28171884, 0.6299787],
    ]
    axes = [
        [0.21045426, 0.79361779, -0.00407205],
        [1.9779985, -2.42859221, 0.45059371],
        [0.02590404, 0.78277177, -0.80867577],
    ]
    return np.cbrt(rgb @ np.array(cones).T) @ np.array(axes).T
