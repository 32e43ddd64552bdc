"""Which part of a scan a network sees, and which voxels of it count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy

from hsf_finetune.config.settings.preprocessing_settings import Preprocessing
from hsf_finetune.data.volumes.outside import Array, Box, box_of, find_content_box

Mask = npt.NDArray[np.bool_]


def find_box(channels: Sequence[Array], preprocessing: Preprocessing) -> Box | None:
    """The part of a scan that the network sees; None is all of it.

    Args:
        channels: (X, Y, Z) each, on the file's grid.
        preprocessing: how it is cropped.
    """
    margin = preprocessing.crop_margin_vox
    if preprocessing.crop == "none":
        return None
    if preprocessing.crop == "margins":
        box = find_content_box(channels)
    else:
        above = preprocessing.crop == "positive"
        box = box_of(_any(channels, above=above))
    sizes = channels[0].shape
    x, y, z = (
        slice(max(part.start - margin, 0), min(part.stop + margin, size))
        for part, size in zip(box, sizes, strict=True)
    )
    return (x, y, z)


def filled_nonzero(channels: Sequence[Array]) -> Mask:
    """Voxels that are not 0 in any channel, and the holes between them, as in nnU-Net."""
    filled: Mask = scipy.ndimage.binary_fill_holes(_any(channels, above=False))
    return filled


def _any(channels: Sequence[Array], above: bool) -> Mask:
    """Where any channel is above 0, or is not 0."""
    found: Mask = np.any([one > 0 if above else one != 0 for one in channels], axis=0)
    return found
