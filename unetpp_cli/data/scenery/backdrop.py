"""Sky, and the far end of the street in the haze. Used by `scene`."""

from __future__ import annotations

import numpy as np
from PIL import Image

from unetpp_cli.data.scenery.canvas import BUILDING, SUPERSAMPLING, TREE, pixels
from unetpp_cli.data.scenery.light import pick
from unetpp_cli.data.scenery.stage import TILE, Stage
from unetpp_cli.data.scenery.view import FAR


def paint_sky(stage: Stage) -> None:
    """A gradient, clouds that flatten towards the horizon, and the glow around a low sun."""
    camera, light = stage.camera, stage.light
    # A sky has no fine detail: it is made at the final size and enlarged.
    width, height = camera.width // SUPERSAMPLING, int(camera.horizon) // SUPERSAMPLING + 2
    rise = np.linspace(1.0, 0.0, height, dtype=np.float32)[
        :, None
    ]  # (rows, 1): 1 at the top, 0 at the horizon
    zenith, horizon = (np.asarray(color, np.float32) for color in (light.zenith, light.horizon))
    sky = horizon + (rise * (1.6 - 0.6 * rise))[..., None] * (zenith - horizon)  # (rows, 1, 3)

    # Clouds hang in a layer overhead: towards the horizon they are thin and close together.
    depth = 52.0 / (rise + 0.3)
    aside = (np.arange(width) / width - 0.5) * depth * 2.7  # (rows, columns)
    field = stage.lumps[depth.astype(np.intp) % TILE, aside.astype(np.intp) % TILE]
    cover = np.clip((field + 1.1 * light.cloud - 0.45) * 2.6, 0.0, 1.0) * (0.35 + 0.65 * rise)
    lit = np.asarray(light.strength((0.0, 1.0, -0.4)), np.float32)
    cloud = 0.75 * np.clip(236.0 * lit, 0, 250) + 0.25 * horizon
    sky = sky + cover[..., None] * (cloud * (0.9 + 0.16 * field[..., None]) - sky)

    dx, dy, dz = light.direction
    if dz > 0.2 and dy < 0.5:  # the sun is low and before us
        column = (camera.centre + dx / dz * camera.focal) / SUPERSAMPLING
        row = (camera.horizon - dy / dz * camera.focal) / SUPERSAMPLING
        away = (np.arange(width) - column) ** 2 + (np.arange(height)[:, None] - row) ** 2
        sky += (90.0 / (1.0 + away / (0.2 * width) ** 2))[..., None] * np.asarray(light.sun, np.float32)
    size = (camera.width, height * SUPERSAMPLING)
    stage.canvas.image.paste(Image.fromarray(pixels(sky)).resize(size, Image.Resampling.BILINEAR), (0, 0))


def paint_far_end(stage: Stage) -> None:
    """Roofs and tree tops in the haze, so that no sky touches the ground."""
    camera, canvas, uniform = stage.camera, stage.canvas, stage.uniform
    scale, tint = camera.scale(FAR), stage.light.tint(FAR)
    ground = camera.horizon + camera.eye * scale + 1
    left = -10.0
    while left < camera.width:
        width, top = uniform(7, 18) * scale, ground - uniform(5, 12) * scale
        right = left + width
        if stage.chance(0.55):
            roof = top - uniform(0, 3) * scale
            outline = [(left, ground), (left, top), (left + width / 2, roof), (right, top), (right, ground)]
            wall = pick(stage.rng, ((130, 105, 92), (160, 152, 140), (110, 112, 118)))
            canvas.polygon(outline, tint(wall), BUILDING)
        else:
            leaves = pick(stage.rng, ((62, 84, 48), (84, 92, 52)))
            canvas.disc((left + width / 2, ground), (width * 0.7, ground - top), tint(leaves), TREE)
        left += width * 0.8
