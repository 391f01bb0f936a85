"""The painter's order: what must be drawn before what. Used by `stage`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unetpp_cli.data.scenery.view import NEAR, Camera

Span = tuple[float, float]
"""From, to, in metres."""
Sight = tuple[float, float, float, float]
"""Direction and nearness of a ground plan's left edge, then of its right edge, as seen by the camera."""


def sight(camera: Camera, x: Span, z: Span) -> Sight:
    """How the ground plan of a box is seen.

    A direction is X / Z, a nearness 1 / Z, in the camera's frame. Along the line that joins the two edges
    nearness is linear in direction.
    """
    corners = [camera.straight((px, 0.0, max(pz, NEAR))) for px in x for pz in z]
    seen = sorted((px / pz, 1.0 / pz) for px, _, pz in corners)
    return *seen[0], *seen[-1]


def farthest_first(sights: Sequence[Sight]) -> list[int]:
    """Indices in an order in which nothing covers what is nearer.

    Of two plans that share directions, the one that is nearer in the middle of these is drawn later. From one
    viewpoint disjoint convex plans never hide one another in a circle, so there is such an order; where plans
    do meet (a crown and a wall), the farthest goes first.
    """
    left, left_near, right, right_near = np.asarray(sights, np.float64).reshape(-1, 4).T
    # (n, n): the directions that two plans share.
    first, last = np.maximum(left[:, None], left), np.minimum(right[:, None], right)
    slope = (right_near - left_near) / np.maximum(right - left, 1e-9)
    nearness = left_near[:, None] + slope[:, None] * ((first + last) / 2 - left[:, None])
    behind = (last > first) & (nearness < nearness.T)  # [i, j]: i is hidden by j
    waits_for = behind.sum(axis=0)
    near = (left_near + right_near) / 2
    order = []
    for _ in range(len(near)):
        free = np.where(waits_for == 0, near, near + 1e3)
        index = int(free.argmin())
        order.append(index)
        waits_for -= behind[index]
        near[index] = np.inf
    return order
