"""The look that all plots share: a matplotlib figure without global state, titles, panels, saving.

matplotlib is imported by `new` and not before. Used by `report.plots` and `report.curves`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any

from unetpp_cli.data.classes import Color
from unetpp_cli.files import replacing

DPI = 125
INK, GREY, FAINT = "#222222", "#555555", "#8a8a8a"

# Okabe and Ito's colours, which the colour-blind tell apart: shallow heads warm, deep ones blue.
_HEADS = ("#E69F00", "#009E73", "#56B4E9", "#0072B2", "#CC79A7", "#D55E00", "#F0E442", "#000000")
ENSEMBLE = "#D55E00"

_LETTER = 0.085
"""Inches; about the width of a letter of 10-point text."""


def new(width: float, height: float) -> Any:
    """A white figure of so many inches, `DPI` pixels each, that no display and no pyplot knows of."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # no note about a cache it builds
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def titles(figure: Any, title: str, subtitle: str, left: float) -> None:
    """A bold line and a grey one, flush left at `left` inches; `$math$` is taken literally."""
    width, height = figure.get_size_inches()
    style = {"x": left / width, "ha": "left", "va": "top", "parse_math": False}
    figure.text(y=1 - 0.17 / height, s=title, fontsize=14, fontweight="bold", color=INK, **style)
    figure.text(y=1 - 0.48 / height, s=subtitle, fontsize=11, color=GREY, **style)


def panel(figure: Any, place: Any, title: str, horizontal: str = "") -> Any:
    """Axes in a cell of a grid, with a title above, a label below and a faint grid."""
    axes = figure.add_subplot(place)
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(horizontal, fontsize=10, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(color=FAINT, labelcolor=INK, labelsize=9)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def head_color(depth: int | None) -> str:
    """The colour of head `depth` in every plot; None is the ensemble."""
    return ENSEMBLE if depth is None else _HEADS[(depth - 1) % len(_HEADS)]


def hex_color(color: Color) -> str:
    """`#804080` for (128, 64, 128)."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def text_width(names: Iterable[str]) -> float:
    """Inches that the longest of these names takes at 10 points, with a little room to spare."""
    return 0.2 + _LETTER * max((len(name) for name in names), default=0)


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Writes the figure as PNG in one step; equal figures give equal bytes."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
