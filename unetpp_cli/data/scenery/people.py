"""Pedestrians and cyclists, as jointed figures. Used by `plan`."""

from __future__ import annotations

from dataclasses import dataclass

from unetpp_cli.data.scenery.canvas import BICYCLIST, PEDESTRIAN
from unetpp_cli.data.scenery.light import Color, pick, scaled
from unetpp_cli.data.scenery.stage import Cutout, Stage
from unetpp_cli.data.scenery.view import Pixel, Vec

COATS: tuple[Color, ...] = (
    (44, 48, 60),
    (112, 44, 50),
    (176, 50, 50),
    (62, 96, 158),
    (200, 192, 178),
    (80, 112, 70),
    (206, 160, 60),
    (150, 154, 164),
    (120, 74, 130),
)
VESTS: tuple[Color, ...] = ((214, 226, 70), (214, 226, 70), (214, 92, 40))
TROUSERS: tuple[Color, ...] = ((40, 44, 58), (32, 32, 34), (66, 74, 96), (96, 86, 72))
SKIN: tuple[Color, ...] = ((214, 172, 144), (176, 130, 100), (112, 78, 60))
HAIR: tuple[Color, ...] = ((44, 34, 28), (86, 62, 42), (150, 122, 82), (120, 118, 116), (30, 30, 32))
HELMETS: tuple[Color, ...] = ((220, 220, 216), (40, 42, 48), (170, 40, 40), (50, 44, 38))
FRAMES: tuple[Color, ...] = ((150, 36, 36), (40, 60, 110), (60, 62, 66), (44, 96, 70))
SHOES: Color = (30, 28, 28)
TYRE: Color = (28, 28, 30)


@dataclass(frozen=True)
class _Colors:
    coat: Color
    legs: Color
    skin: Color
    head: Color
    frame: Color = SHOES


def pedestrian(stage: Stage, foot: Vec) -> None:
    """Someone who stands or walks."""
    rng, uniform = stage.rng, stage.uniform
    colors = _Colors(pick(rng, COATS), pick(rng, TROUSERS), pick(rng, SKIN), pick(rng, HAIR))
    size, stride, swing = uniform(0.9, 1.08), uniform(0.05, 0.32), uniform(-0.12, 0.12)
    wide, hem = uniform(0.4, 0.52), 0.62 if stage.chance(0.3) else 0.84
    profile, away, bag = stage.chance(0.4), stage.chance(0.45), stage.chance(0.35)
    if profile:
        wide *= 0.72
    else:
        stride *= 0.45
    stage.shadow((foot[0] - 0.22, foot[0] + 0.22), (foot[2] - 0.15, foot[2] + 0.15), 1.7 * size)

    def draw() -> None:
        figure, coat, half = Cutout(stage, foot, PEDESTRIAN, size), colors.coat, wide / 2
        for step, tone in ((stride, 0.75), (-stride, 1.0)):
            knee, cloth = (step * 0.6 + 0.03, 0.46), scaled(colors.legs, tone)
            figure.limb((step * 0.2, 0.88), knee, 0.2, 0.16, cloth)
            figure.limb(knee, (step, 0.05), 0.16, 0.11, cloth)
            figure.limb((step - 0.05, 0.04), (step + 0.1, 0.04), 0.09, 0.07, SHOES)
        figure.limb((-half - 0.03, 1.38), (-half - 0.07 - swing, 0.8), 0.13, 0.1, scaled(coat, 0.8))
        right = [(0.84 * half, hem), (half, 1.36), (0.56 * half, 1.48)]
        figure.polygon([*right, *[(-x, y) for x, y in reversed(right)]], coat)
        lit = 0.1 * figure.sunny
        figure.box(lit - 0.07, hem + 0.03, lit + 0.07, 1.4, scaled(coat, 1.22))
        hand = (half + 0.06 + swing, 0.8)
        figure.limb((half + 0.02, 1.38), hand, 0.13, 0.1, scaled(coat, 1.05))
        figure.disc(hand, (0.05, 0.06), colors.skin)
        if bag:
            figure.box(half, 0.5, half + 0.24, 0.82, colors.head)
        figure.limb((0.0, 1.44), (0.0, 1.56), 0.13, 0.13, scaled(colors.skin, 0.85))
        figure.disc((0.0, 1.64), (0.11, 0.14), colors.head if away else colors.skin)
        if not away:
            figure.disc((0.0, 1.72), (0.115, 0.08), colors.head)

    stage.place((foot[0] - 0.3, foot[0] + 0.3), (foot[2], foot[2]), draw)


def cyclist(stage: Stage, x: float, z: float, *, across: bool, away: bool) -> None:
    """A bicycle and its rider on the road.

    Args:
        across: riding across our view, to the right if `away`; otherwise along the street.
        away: seen from behind.
    """
    rng = stage.rng
    coat = pick(rng, COATS + VESTS)
    colors = _Colors(coat, pick(rng, TROUSERS), pick(rng, SKIN), pick(rng, HELMETS), pick(rng, FRAMES))
    size, pedal = stage.uniform(1.0, 1.12), stage.uniform(-0.12, 0.12)
    half = 0.9 if across else 0.3
    stage.shadow((x - half, x + half), (z - 0.2, z + 0.2), 1.5 * size, lift=0.3)
    stage.shadow((x - half, x + half), (z - 0.05, z + 0.05), 0.3)

    def draw() -> None:
        figure = Cutout(stage, (x, 0.0, z), BICYCLIST, size)
        if across:
            _rider_from_the_side(figure, 1.0 if away else -1.0, pedal, colors)
        else:
            _rider_from_the_end(figure, away, pedal, colors)

    stage.place((x - half, x + half), (z, z), draw)


def _rider_from_the_side(figure: Cutout, way: float, pedal: float, colors: _Colors) -> None:
    """`way` is 1 when riding to the right, -1 to the left."""

    def limb(a: Pixel, b: Pixel, start: float, end: float, color: Color) -> None:
        figure.limb((way * a[0], a[1]), (way * b[0], b[1]), start, end, color)

    for wheel in (-0.52, 0.54):
        hub, scale = figure.at(way * wheel, 0.35), figure.scale
        figure.canvas.ring(hub, 0.36 * scale, 0.07 * scale, figure.tint(TYRE), figure.label)
    rear, crank, seat, steer, front = (-0.52, 0.35), (-0.05, 0.3), (-0.2, 0.86), (0.4, 0.88), (0.54, 0.35)
    figure.canvas.mark([figure.at(way * x, y) for x, y in (crank, seat, steer)], figure.label)
    for a, b in ((rear, crank), (rear, seat), (crank, seat), (crank, steer), (seat, steer), (steer, front)):
        limb(a, b, 0.06, 0.06, colors.frame)
    hip, shoulder, elbow = (-0.22, 0.98), (0.14, 1.42), (0.34, 1.12)
    for turn, tone in ((-1.0, 0.7), (1.0, 1.0)):
        knee, foot = (
            (0.18 + 0.08 * turn, 0.68 + 0.5 * turn * pedal),
            (0.12 * turn - 0.05, 0.28 + turn * pedal),
        )
        limb(hip, knee, 0.2, 0.15, scaled(colors.legs, tone))
        limb(knee, foot, 0.14, 0.1, scaled(colors.legs, tone))
    limb(hip, shoulder, 0.3, 0.36, colors.coat)
    limb((-0.16, 1.12), (0.06, 1.42), 0.1, 0.12, scaled(colors.coat, 1.25))
    limb(shoulder, elbow, 0.13, 0.11, scaled(colors.coat, 0.9))
    limb(elbow, (0.44, 0.95), 0.1, 0.09, colors.skin)
    figure.disc((way * 0.26, 1.6), (0.11, 0.13), colors.skin)
    figure.disc((way * 0.24, 1.67), (0.14, 0.09), colors.head)


def _rider_from_the_end(figure: Cutout, away: bool, pedal: float, colors: _Colors) -> None:
    figure.limb((0.0, 0.0), (0.0, 0.7), 0.1, 0.1, TYRE)
    figure.limb((0.0, 0.5), (0.0, 1.0), 0.07, 0.07, colors.frame)
    figure.limb((-0.28, 1.02), (0.28, 1.02), 0.06, 0.06, colors.frame)
    for side in (-1.0, 1.0):
        knee, foot = (0.2 * side, 0.62 + 0.4 * side * pedal), (0.13 * side, 0.26 + side * pedal)
        figure.limb((0.1 * side, 0.95), knee, 0.19, 0.15, colors.legs)
        figure.limb(knee, foot, 0.14, 0.1, scaled(colors.legs, 0.85))
        figure.box(foot[0] - 0.05, foot[1] - 0.07, foot[0] + 0.06, foot[1] + 0.01, SHOES)
    right = [(0.17, 0.92), (0.25, 1.36), (0.14, 1.48)]
    figure.polygon([*right, *[(-x, y) for x, y in reversed(right)]], colors.coat)
    figure.box(-0.05, 0.95, 0.09, 1.42, scaled(colors.coat, 1.2))
    for side in (-1.0, 1.0):
        elbow = (0.33 * side, 1.16)
        figure.limb((0.24 * side, 1.38), elbow, 0.12, 0.1, scaled(colors.coat, 0.85))
        figure.limb(elbow, (0.25 * side, 1.02), 0.09, 0.08, colors.skin)
    figure.disc((0.0, 1.62), (0.11, 0.13), colors.head if away else colors.skin)
    figure.disc((0.0, 1.68), (0.14, 0.09), colors.head)
    if away:
        figure.disc((0.0, 0.8), (0.05, 0.04), (210, 30, 30))
