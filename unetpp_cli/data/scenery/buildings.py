"""Houses, shops and offices: a front and an end wall in perspective, and a roof. Used by `plan`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from unetpp_cli.data.scenery.canvas import BUILDING, ink, pixels
from unetpp_cli.data.scenery.light import Color, pick, scaled
from unetpp_cli.data.scenery.stage import Floats, Stage, tiled
from unetpp_cli.data.scenery.view import Vec

BRICK: tuple[Color, ...] = ((150, 92, 72), (132, 84, 70), (170, 128, 92), (176, 150, 110), (120, 96, 84))
PLASTER: tuple[Color, ...] = (
    (214, 208, 194),
    (198, 186, 160),
    (184, 192, 196),
    (206, 178, 158),
    (222, 220, 216),
)
CONCRETE: tuple[Color, ...] = ((138, 138, 136), (160, 154, 144), (112, 116, 122), (92, 98, 110))
ROOF: tuple[Color, ...] = ((88, 80, 82), (104, 74, 64), (72, 76, 84))
SHOP: tuple[Color, ...] = (
    (120, 34, 36),
    (30, 66, 52),
    (34, 48, 92),
    (44, 40, 42),
    (156, 120, 52),
    (196, 190, 176),
)
DOOR: tuple[Color, ...] = ((92, 70, 56), (64, 58, 56), (104, 88, 74), (60, 74, 82))
WALLS = {"terrace": BRICK + PLASTER[:2], "shop": PLASTER + BRICK[:2], "office": CONCRETE}
LAMPLIGHT: Color = (250, 206, 128)

DEPTH = 9.0
"""From a house's front to its back, in metres."""
TO_US: Vec = (0.0, 0.0, -1.0)


@dataclass(frozen=True)
class House:
    """One building of a row; lengths in metres.

    Attributes:
        sign: -1 on the left of the street, 1 on the right.
        wall: x of its front.
        start, end: z of its near and its far corner.
        height: of its eaves.
        style: `terrace`, `shop` or `office`.
        gable: height of the ridge above the eaves; 0 for a flat roof.
        exposed: whether its near end can be seen past the house before it.
    """

    sign: int
    wall: float
    start: float
    end: float
    height: float
    style: str
    gable: float
    exposed: bool

    @property
    def span(self) -> tuple[float, float]:
        """Its lesser and its greater x."""
        back = self.wall + self.sign * DEPTH
        return min(self.wall, back), max(self.wall, back)


@dataclass(frozen=True)
class _Opening:
    """A `window`, `door`, `shop` window or shop `board`, in metres from a wall's lower left corner."""

    kind: str
    left: float
    bottom: float
    right: float
    top: float


def build(stage: Stage, plan: House) -> None:
    """Builds a house."""
    left, right = plan.span
    stage.shadow(plan.span, (plan.start, plan.end), plan.height + 0.6 * plan.gable)
    if not stage.camera.sees((left, 0.0, plan.start), (right, plan.height + plan.gable, plan.end)):
        return
    color, roof = pick(stage.rng, WALLS[plan.style]), pick(stage.rng, ROOF)
    front = _front(stage, plan, color)
    end = _end(stage, plan, scaled(color, 0.94)) if plan.exposed else None

    def draw() -> None:
        near, canvas = plan.start, stage.canvas
        if end:
            canvas.wall(stage.camera, end, ((left, 0.0, near), (right, 0.0, near)), plan.height, BUILDING)
        if plan.gable:
            _pitched_roof(stage, plan, roof, scaled(color, 0.94))
        foot = ((plan.wall, 0.0, near), (plan.wall, 0.0, plan.end))
        canvas.wall(stage.camera, front, foot, plan.height, BUILDING)

    stage.place(plan.span, (plan.start, plan.end), draw)


def _pitched_roof(stage: Stage, plan: House, tiles: Color, wall: Color) -> None:
    left, right = plan.span
    ridge, near, far, eaves = (left + right) / 2, plan.start, plan.end, plan.height
    peak = eaves + plan.gable
    stage.paint([(left, eaves, near), (right, eaves, near), (ridge, peak, near)], wall, BUILDING, TO_US)
    low = eaves - 0.2  # so that no gap shows above the front
    slope = [(plan.wall, low, near), (ridge, peak, near), (ridge, peak, far), (plan.wall, low, far)]
    stage.paint(slope, tiles, BUILDING, (-plan.sign * plan.gable, DEPTH / 2, 0.0))
    for z in (near + 0.6, far - 0.6):
        outline = ((-0.5, -1.0), (0.5, -1.0), (0.5, 1.0), (-0.5, 1.0))
        chimney = [(ridge + x, peak + y, z) for x, y in outline]
        stage.paint(chimney, BRICK[0], BUILDING, TO_US)


def _front(stage: Stage, plan: House, color: Color) -> Image.Image:
    """The front, seen straight on and lit, its near end on the left."""
    rng, light = stage.rng, stage.light
    meters = plan.end - plan.start
    scale = min(stage.camera.width / 42, max(3.0, stage.camera.scale(plan.start)))  # pixels per metre
    width, height = max(8, round(meters * scale)), max(8, round(plan.height * scale))
    picture = Image.new("RGB", (width, height), ink(color))
    draw = ImageDraw.Draw(picture)
    if plan.style != "office" and scale > 8:
        for row in range(0, height, max(3, round(0.3 * scale))):  # courses of bricks
            draw.line([(0, row), (width, row)], ink(scaled(color, 0.93)))
    frame = ink(scaled(color, 1.2 if plan.style != "office" else 0.7))
    lit = []
    for opening in _openings(plan, meters):
        _paint_opening(draw, opening, frame, scale, height, rng)
        if light.lamps and stage.chance({"window": 0.35, "shop": 0.75}.get(opening.kind, 0.0)):
            lit.append(opening)
    draw.rectangle((0, 0, width, 0.3 * scale), ink(scaled(color, 0.8)))
    draw.rectangle((0, height - 0.35 * scale, width, height), ink(scaled(color, 0.7)))

    rise = np.linspace(1.0, 0.0, height, dtype=np.float32)[:, None]
    wear = _wear(stage, height, width) * (0.8 + 0.2 * np.minimum(1.0, rise * 4.0))  # darker near the ground
    # The haze thickens along the front, whose columns are linear in z.
    z = np.linspace(plan.start, plan.end, width, dtype=np.float32)
    clear = light.clear(z)[:, None]  # (columns, 1)
    gain = clear * np.asarray(light.strength((-plan.sign, 0.0, 0.0)), np.float32)  # (columns, 3)
    values = picture * (wear[..., None] * gain)
    values += (1.0 - clear) * np.asarray(light.horizon, np.float32)
    shaded = Image.fromarray(pixels(values))
    lamps = ImageDraw.Draw(shaded)
    for window in lit:
        pane = _box(window, scale, height, inset=0.12)
        if pane[0] < pane[2] and pane[1] < pane[3]:
            lamps.rectangle(pane, ink(scaled(LAMPLIGHT, stage.uniform(0.6, 1.0))))
    return shaded


def _end(stage: Stage, plan: House, color: Color) -> Image.Image:
    """The wall at the near end, which closes a gap in the row: plain, with a window or two."""
    scale = 6.0
    width, height = round(DEPTH * scale), max(8, round(plan.height * scale))
    picture = Image.new("RGB", (width, height), ink(color))
    draw = ImageDraw.Draw(picture)
    for level in range(1, int(plan.height / 2.9)):
        if stage.chance(0.5):
            left, bottom = stage.uniform(1.5, 6.0), level * 2.9 + 0.8
            window = _Opening("window", left, bottom, left + 1.0, bottom + 1.5)
            _paint_opening(draw, window, (214, 212, 206), scale, height, stage.rng)
    tint = stage.light.tint(plan.start, TO_US)
    values = np.asarray(picture, np.float32) * _wear(stage, height, width)[..., None]
    values = values * np.asarray(tint.gain, np.float32) + np.asarray(tint.haze, np.float32)
    return Image.fromarray(pixels(values))


def _wear(stage: Stage, height: int, width: int) -> Floats:
    """Stains and roughness of a wall, around 1. (height, width)."""
    lumps, speckle = (tiled(tile, stage.rng, height, width) for tile in (stage.lumps, stage.speckle))
    return 1.0 + 0.22 * lumps + 0.1 * speckle


def _openings(plan: House, meters: float) -> list[_Opening]:
    """Doors, shop fronts, and windows in rows."""
    found = []
    office = plan.style == "office"
    storey, first = (3.4, 0.0) if office else (2.9, 3.4 if plan.style == "shop" else 2.9)
    bays = max(1, round(meters / (1.9 if office else 2.5)))
    pitch = meters / bays
    if plan.style == "shop":
        found.append(_Opening("board", 0.15, 2.75, meters - 0.15, 3.35))
        units = max(1, round(meters / 5))
        for unit in range(units):
            left, right = unit * meters / units, (unit + 1) * meters / units
            found.append(_Opening("shop", left + 0.3, 0.5, right - 1.5, 2.65))
            found.append(_Opening("door", right - 1.25, 0.05, right - 0.3, 2.6))
    elif plan.style == "terrace":
        for bay in range(bays):
            middle = (bay + 0.5) * pitch
            if bay % 3 == 1:
                found.append(_Opening("door", middle - 0.5, 0.05, middle + 0.5, 2.15))
            else:
                found.append(_Opening("window", middle - 0.75, 0.75, middle + 0.75, 2.2))
    half = 0.42 * pitch if office else min(0.62, 0.3 * pitch)
    low, tall = (0.7, 2.2) if office else (0.8, 1.6)
    for level in range(int((plan.height - first - 0.4) / storey)):
        bottom = first + level * storey + low
        for bay in range(bays):
            middle = (bay + 0.5) * pitch
            found.append(_Opening("window", middle - half, bottom, middle + half, bottom + tall))
    return found


def _paint_opening(
    draw: ImageDraw.ImageDraw,
    opening: _Opening,
    frame: tuple[int, int, int],
    scale: float,
    height: int,
    rng: np.random.Generator,
) -> None:
    left, top, right, bottom = box = _box(opening, scale, height)
    if opening.kind == "door":
        draw.rectangle(box, ink(pick(rng, DOOR)))
        draw.rectangle((left, top, right, top + (bottom - top) * 0.2), (84, 96, 110))
    if opening.kind == "board":
        draw.rectangle(box, ink(pick(rng, SHOP)))
    if opening.kind == "board":  # with the shop's name
        letter = 0.35 * scale
        x, end = left + (right - left) * 0.2, left + (right - left) * (0.5 + 0.3 * float(rng.random()))
        while letter > 3 and x < end:
            stroke = letter * (0.3 + 0.5 * float(rng.random()))
            draw.rectangle((x, top + letter * 0.5, x + stroke, bottom - letter * 0.5), (236, 230, 214))
            x += stroke + letter * 0.3
    if opening.kind not in ("window", "shop"):
        return
    if scale < 5.0:  # too far off for more
        draw.rectangle(box, (70, 82, 96))
        return
    border = max(1.0, 0.09 * scale)
    draw.rectangle((left - border, top - border, right + border, bottom + border), frame)
    glass = scaled((66, 78, 92), 0.6 + 0.8 * float(rng.random()))
    draw.rectangle(box, ink(glass))
    sky = scaled(glass, 1.45)  # mirrored in the upper part
    draw.rectangle((left, top, right, top + (bottom - top) * 0.4), ink(sky))
    if opening.kind == "window":  # a sash
        middle = (top + bottom) / 2
        draw.line([(left, middle), (right, middle)], frame, width=max(1, round(border * 0.7)))
        draw.rectangle((left - border, bottom + border, right + border, bottom + 2 * border), (190, 186, 178))
    else:  # wares on a low shelf
        shelf = (left, bottom - (0.2 + 0.5 * float(rng.random())) * scale, right, bottom)
        draw.rectangle(shelf, ink(scaled(pick(rng, SHOP), 0.8)))


def _box(
    opening: _Opening, scale: float, height: int, inset: float = 0.0
) -> tuple[float, float, float, float]:
    """Left, top, right, bottom in the pixels of a wall `height` pixels high."""
    left, right = (opening.left + inset) * scale, (opening.right - inset) * scale
    return left, height - (opening.top - inset) * scale, right, height - (opening.bottom + inset) * scale
