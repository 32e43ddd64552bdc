"""Annotation protocols of phantoms: which raw value each part of a hippocampus gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from hsf_finetune.data.phantom.phantom_shape import SUBFIELDS


@dataclass(frozen=True)
class ProtocolRule:
    """One value of a protocol: the subfields it covers, over a part of the axis.

    Args:
        value: raw label value.
        name: class name.
        subfields: names of `SUBFIELDS`.
        axis: axial interval [from, to], 0 at the tail's end and 1 at the head's front.
    """

    value: int
    name: str
    subfields: tuple[str, ...]
    axis: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class AnnotationProtocol:
    """A way to annotate a hippocampus; where rules overlap, the last one counts."""

    rules: tuple[ProtocolRule, ...]

    @property
    def labels_names(self) -> dict[int, str]:
        """Raw value -> class name, without the background."""
        return {rule.value: rule.name for rule in self.rules}

    def encode(
        self, subfields: npt.NDArray[np.uint8], axis_position: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.uint8]:
        """The raw label volume of a phantom, (X, Y, Z); 0 is background.

        Subfields and positions along the axis are those of a `Phantom`, (X, Y, Z) both.
        """
        raw = np.zeros(subfields.shape, dtype=np.uint8)
        for rule in self.rules:
            covered = np.isin(subfields, [SUBFIELDS[name] for name in rule.subfields])
            start, end = rule.axis
            raw[covered & (axis_position >= start) & (axis_position <= end)] = rule.value
        return raw


FINE = AnnotationProtocol(
    tuple(ProtocolRule(value, name, (name,)) for name, value in SUBFIELDS.items())
)
COARSE = AnnotationProtocol((*FINE.rules[:4], ProtocolRule(5, "SUB", ("SUB", "PRESUB", "PARASUB"))))
PROTOCOLS: Mapping[str, AnnotationProtocol] = MappingProxyType({"fine": FINE, "coarse": COARSE})
