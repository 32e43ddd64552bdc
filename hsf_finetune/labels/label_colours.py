"""The colours of labels: those of the training data's own table, else a palette."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

_PALETTE = (
    "E69F00 56B4E9 009E73 F0E442 0072B2 D55E00 CC79A7 332288 882255 88CCEE 117733 DDCC77 CC6677 44AA99"
    " 999933 AA4499"
)
"""Colours that people with any kind of colour vision tell apart: seven by Okabe and Ito (Color
Universal Design, 2008), then nine by Paul Tol (muted scheme, SRON/EPS/TN/09-002)."""
_DARKER = 0.7
"""Each further round through the palette is darker by this factor."""


@dataclass(frozen=True)
class LabelRow:
    """A label of segmentations.

    Args:
        value: in the file.
        name: of the class.
        colour: in which it is shown.
    """

    value: int
    name: str
    colour: Colour

    @property
    def hex(self) -> str:
        """The colour as `#RRGGBB`."""
        return "#{:02X}{:02X}{:02X}".format(*self.colour)


def palette_colour(number: int) -> Colour:
    """The colour, by the palette, of a class by its number without the background."""
    colours = _PALETTE.split()
    turn, place = divmod(number, len(colours))
    red, green, blue = bytes.fromhex(colours[place])
    shade = _DARKER**turn
    return (round(red * shade), round(green * shade), round(blue * shade))


def label_rows(values: Mapping[str, int], colours: Mapping[str, Colour]) -> tuple[LabelRow, ...]:
    """A row for each class but the background.

    Args:
        values: class -> its value, background first.
        colours: class -> its colour, of the classes that have one; the others get those of the
            palette that are not taken.
    """
    taken = {*colours.values()}
    free = (colour for number in count() if (colour := palette_colour(number)) not in taken)
    names = [*values][1:]
    return tuple(LabelRow(values[n], n, colours.get(n) or next(free)) for n in names)


def unit_colour(colour: Colour) -> tuple[float, float, float]:
    """A colour as Matplotlib takes it, 0 to 1."""
    red, green, blue = (part / 255 for part in colour)
    return (red, green, blue)
