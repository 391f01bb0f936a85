"""The street's plan and its ground: road, markings, kerbs, pavements, grass. Used by `scene` and `plan`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from unetpp_cli.data.scenery.canvas import PAVEMENT, ROAD, SUPERSAMPLING, TREE, pixels
from unetpp_cli.data.scenery.light import UP, Color, pick, scaled
from unetpp_cli.data.scenery.stage import TILE, Floats, Stage
from unetpp_cli.data.scenery.view import FAR, KERB, Camera


@dataclass(frozen=True)
class Side:
    """One side of the street; lengths in metres.

    Attributes:
        sign: -1 on the left, 1 on the right.
        kerb: x of the kerb.
        edge: x of the pavement's far edge.
        parking: whether there is room for parked cars along the kerb.
        mouth: from which z to which z a side street opens, if one does.
    """

    sign: int
    kerb: float
    edge: float
    parking: bool
    mouth: tuple[float, float] | None


@dataclass(frozen=True)
class Street:
    """The plan of the ground. We drive on the left, our lane around x = 0.

    Attributes:
        left, right: the two sides.
        middle: x of the dashed line, in metres.
        crossing: z of a zebra crossing, if there is one.
        edge_lines: whether yellow lines run along the kerbs.
        asphalt, paving, grass: colours.
        slab: length of a paving slab in metres, 0 for a pavement without joints.
    """

    left: Side
    right: Side
    middle: float
    crossing: float | None
    edge_lines: bool
    asphalt: Color
    paving: Color
    grass: Color
    slab: float


def lay_out(stage: Stage) -> Street:
    """A street like many."""
    uniform = stage.uniform
    lane = uniform(2.9, 3.3)
    sides = []
    for sign, inner in ((-1, -lane / 2 - 0.2), (1, 1.5 * lane + 0.2)):
        parking = stage.chance(0.5)
        kerb = inner + sign * (2.1 if parking else 0.0)
        start = uniform(16, 45)
        mouth = (start, start + uniform(6, 8)) if stage.chance(0.45) else None
        sides.append(Side(sign, kerb, kerb + sign * uniform(2.2, 3.8), parking, mouth))
    grey, warm = uniform(74, 112), uniform(-4, 5)
    return Street(
        left=sides[0],
        right=sides[1],
        middle=lane / 2,
        crossing=uniform(10.5, 24) if stage.chance(0.25) else None,
        edge_lines=stage.chance(0.35),
        asphalt=(grey + warm, grey, grey - warm + 3),
        paving=pick(stage.rng, ((150, 142, 132), (134, 130, 128), (164, 150, 136), (122, 118, 116))),
        grass=pick(stage.rng, ((88, 112, 56), (104, 116, 60))),
        slab=uniform(0.5, 0.9) if stage.chance(0.7) else 0.0,
    )


# Materials of the ground, by index, and their labels.
_ASPHALT, _PAINT, _YELLOW, _PAVING, _KERB_TOP, _KERB_FACE, _GRASS = range(7)
_LABELS = np.asarray([ROAD, ROAD, ROAD, PAVEMENT, PAVEMENT, PAVEMENT, TREE], np.uint8)


def paint_ground(stage: Stage, street: Street) -> None:
    """Casts a ray through every pixel below the horizon and paints what it meets."""
    camera, light = stage.camera, stage.light
    first = int(camera.horizon + camera.scale(FAR) * camera.eye)
    rows = np.arange(first, camera.height, dtype=np.float32) + 0.5
    columns = np.arange(camera.width, dtype=np.float32) + 0.5
    z = (camera.focal * camera.eye / (rows - camera.horizon))[:, None]  # (rows, 1)
    x = (columns - camera.centre) * (z / camera.focal) - camera.bend * z * z  # (rows, columns)
    material = _materials(street, camera, x, z)

    size = (camera.width, camera.height)
    sunless, dim = (
        np.asarray(layer.resize(size, Image.Resampling.BILINEAR), np.float32)[first:] / 255.0
        for layer in (stage.sunless, stage.dim)
    )
    clear = light.clear(z[:, 0])[:, None]  # (rows, 1)
    # Grain is made at the final resolution: what is finer would only blur.
    coarse = slice(None, None, SUPERSAMPLING)
    grain = _grain(stage, street, material[coarse, coarse], x[coarse, coarse], z[coarse])
    grain = np.asarray(Image.fromarray(grain).resize(material.shape[::-1], Image.Resampling.BILINEAR))
    grain = grain * (1.0 - dim) * clear
    colors = _colors(street)
    ground = np.empty((*x.shape, 3), np.uint8)
    for channel, (open_sky, sunlit) in enumerate(zip(light.ambient, light.strength(UP), strict=True)):
        bright = (sunlit - (sunlit - open_sky) * sunless) * grain
        air = np.float32(light.horizon[channel]) * (1.0 - clear)
        ground[..., channel] = pixels(colors[:, channel].take(material) * bright + air)
    stage.canvas.image.paste(Image.fromarray(ground), (0, first))
    stage.canvas.labels.paste(Image.fromarray(_LABELS[material]), (0, first))


def _materials(street: Street, camera: Camera, x: Floats, z: Floats) -> npt.NDArray[np.uint8]:
    """Which material each ground pixel shows: (rows, columns) from x (rows, columns) and z (rows, 1)."""
    left, right = street.left, street.right
    on_left = x < street.middle
    out = np.where(on_left, left.kerb - x, x - right.kerb)  # metres beyond the kerb; negative on the road
    # The kerb's upright face hides some ground: rays that meet it would have reached the ground behind it.
    face = np.where(on_left, -left.kerb, right.kerb) * (KERB / (camera.eye - KERB))
    kind = np.full(x.shape, _ASPHALT, np.uint8)
    kind[out > 0] = _KERB_FACE
    kind[out > face] = _KERB_TOP
    kind[out > face + 0.16] = _PAVING
    kind[(x < left.edge) | (x > right.edge)] = _GRASS
    for side in (left, right):
        if side.mouth:
            across = (z > side.mouth[0]) & (z < side.mouth[1])
            kind[across & ((x - side.kerb) * side.sign > 0)] = _ASPHALT
            kind[across & (np.abs((x - side.kerb) * side.sign + 0.1) < 0.12) & (z % 1.0 < 0.6)] = _PAINT
    road = kind == _ASPHALT
    kind[road & (np.abs(x - street.middle) < 0.07) & (z % 6.0 < 3.2)] = _PAINT
    if street.edge_lines:
        kind[road & ((np.abs(out + 0.3) < 0.05) | (np.abs(out + 0.5) < 0.05))] = _YELLOW
    if street.crossing is not None:
        stripes = (np.abs(z - street.crossing) < 1.6) & ((x - left.kerb) % 1.2 < 0.6)
        stop_line = (np.abs(z - (street.crossing - 2.6)) < 0.16) & on_left
        kind[road & (stripes | stop_line) & (out < -0.2)] = _PAINT
    return kind


def _grain(stage: Stage, street: Street, material: npt.NDArray[np.uint8], x: Floats, z: Floats) -> Floats:
    """Brightness of the ground, around 1: stains, chippings, wheel tracks, patches, joints of slabs."""

    def sample(tile: Floats, across: float, along: float) -> Floats:
        """The noise tile spread over the ground, so many of its pixels per metre."""
        rows, columns = (z * along).astype(np.int32), (x * across).astype(np.int32)
        spread: Floats = tile[rows & (TILE - 1), columns & (TILE - 1)]
        return spread

    chippings = sample(stage.speckle, 48.0, 24.0)
    grain = 1.0 + 0.22 * sample(stage.lumps, 12.0, 4.0) + 0.16 * chippings
    for lane in (0.0, 2.0 * street.middle):  # ours, and the oncoming one beyond the middle line
        wheel = np.abs(np.abs(x - lane) - 0.8)
        grain -= (material <= _YELLOW) * 0.08 * np.clip(1.0 - wheel / 0.5, 0.0, 1.0)
    uniform = stage.uniform
    for _ in range(3):
        near, length, shade = uniform(4, 30), uniform(2, 8), uniform(0.85, 1.1)
        middle, wide = uniform(street.left.kerb, street.right.kerb), uniform(0.3, 1.0)
        patch = (z > near) & (z < near + length) & (np.abs(x - middle) < wide)
        grain[patch & (material == _ASPHALT)] *= shade
    if street.slab:
        joint = ((x % street.slab) < 0.045) | ((z % street.slab) < 0.05)
        grain -= (material == _PAVING) * joint * np.clip(1.4 - z / 16.0, 0.0, 1.0) * 0.22
    grain += (material == _GRASS) * 0.7 * chippings
    return grain.astype(np.float32, copy=False)


def _colors(street: Street) -> Floats:
    """The colour of each material in plain white light, (materials, 3)."""
    kerb = scaled(street.paving, 1.12)
    white, yellow = (214.0, 214.0, 206.0), (196.0, 168.0, 74.0)
    materials = (street.asphalt, white, yellow, street.paving, kerb, scaled(kerb, 0.72), street.grass)
    return np.asarray(materials, np.float32)
