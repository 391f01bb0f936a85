"""One street scene from one seed: set the stage, have it filled and drawn, photograph it. Used by `demo`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from unetpp_cli.data.classes import VOID
from unetpp_cli.data.scenery import backdrop, ground, plan
from unetpp_cli.data.scenery.canvas import SUPERSAMPLING, Canvas, pixels
from unetpp_cli.data.scenery.light import UP, pick, scaled, time_of_day
from unetpp_cli.data.scenery.stage import TILE, Floats, Stage, noise
from unetpp_cli.data.scenery.vehicles import PAINT
from unetpp_cli.data.scenery.view import Camera

Bytes = npt.NDArray[np.uint8]


def render(seed: int, width: int, height: int) -> tuple[Bytes, Bytes]:
    """Draws scene number `seed`.

    Returns:
        The photograph, (height, width, 3) uint8 RGB, and its mask, (height, width) uint8: indices of
        `CAMVID11`, and `VOID` on our own bonnet and on bins.
    """
    stage = _stage(np.random.default_rng(seed), width, height)
    street, district = ground.lay_out(stage), stage.one_of(plan.DISTRICTS)
    for side in (street.left, street.right):
        plan.build(stage, district, side)
        plan.furnish(stage, street, district, side)
    plan.drive(stage, street)

    backdrop.paint_sky(stage)
    backdrop.paint_far_end(stage)
    soft = ImageFilter.BoxBlur(0.8)
    stage.sunless, stage.dim = stage.sunless.filter(soft), stage.dim.filter(soft)
    ground.paint_ground(stage, street)
    stage.draw()
    if stage.chance(0.45):
        _bonnet(stage)
    mask = np.asarray(stage.canvas.labels)[::SUPERSAMPLING, ::SUPERSAMPLING].copy()
    return _photograph(stage, width, height), mask


def _stage(rng: np.random.Generator, width: int, height: int) -> Stage:
    """An empty stage: the light, and the camera a little different in every car."""
    light = time_of_day(rng)
    focal, centre, horizon, eye, bend = (float(value) for value in rng.random(5))
    across, down = width * SUPERSAMPLING, height * SUPERSAMPLING
    camera = Camera(
        width=across,
        height=down,
        focal=across * (1.12 + 0.14 * focal),
        centre=across * (0.4 + 0.2 * centre),
        horizon=down * (0.45 + 0.08 * horizon),
        eye=1.3 + 0.3 * eye,
        bend=0.0044 * (bend - 0.5),
    )
    shades = Image.new("L", (width, height)), Image.new("L", (width, height))
    speckle = rng.random((TILE, TILE), dtype=np.float32) - 0.5
    return Stage(rng, camera, light, Canvas(across, down), noise(rng), speckle, *shades)


def _bonnet(stage: Stage) -> None:
    """Our own car at the lower edge: void, and it mirrors the sky."""
    width, height = stage.camera.width, stage.camera.height
    paint, rise, tilt = pick(stage.rng, PAINT), stage.uniform(0.04, 0.085) * height, stage.uniform(-0.3, 0.3)
    tint = stage.light.tint(1.0, UP)
    across = np.linspace(0.0, 1.0, 25)
    bow = (0.35 + 0.65 * (1.0 - np.abs(2 * across - 1) ** 3)) * (1.0 + tilt * (across - 0.5))
    for layer, tone, mirrored in ((1.0, 0.5, 0.1), (0.88, 1.0, 0.3), (0.65, 0.85, 0.1), (0.4, 0.7, 0.1)):
        edge = zip((across * width).tolist(), (height - layer * rise * bow).tolist(), strict=True)
        own, sky = scaled(tint(scaled(paint, tone)), 1.0 - mirrored), scaled(stage.light.horizon, mirrored)
        color = (own[0] + sky[0], own[1] + sky[1], own[2] + sky[2])
        stage.canvas.polygon([*edge, (width, height), (0.0, height)], color, VOID)


def _photograph(stage: Stage, width: int, height: int) -> Bytes:
    """What a camera makes of the canvas: lens blur, halos of lamps, vignette, exposure, sensor noise."""
    image = stage.canvas.image.reduce(SUPERSAMPLING)
    blurred = image.filter(ImageFilter.GaussianBlur(stage.uniform(0.25, 0.5)))
    light = np.asarray(blurred, np.float32) + _halos(stage, width, height)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    exposure, falloff = stage.uniform(0.92, 1.16), stage.uniform(0.06, 0.16)
    light *= (exposure * (1.0 - falloff * (x * x + y * y)))[..., None]
    grain = 14.0 if stage.light.lamps else 8.0
    return pixels(light + grain * (stage.rng.random(light.shape, dtype=np.float32) - 0.5))


def _halos(stage: Stage, width: int, height: int) -> Floats:
    """Light around the lamps, (height, width, 3), to be added to the picture; (1, 1, 3) if there are none."""
    shrink = 2 * SUPERSAMPLING  # a halo has no detail
    if not stage.glows:
        return np.zeros((1, 1, 3), np.float32)
    halos = Image.new("RGB", (-(-stage.camera.width // shrink), -(-stage.camera.height // shrink)))
    draw = ImageDraw.Draw(halos)
    for (x, y), radius, color in stage.glows:
        x, y, r = x / shrink, y / shrink, max(0.5, radius / shrink / 2)
        red, green, blue = scaled(color, 0.6)
        draw.ellipse((x - r, y - r, x + r, y + r), (int(red), int(green), int(blue)))
    halos = halos.filter(ImageFilter.GaussianBlur(width / 80))
    return np.asarray(halos.resize((width, height), Image.Resampling.BILINEAR), np.float32)
