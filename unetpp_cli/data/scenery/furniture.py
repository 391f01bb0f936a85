"""Lamp posts, traffic lights, signs, bollards, bins: what stands along a kerb. Used by `plan`."""

from __future__ import annotations

from unetpp_cli.data.classes import VOID
from unetpp_cli.data.scenery.canvas import POLE, SIGN
from unetpp_cli.data.scenery.light import Color, pick, scaled
from unetpp_cli.data.scenery.stage import Cutout, Stage
from unetpp_cli.data.scenery.view import KERB

METAL: tuple[Color, ...] = ((118, 122, 124), (86, 90, 94), (62, 76, 68), (142, 144, 142))
RED: Color = (196, 34, 40)
WHITE: Color = (236, 236, 232)
BLUE: Color = (28, 78, 160)
BLACK: Color = (26, 26, 28)
YELLOW: Color = (232, 190, 40)
GREEN: Color = (20, 104, 72)
BROWN: Color = (120, 72, 44)
SIGNAL: tuple[Color, ...] = ((60, 226, 120), (255, 176, 40), (255, 52, 40))


def _slim_shadow(stage: Stage, x: float, z: float, half: float, height: float) -> None:
    """The shadow of something that reaches `half` a width around (x, z)."""
    stage.shadow((x - half, x + half), (z - half, z + half), height)


def lamp_post(stage: Stage, x: float, z: float) -> None:
    """A street lamp whose arm reaches over the road."""
    color, height, thick = pick(stage.rng, METAL), stage.uniform(5.0, 7.5), stage.uniform(0.36, 0.46)
    reach = stage.uniform(0.9, 1.7) * (1 if x < 0 else -1)
    _slim_shadow(stage, x, z, thick / 2, height)

    def draw() -> None:
        post = Cutout(stage, (x, KERB, z), POLE)
        post.post(height, thick, color)
        post.post(1.3, thick * 1.35, scaled(color, 0.9))
        post.polygon([(0, height - 0.35), (reach, height + 0.2), (reach, height + 0.45), (0, height)], color)
        head = [(0.7, 0.12), (1.4, 0.34), (1.35, 0.52), (0.75, 0.42)]
        post.polygon([(reach * px, height + py) for px, py in head], scaled(color, 0.8))
        if stage.light.lamps:
            at, size = post.at(reach * 1.05, height + 0.2), 0.16 * post.scale
            stage.canvas.disc(at, (size * 1.6, size * 0.7), (255, 226, 168))
            stage.glow(at, 4.5 * size, (255, 196, 110))

    end = x + 1.4 * reach
    stage.place((min(x, end), max(x, end)), (z, z), draw)


def bollard(stage: Stage, x: float, z: float, color: Color) -> None:
    """A waist-high post with a white band."""
    _slim_shadow(stage, x, z, 0.12, 1.1)

    def draw() -> None:
        post = Cutout(stage, (x, KERB, z), POLE)
        post.post(1.1, 0.3, color)
        post.box(-0.14, 0.84, 0.14, 1.0, WHITE)

    stage.place((x - 0.15, x + 0.15), (z, z), draw)


def traffic_light(stage: Stage, x: float, z: float) -> None:
    """Three lamps in a box with a white border, on a post."""
    burning, height = stage.one_of((0, 1, 2)), stage.uniform(2.5, 3.1)
    _slim_shadow(stage, x, z, 0.1, height)

    def draw() -> None:
        Cutout(stage, (x, KERB, z), POLE).post(height, 0.32, METAL[1])
        box = Cutout(stage, (x, KERB + height - 0.2, z), SIGN)
        box.box(-0.36, -0.09, 0.36, 1.39, WHITE)
        box.box(-0.27, 0.0, 0.27, 1.3, BLACK)
        for lamp, color in enumerate(SIGNAL):
            middle = (0.0, 0.25 + 0.4 * lamp)
            if lamp != burning:
                box.disc(middle, (0.16, 0.16), scaled(color, 0.3))
                continue
            size = 0.16 * box.scale
            stage.canvas.disc(box.at(*middle), (size, size), color)
            stage.glow(box.at(*middle), 2.5 * size, scaled(color, 0.8 if stage.light.lamps else 0.35))

    stage.place((x - 0.36, x + 0.36), (z, z), draw)


def sign(stage: Stage, x: float, z: float) -> None:
    """A traffic sign on a post: a ring, a disc, a triangle, a chevron, a plate, or a board on two posts."""
    kind = stage.one_of(("ring", "ring", "disc", "triangle", "triangle", "chevron", "plate", "board"))
    size, height = stage.uniform(0.48, 0.62), stage.uniform(2.2, 2.7)
    plate = pick(stage.rng, (BLUE, GREEN, WHITE, YELLOW, BROWN))
    words = [stage.uniform(0.4, 0.9) for _ in range(4)]
    half = 1.25 if kind == "board" else size * (1.3 if kind == "chevron" else 1.0)
    _slim_shadow(stage, x, z, 0.06, height)
    stage.shadow((x - half, x + half), (z - 0.04, z + 0.04), height + size, lift=height - size)

    def draw() -> None:
        for offset in (-0.7, 0.7) if kind == "board" else (0.0,):
            post = Cutout(stage, (x + offset, KERB, z), POLE)
            post.post(height + 0.2, 0.28, METAL[0])
        face = Cutout(stage, (x, KERB + height, z), SIGN, size)
        if kind == "board":
            _lettering(face, 1.25 / size, 0.8 / size, plate, words)
        elif kind == "plate":
            _lettering(face, 0.85, 1.2, plate, words)
        else:
            _SHAPES[kind](face)

    stage.place((x - half, x + half), (z, z), draw)


def _ring(face: Cutout) -> None:
    """A speed limit."""
    face.regular(16, 1.0, RED)
    face.regular(16, 0.72, WHITE)
    face.box(-0.5, -0.36, -0.08, 0.36, BLACK)
    face.box(0.08, -0.36, 0.5, 0.36, BLACK)
    face.box(0.2, -0.2, 0.38, 0.2, WHITE)


def _disc(face: Cutout) -> None:
    """A white arrow on blue."""
    face.regular(16, 1.0, WHITE)
    face.regular(16, 0.9, BLUE)
    face.box(-0.15, -0.6, 0.15, 0.2, WHITE)
    face.polygon([(-0.45, 0.2), (0.45, 0.2), (0.0, 0.7)], WHITE)


def _triangle(face: Cutout) -> None:
    """A warning."""
    face.regular(3, 1.25, RED)
    face.regular(3, 0.8, WHITE)
    face.box(-0.1, -0.2, 0.1, 0.4, BLACK)


def _chevron(face: Cutout) -> None:
    """A sharp bend."""
    face.box(-1.3, -0.6, 1.3, 0.6, BLACK)
    for x in (-0.9, -0.1, 0.7):
        arrow = ((-0.3, 0.5), (0.0, 0.5), (0.4, 0.0), (0.0, -0.5), (-0.3, -0.5), (0.1, 0.0))
        face.polygon([(x + px, py) for px, py in arrow], WHITE)


_SHAPES = {"ring": _ring, "disc": _disc, "triangle": _triangle, "chevron": _chevron}


def _lettering(face: Cutout, wide: float, tall: float, plate: Color, words: list[float]) -> None:
    """A bordered rectangle with lines of writing, each a share of its width long."""
    written = BLACK if max(plate[1], plate[2]) > 185 else WHITE
    face.box(-wide, -tall, wide, tall, written)
    face.box(-wide * 0.94, -tall * 0.92, wide * 0.94, tall * 0.92, plate)
    for line, word in enumerate(words):
        top = tall * (0.72 - 0.42 * line)
        face.box(-wide * 0.8, top - tall * 0.2, wide * (1.6 * word - 0.8), top, written)


def hanging_sign(stage: Stage, wall: float, z: float) -> None:
    """A shop's sign that sticks out from the wall towards the street."""
    color = pick(stage.rng, (RED, BLUE, GREEN, WHITE, YELLOW, BLACK))
    bottom, wide, tall = stage.uniform(2.7, 3.3), stage.uniform(0.35, 0.5), stage.uniform(0.35, 0.55)
    words = [stage.uniform(0.5, 0.9) for _ in range(4)]
    x = wall + (0.15 + wide) * (1 if wall < 0 else -1)

    def draw() -> None:
        _lettering(Cutout(stage, (x, bottom + tall, z), SIGN), wide, tall, color, words)

    stage.place((x - wide, x + wide), (z, z), draw)


def litter_bin(stage: Stage, x: float, z: float) -> None:
    """A wheeled bin. None of CamVid's eleven classes: void."""
    color = pick(stage.rng, ((44, 70, 50), (50, 52, 58), (40, 56, 96), (104, 70, 48)))
    stage.shadow((x - 0.32, x + 0.32), (z, z + 0.6), 1.1)

    def draw() -> None:
        cutout = Cutout(stage, (x, KERB, z), VOID)
        cutout.box(-0.3, 0.0, 0.3, 1.0, scaled(color, 0.9))
        cutout.box(-0.36, 0.95, 0.36, 1.15, scaled(color, 1.25))

    stage.place((x - 0.36, x + 0.36), (z, z), draw)
