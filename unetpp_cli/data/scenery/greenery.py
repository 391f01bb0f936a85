"""Trees and hedges: irregular textured crowns on trunks. Used by `plan`."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from unetpp_cli.data.scenery.canvas import TREE
from unetpp_cli.data.scenery.light import Color, pick, scaled
from unetpp_cli.data.scenery.stage import Cutout, Stage, noise, tiled
from unetpp_cli.data.scenery.view import Vec

LEAVES: tuple[Color, ...] = ((74, 104, 48), (92, 116, 54), (62, 90, 52), (112, 118, 56), (134, 112, 50))
BARK: tuple[Color, ...] = ((92, 76, 60), (78, 68, 58), (112, 98, 82))

CROWN = 192
"""Side of a stored crown in pixels."""


def tree(stage: Stage, foot: Vec, height: float, spread: float) -> None:
    """Plants a tree of this height and width of crown, in metres."""
    x, y, z = foot
    half, reach = spread / 2, spread * 0.36
    bark, clear = pick(stage.rng, BARK), height * stage.uniform(0.22, 0.36)  # trunk below the crown
    thick = 0.055 * height * stage.uniform(0.7, 1.1)
    stage.shadow((x - thick / 2, x + thick / 2), (z - thick / 2, z + thick / 2), clear)
    stage.shadow((x - reach, x + reach), (z - reach, z + reach), height, lift=clear)
    if not stage.camera.sees((x - half, y, z), (x + half, y + height, z)):
        return
    scale = stage.camera.scale(z)
    crown = _leaves(stage, z, (round(spread * scale), round((height - clear) * scale)))

    def draw() -> None:
        cutout = Cutout(stage, foot, TREE)
        cutout.post(clear * 1.5, thick, bark)
        stage.canvas.sprite(crown, cutout.at(-half, height), TREE)

    stage.place((x - half, x + half), (z, z), draw)


def hedge(stage: Stage, x: float, near: float, far: float, height: float) -> None:
    """Plants a clipped hedge along the pavement, from z = near to z = far."""
    scale = min(20.0, max(4.0, stage.camera.scale(near)))
    size = (round((far - near) * scale), round(height * scale))
    leaves = _leaves(stage, near, size, clipped=True).convert("RGB")
    foot = ((x, 0.0, near), (x, 0.0, far))
    stage.place((x, x), (near, far), lambda: stage.canvas.wall(stage.camera, leaves, foot, height, TREE))


def _leaves(stage: Stage, z: float, size: tuple[int, int], *, clipped: bool = False) -> Image.Image:
    """A lit crown (or, clipped, a full rectangle of leaves) as an RGBA picture of this width and height."""
    crown = stage.one_of(_crowns())
    if stage.light.direction[0] < 0:  # its lit side is towards the sun
        crown = crown.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if clipped:
        crown = crown.crop((CROWN // 4, CROWN // 4, 3 * CROWN // 4, 3 * CROWN // 4))
    leaves = crown.resize((max(4, size[0]), max(4, size[1])), Image.Resampling.NEAREST)
    green, tint = pick(stage.rng, LEAVES), stage.light.tint(z)
    dark, bright = np.asarray(tint(scaled(green, 0.2))), np.asarray(tint(scaled(green, 1.9)))
    ramp = np.full((256, 4), 255.0)
    ramp[:, :3] = (dark + np.arange(256)[:, None] / 255.0 * (bright - dark)) * (1.04, 1.0, 0.92)
    ramp[0, 3] = 0.0  # brightness 0 stands for no leaf
    leaves.putpalette(np.clip(ramp, 0, 255).astype(np.uint8).tobytes(), "RGBA")
    return leaves.convert("RGBA")


@functools.cache
def _crowns() -> tuple[Image.Image, ...]:
    """Crowns of no particular tree, CROWN x CROWN, mode P: 0 where the background shows, else brightness.

    Lumps of leaves lit from above and from the right, with gaps, and more irregular towards the rim.
    """
    rng = np.random.default_rng(7)
    across = np.linspace(-1, 1, CROWN, dtype=np.float32)[None, :]
    down = np.linspace(-1, 1, CROWN, dtype=np.float32)[:, None]
    radius = np.sqrt(across**2 + down**2)
    crowns = []
    for _ in range(16):
        lumps = tiled(noise(rng), rng, CROWN, CROWN)
        speckle = rng.random((CROWN, CROWN), dtype=np.float32) - 0.5
        slope = np.roll(lumps, -1, 0) - np.roll(lumps, 1, 0)
        slope += 0.7 * (np.roll(lumps, 1, 1) - np.roll(lumps, -1, 1))
        bright = 0.46 + 1.4 * np.clip(slope, -0.16, 0.16) + 0.2 * speckle + 0.14 * lumps
        bright += 0.08 * across - 0.1 * down
        leafy = (0.84 - radius + 0.34 * lumps + 0.14 * speckle > 0) & (
            (lumps + 0.6 * speckle > -0.72) | (radius < 0.35)
        )
        values = np.where(leafy, np.clip(255 * bright, 1, 255), 0).astype(np.uint8)
        crown = Image.new("P", (CROWN, CROWN))
        crown.frombytes(values.tobytes())
        crowns.append(crown)
    return tuple(crowns)
