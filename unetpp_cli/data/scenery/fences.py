"""Fences of equal panels: planks, railings, pickets, guard rails at the kerb. Used by `plan`."""

from __future__ import annotations

from PIL import Image, ImageDraw

from unetpp_cli.data.scenery.canvas import FENCE, ink
from unetpp_cli.data.scenery.light import Color, pick, scaled
from unetpp_cli.data.scenery.painter import Span
from unetpp_cli.data.scenery.stage import Stage
from unetpp_cli.data.scenery.view import KERB

WOOD: tuple[Color, ...] = ((142, 108, 74), (120, 96, 72), (156, 134, 104))
PAINTED: tuple[Color, ...] = ((26, 26, 28), (20, 104, 72))
STEEL: tuple[Color, ...] = ((118, 122, 124), (142, 144, 142))

STYLES: dict[str, tuple[float, tuple[Color, ...]]] = {
    "planks": (1.8, WOOD),
    "picket": (1.5, ((236, 236, 232),)),
    "railing": (1.6, PAINTED),
    "guard": (1.4, STEEL),
}
"""Height in metres, and colours."""


def fence(stage: Stage, x: float, z: Span, style: str) -> None:
    """Puts up a fence along the street."""
    height, colors = STYLES[style]
    near, far = z
    count = max(1, round((far - near) / 2.4))
    scale = min(stage.camera.width / 16, max(8.0, 1.2 * stage.camera.scale(near)))
    panel = _panel(stage, style, pick(stage.rng, colors), (far - near) / count, scale)
    texture = Image.new("RGBA", (count * panel.width, panel.height))
    for index in range(count):
        texture.paste(panel, (index * panel.width, 0))
    foot = ((x, KERB, near), (x, KERB, far))
    stage.place((x, x), z, lambda: stage.canvas.wall(stage.camera, texture, foot, height, FENCE))
    stage.shadow((x - 0.04, x + 0.04), z, height if style == "planks" else height * 0.5)


def _panel(stage: Stage, style: str, color: Color, length: float, scale: float) -> Image.Image:
    """One panel, seen straight on and lit: RGBA, more or less open, `scale` pixels per metre."""
    height = STYLES[style][0]
    picture = Image.new("RGBA", (max(4, round(length * scale)), max(4, round(height * scale))))
    draw = ImageDraw.Draw(picture)
    red, green, blue = stage.light.strength((0.5, 0.4, -0.6))
    lit = (color[0] * red, color[1] * green, color[2] * blue)

    def box(left: float, top: float, right: float, bottom: float, tone: float) -> None:
        corners = (left * scale, top * scale, right * scale, bottom * scale)
        draw.rectangle(corners, (*ink(scaled(lit, tone)), 255))

    def rails(thick: float, *tops: float) -> None:
        for top in tops:
            box(0.0, top, length, top + thick, 1.1)

    def bars(pitch: float, thick: float, top: float, bottom: float) -> None:
        for bar in range(int(length / pitch) + 1):
            box(bar * pitch, top, bar * pitch + thick, bottom, stage.uniform(0.82, 1.18))

    if style in ("railing", "guard"):  # mesh behind the bars, through which the street shows dimly
        draw.rectangle((0, 0, *picture.size), (*ink(scaled(lit, 0.8)), 190))
    if style == "planks":
        box(0.0, 0.0, length, height, 0.5)
        bars(0.16, 0.13, 0.05, height)
        rails(0.06, 0.0)
    elif style == "picket":
        rails(0.1, 0.25, 0.75)
        bars(0.18, 0.13, 0.0, height)
    elif style == "railing":
        rails(0.06, 0.12, height - 0.18)
        bars(0.17, 0.08, 0.0, height)
    else:
        rails(0.08, 0.0, height - 0.25)
        bars(0.18, 0.08, 0.0, height - 0.2)
    box(0.0, 0.0, 0.12, height, 0.85)  # the post between two panels
    return picture
