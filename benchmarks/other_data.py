"""The MSD hippocampus as other data: coarser and noisier, like a CT, of another contrast.

    python benchmarks/other_data.py --kind ct -o OTHER
    python benchmarks/few_labels.py --data OTHER --source RUN --n 5 --arms fine-tuned,kept

writes a copy of the folder of --data whose scans are

- coarse: of 1.5 mm voxels, with noise of a tenth of the range of the scan
- ct: in Hounsfield units, where tissue lies between 0 and 80, with noise of 10, the darkest twentieth
  is air and the brightest hundredth bone
- inverted: of another contrast (inverted, gamma 1.5)

so that it shows whether a setting that was chosen on the scans as they are serves others too. RUN, such as
the source of benchmarks/msd_hippocampus.py, has seen the scans of --data as they are.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.ndimage import zoom

from hsf_finetune.data.volumes.read_volume import VolumeRef, read_volume

Image = npt.NDArray[np.float32]
_COARSE_MM = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/msd_hippocampus"))
    parser.add_argument("--kind", choices=[*KINDS], required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    for part in ("imagesTr", "labelsTr"):
        (options.output / part).mkdir(parents=True)
    shutil.copy(options.data / "split.json", options.output)
    for number, scan in enumerate(sorted((options.data / "imagesTr").glob("*.nii.gz"))):
        change(options, scan.name, np.random.default_rng(number))


def change(options: argparse.Namespace, name: str, random: np.random.Generator) -> None:
    """Writes a changed case."""
    image, label = (
        read_volume(VolumeRef(options.data / part / name)) for part in ("imagesTr", "labelsTr")
    )
    low, high = np.percentile(image.array, [0.5, 99.5])
    share = np.clip((image.array.astype(np.float32) - low) / (high - low), 0, 1)
    affine = np.array(image.affine)
    factors = np.ones(3)
    if options.kind == "coarse":
        factors = np.array(image.spacing_mm) / _COARSE_MM
        affine[:3, :3] /= factors
    changed = KINDS[options.kind](zoom(share, factors, order=1), random)
    values = zoom(label.array, factors, order=0).astype(np.uint8)
    for part, array in (("imagesTr", changed.astype(np.float32)), ("labelsTr", values)):
        nib.save(nib.Nifti1Image(array, affine), options.output / part / name)


def coarse(share: Image, random: np.random.Generator) -> npt.NDArray[Any]:
    """A noisy scan; `share` is (X, Y, Z) from 0 to 1, here as in what follows."""
    return share + random.normal(0, 0.1, share.shape)


def ct(share: Image, random: np.random.Generator) -> npt.NDArray[Any]:
    """Hounsfield units."""
    dark, bright = np.quantile(share, [0.05, 0.99])
    tissue = 80 * share + random.normal(0, 10, share.shape)
    return np.select([share < dark, share > bright], [-1000.0, 1000.0], tissue)


def inverted(share: Image, random: np.random.Generator) -> npt.NDArray[Any]:
    """Bright where it was dark."""
    return (1 - share) ** 1.5


KINDS: Mapping[str, Callable[[Image, np.random.Generator], npt.NDArray[Any]]] = {
    "coarse": coarse,
    "ct": ct,
    "inverted": inverted,
}

if __name__ == "__main__":
    main()
