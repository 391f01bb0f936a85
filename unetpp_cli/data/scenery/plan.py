"""Decides what stands where in a street: houses and gardens, kerbs and people, traffic. Used by `scene`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from unetpp_cli.data.scenery import buildings, fences, furniture, greenery, people, vehicles
from unetpp_cli.data.scenery.ground import Side, Street
from unetpp_cli.data.scenery.light import pick
from unetpp_cli.data.scenery.painter import Span
from unetpp_cli.data.scenery.stage import Stage
from unetpp_cli.data.scenery.view import FAR, KERB


@dataclass(frozen=True)
class District:
    """A kind of neighbourhood.

    Attributes:
        green: chance that a lot is a garden, with trees, and not built on.
        styles: of the houses.
        eaves: height of the houses, from, to, in metres.
        setback: largest distance of a front from the pavement, in metres.
        trees: mean distance between street trees, in metres.
    """

    green: float
    styles: tuple[str, ...]
    eaves: tuple[float, float]
    setback: float
    trees: float


DISTRICTS = (
    District(0.36, ("terrace", "terrace", "shop"), (5.2, 8.0), 0.5, 22.0),
    District(0.3, ("shop", "shop", "terrace", "office"), (6.5, 12.0), 0.0, 26.0),
    District(0.56, ("terrace",), (4.6, 6.4), 2.5, 15.0),
    District(0.36, ("office", "office", "shop"), (8.5, 16.0), 1.5, 19.0),
)


def build(stage: Stage, district: District, side: Side) -> None:
    """Fills one side of the street, from near to far, with houses, gardens and its side street."""
    mouth = side.mouth or (math.inf, math.inf)
    z, before = 3.0, None
    while z < 0.8 * FAR:
        if mouth[0] - 3.0 <= z < mouth[1]:
            z, before = mouth[1], None
        end = z + stage.uniform(7, 14)
        if z < mouth[0] < end + 4.0:
            end = mouth[0]
        if stage.chance(district.green):
            _garden(stage, side, z, end)
            before = None
        else:
            before = _house(stage, district, side, (z, end), before)
        z = end


def _house(
    stage: Stage, district: District, side: Side, z: Span, before: buildings.House | None
) -> buildings.House:
    """Builds a house next to the one before it."""
    style = stage.one_of(district.styles)
    pitched = style == "terrace" or (style == "shop" and stage.chance(0.6))
    gable = stage.uniform(2.2, 3.6) if pitched else 0.0
    wall = side.edge + side.sign * stage.uniform(0.0, district.setback)
    height = stage.uniform(*district.eaves)
    hidden = before is not None and before.height >= height and abs(before.wall) <= abs(wall)
    house = buildings.House(side.sign, wall, *z, height, style, gable, exposed=not hidden)
    buildings.build(stage, house)
    if style == "shop" and 10.0 < z[1] < 45.0 and stage.chance(0.6):
        furniture.hanging_sign(stage, wall, stage.uniform(max(z[0], 9.0), z[1]))
    return house


def _garden(stage: Stage, side: Side, near: float, far: float) -> None:
    border = stage.one_of(("hedge", "planks", "planks", "planks", "planks", "railing", "picket", "picket"))
    if border == "hedge":
        greenery.hedge(stage, side.edge, near, far, stage.uniform(1.0, 1.7))
    else:
        fences.fence(stage, side.edge, (near, far), border)
    for row in range(3):  # trees behind one another, so that the garden is closed
        for _ in range(2 if near < 40 else 1):
            x = side.edge + side.sign * (2.5 + 3.5 * row + stage.uniform(-0.8, 0.8))
            z, height = stage.uniform(near, far), stage.uniform(4.0, 8.5)
            greenery.tree(stage, (x, 0.0, z), height, height * stage.uniform(0.6, 0.8))


def furnish(stage: Stage, street: Street, district: District, side: Side) -> None:
    """Trees, lamps, signs, bollards or rails, traffic lights and people on one pavement."""
    uniform, outwards = stage.uniform, side.sign
    kerb, wide = side.kerb + 0.45 * outwards, abs(side.edge - side.kerb)

    def free(z: float) -> bool:
        return side.mouth is None or not side.mouth[0] - 1.0 < z < side.mouth[1] + 1.0

    def row(first: float, last: float, gap: Span, make: Callable[[float], None]) -> None:
        z = first
        while z < last:
            if free(z):
                make(z)
            z += uniform(*gap)

    def street_tree(z: float) -> None:
        height = uniform(4.8, 8.0)
        greenery.tree(stage, (kerb, KERB, z), height, height * uniform(0.55, 0.75))

    if stage.chance(0.75):
        gap = district.trees * uniform(0.8, 1.2)
        row(uniform(11, 11 + gap), 90, (0.8 * gap, 1.2 * gap), street_tree)
    gap = uniform(18, 24)
    row(uniform(9.5, 9.5 + gap), 34, (gap, gap), lambda z: furniture.lamp_post(stage, kerb, z))
    row(uniform(9.5, 18), 26, (12, 26), lambda z: furniture.sign(stage, kerb + outwards * uniform(0, 0.4), z))
    start, protection = uniform(9.5, 16), stage.one_of(("bollards", "rail", "rail", "rail", ""))
    if protection == "bollards":
        color = pick(stage.rng, ((26, 26, 28), (88, 88, 90), (196, 196, 190)))
        row(start, start + 9, (1.8, 1.9), lambda z: furniture.bollard(stage, kerb, z, color))
    elif protection == "rail":
        end = start + uniform(6, 14)
        if side.mouth and start < side.mouth[1]:
            end = min(end, side.mouth[0] - 0.5)
        if end > start + 2.0:
            fences.fence(stage, kerb - 0.15 * outwards, (start, end), "guard")
    if side.mouth and side.mouth[0] < 36 and stage.chance(0.6):
        furniture.traffic_light(stage, kerb, side.mouth[0] - 1.5)
    if street.crossing is not None and free(street.crossing - 2.2):
        furniture.traffic_light(stage, kerb, street.crossing - 2.2)
    if stage.chance(0.4):
        furniture.litter_bin(stage, kerb + outwards * (wide - 0.9), uniform(11, 27))
    for _ in range(stage.one_of((2, 3, 4))):
        x, z = kerb + outwards * uniform(0.1, wide - 0.9), uniform(9.5, 14)
        people.pedestrian(stage, (x, KERB, z))
        if stage.chance(0.3):
            people.pedestrian(stage, (x + 0.62, KERB, z + 0.1))


def drive(stage: Stage, street: Street) -> None:
    """Parked and driving cars, cyclists, and people on the crossing."""
    for side in (street.left, street.right):
        _park(stage, street, side)
        if side.mouth and side.mouth[0] < 40 and stage.chance(0.5):  # coming out of the side street
            x, z = side.kerb + 2.6 * side.sign, (side.mouth[0] + side.mouth[1]) / 2
            heading = -side.sign * math.pi / 2 + stage.uniform(-0.2, 0.2)
            vehicles.vehicle(stage, stage.one_of(vehicles.CARS), x, z, heading, driving=True)

    uniform, oncoming = stage.uniform, 2.0 * street.middle
    taken: list[float] = []  # z of what is near in either lane
    if stage.chance(0.6):
        z = uniform(11, 40)
        vehicles.vehicle(stage, _any_vehicle(stage, z), uniform(-0.3, 0.3), z, 0.0, driving=True)
        taken.append(z)
    z = uniform(10, 32)
    while z < 90:
        if stage.chance(0.7):
            vehicles.vehicle(stage, _any_vehicle(stage, z), oncoming, z, math.pi, driving=True)
            taken.append(z)
        z += uniform(9, 26)

    def clear(z: float) -> bool:
        return all(abs(z - other) > 3.8 for other in taken)

    for x, away in ((max(street.left.kerb + 0.6, -1.6), True), (oncoming + 1.4, False)):
        z = uniform(7, 12)
        if stage.chance(0.7) and clear(z):
            people.cyclist(stage, x, z, across=False, away=away)
            taken.append(z)
    z = uniform(7.5, 12)
    if stage.chance(0.45) and clear(z):
        x = uniform(-1.2, street.middle + 1.5)
        people.cyclist(stage, x, z, across=True, away=stage.chance(0.5))
        taken.append(z)
    if street.crossing is not None and clear(street.crossing):
        for _ in range(stage.one_of((1, 2, 3))):
            x, z = uniform(street.left.kerb + 0.5, street.middle + 1.0), street.crossing + uniform(-0.8, 0.8)
            people.pedestrian(stage, (x, 0.0, z))


def _park(stage: Stage, street: Street, side: Side) -> None:
    """A row of parked cars with gaps, clear of the side street and the crossing."""
    closed = [side.mouth] if side.mouth else []
    if street.crossing is not None:
        closed.append((street.crossing - 3.0, street.crossing + 3.0))
    z = stage.uniform(8, 20)
    while side.parking and z < 75:
        if stage.chance(0.62) and all(z + 3.5 < start or end < z - 3.5 for start, end in closed):
            against = stage.chance(0.25) == (side.sign < 0)
            heading = (math.pi if against else 0.0) + stage.uniform(-0.04, 0.04)
            x = side.kerb - 1.05 * side.sign
            vehicles.vehicle(stage, stage.one_of(vehicles.CARS), x, z, heading, driving=False)
        z += stage.uniform(5.6, 7.5)


def _any_vehicle(stage: Stage, z: float) -> vehicles.Shape:
    """Any kind; a bus only where it does not fill the picture."""
    return stage.one_of((*vehicles.CARS, vehicles.BUS) if z > 25 else vehicles.CARS)
