"""Real cases, copied into the layouts that labs keep them in."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np

from tests.conftest import save_nifti, tiny_case

MSD = Path(
    os.environ.get("HSF_FINETUNE_MSD")
    or Path(__file__).parents[3] / "shared" / "data" / "msd_hippocampus"
)
COUNT = 6
NAMES = ("anterior", "posterior")

Ref = tuple[str, str | None]
"""A file below the folder, and the HDF5 dataset in it."""


@dataclass(frozen=True)
class Source:
    """A case to copy: its files and its two label values."""

    image: Path
    label: Path
    values: tuple[int, int]


@dataclass(frozen=True)
class Expected:
    """What discovery is to find for an image."""

    channels: tuple[Ref, ...]
    label: Ref
    subject: str


Copied = list[Expected]
Layout = Callable[[Path, Sequence[Source]], Copied]


def sources(folder: Path) -> list[Source]:
    """The first cases of the decathlon's hippocampus, else the tiny cohort of the tests."""
    images = sorted((MSD / "imagesTr").glob("*.nii.gz"))[:COUNT]
    if len(images) == COUNT:
        return [Source(image, MSD / "labelsTr" / image.name, (1, 2)) for image in images]
    made = []
    for number in range(COUNT):
        image, label = tiny_case(number)
        files = (folder / f"{number}.nii.gz", folder / f"{number}_seg.nii.gz")
        made.append(Source(save_nifti(files[0], image), save_nifti(files[1], label), (10, 20)))
    return made


def copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    return target


def copy_pair(root: Path, source: Source, image: str, label: str, subject: str) -> Expected:
    copy(source.image, root / image)
    copy(source.label, root / label)
    return Expected(((image, None),), (label, None), subject)


def bids(root: Path, cases: Sequence[Source]) -> Copied:
    """Raw scans and derivatives, two sessions for one person, further contrasts, a dseg.tsv."""
    found = []
    for number, source in enumerate(cases):
        person = f"sub-{max(number, 1):02d}"
        session = "ses-2" if number == 1 else "ses-1"
        folder, name = f"{person}/{session}/anat", f"{person}_{session}"
        found.append(
            copy_pair(
                root,
                source,
                f"{folder}/{name}_T2w.nii.gz",
                f"derivatives/manual/{folder}/{name}_desc-manual_dseg.nii.gz",
                person,
            )
        )
        copy(source.image, root / folder / f"{name}_T1w.nii.gz")
    copy(cases[0].image, root / "sub-99" / "ses-1" / "anat" / "sub-99_ses-1_T2w.nii.gz")
    rows = [
        f"{v}\t{n}\t#ff0000" for v, n in zip((0, *cases[0].values), ("bg", *NAMES), strict=True)
    ]
    (root / "derivatives" / "manual" / "dseg.tsv").write_text(
        "index\tname\tcolor\n" + "\n".join(rows)
    )
    return found


def nnunet_raw(root: Path, cases: Sequence[Source]) -> Copied:
    """imagesTr/X_0000, labelsTr/X, dataset.json with names as keys."""
    found = [
        copy_pair(
            root,
            source,
            f"imagesTr/hippo_{n:03d}_0000.nii.gz",
            f"labelsTr/hippo_{n:03d}.nii.gz",
            f"hippo_{n:03d}",
        )
        for n, source in enumerate(cases)
    ]
    copy(cases[0].image, root / "imagesTs" / "hippo_900_0000.nii.gz")
    labels = {"background": 0, **dict(zip(NAMES, cases[0].values, strict=True))}
    content = {"channel_names": {"0": "T1w"}, "labels": labels, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(content))
    return found


def per_subject(root: Path, cases: Sequence[Source]) -> Copied:
    """HSF's layout: a folder per person with both sides; ITK-SNAP's label descriptions."""
    found = []
    for number, source in enumerate(cases):
        side = ("left", "right")[number % 2]
        name = f"t2w_Hippocampus_{side}_ElasticSyN"
        folder = f"clark/c{number // 2:02d}"
        found.append(
            copy_pair(
                root,
                source,
                f"{folder}/{name}_crop.nii.gz",
                f"{folder}/{name}_seg_crop.nii.gz",
                f"clark/c{number // 2:02d}",
            )
        )
    rows = [
        f'{value:5d}  255    0    0        1  1  1    "{name}"'
        for value, name in zip((0, *cases[0].values), ("Clear Label", *NAMES), strict=True)
    ]
    (root / "labels.txt").write_text("# ITK-SnAP Label Description File\n" + "\n".join(rows))
    return found


def hdf5(root: Path, cases: Sequence[Source]) -> Copied:
    """Image and label in one file per person, with a FreeSurfer colour table."""
    root.mkdir(parents=True, exist_ok=True)
    found = []
    for number, source in enumerate(cases):
        file = f"vol_{number:02d}.h5"
        with h5py.File(root / file, "w") as handle:
            for key, path in (("raw/image", source.image), ("raw/label", source.label)):
                volume = nib.load(path)
                handle[key] = np.asarray(volume.dataobj)
                handle[key].attrs["affine"] = volume.affine
        found.append(Expected(((file, "raw/image"),), (file, "raw/label"), f"vol_{number:02d}"))
    rows = [f"{v:<4d} {n:<20s} 10 20 30 0" for v, n in zip(cases[0].values, NAMES, strict=True)]
    (root / "colours.txt").write_text(
        "#No. Label Name: R G B A\n0 Unknown 0 0 0 0\n" + "\n".join(rows)
    )
    return found


def msd(root: Path, cases: Sequence[Source]) -> Copied:
    """The decathlon's own layout and dataset.json."""
    names = [f"hippocampus_{n:03d}" for n in range(len(cases))]
    labels = {"0": "background"} | {str(v): n for v, n in zip(cases[0].values, NAMES, strict=True)}
    found = [
        copy_pair(root, s, f"imagesTr/{n}.nii.gz", f"labelsTr/{n}.nii.gz", n)
        for s, n in zip(cases, names, strict=True)
    ]
    content = {"modality": {"0": "MRI"}, "labels": labels}
    (root / "dataset.json").write_text(json.dumps(content))
    return found


def flat(root: Path, cases: Sequence[Source]) -> Copied:
    """Suffixes in one folder."""
    return [
        copy_pair(root, s, f"p{n:02d}_image.nii.gz", f"p{n:02d}_label.nii.gz", f"p{n:02d}")
        for n, s in enumerate(cases)
    ]


def flat_without_image_suffix(root: Path, cases: Sequence[Source]) -> Copied:
    """Every label is its image's name and -seg: the image's pattern must not match labels."""
    return [
        copy_pair(root, s, f"p_{n:02d}.nii.gz", f"p_{n:02d}-seg.nii.gz", f"p_{n:02d}")
        for n, s in enumerate(cases)
    ]


def names_without_digits(root: Path, cases: Sequence[Source]) -> Copied:
    """As above, but no pattern can tell images from labels, so that it takes a table."""
    people = ("ann", "bob", "cyd", "dee", "eve", "fay")
    return [
        copy_pair(root, s, f"{p}.nii.gz", f"{p}_seg.nii.gz", p)
        for p, s in zip(people, cases, strict=True)
    ]


def two_folders(root: Path, cases: Sequence[Source]) -> Copied:
    """images/ and masks/ with the same names, and one image without a mask."""
    copy(cases[0].image, root / "images" / "x77.nii.gz")
    return [
        copy_pair(root, s, f"images/x{n:02d}.nii.gz", f"masks/x{n:02d}.nii.gz", f"x{n:02d}")
        for n, s in enumerate(cases)
    ]


def several_channels(root: Path, cases: Sequence[Source]) -> Copied:
    """Two contrasts and one label per person."""
    found = []
    for n, source in enumerate(cases):
        stem = f"P{n:02d}/P{n:02d}"
        found.append(
            copy_pair(root, source, f"{stem}_t1.nii.gz", f"{stem}_seg.nii.gz", f"P{n:02d}")
        )
        copy(source.image, root / f"{stem}_t2.nii.gz")
        channels = ((f"{stem}_t1.nii.gz", None), (f"{stem}_t2.nii.gz", None))
        found[-1] = Expected(channels, found[-1].label, found[-1].subject)
    return found


def glued_sides(root: Path, cases: Sequence[Source]) -> Copied:
    """c01L and c01R are one person, which discovery's own rule does not see."""
    return [
        copy_pair(
            root,
            s,
            f"c{n // 2:02d}{'LR'[n % 2]}_image.nii.gz",
            f"c{n // 2:02d}{'LR'[n % 2]}_label.nii.gz",
            f"c{n // 2:02d}",
        )
        for n, s in enumerate(cases)
    ]


def one_hdf5_file(root: Path, cases: Sequence[Source]) -> Copied:
    """A group per person in one file, without voxel sizes."""
    root.mkdir(parents=True, exist_ok=True)
    found = []
    with h5py.File(root / "all.h5", "w") as handle:
        for n, source in enumerate(cases):
            for key, path in (("mri", source.image), ("seg", source.label)):
                handle[f"case_{n:02d}/{key}"] = np.asarray(nib.load(path).dataobj)
            keys = (f"case_{n:02d}/mri", f"case_{n:02d}/seg")
            found.append(Expected((("all.h5", keys[0]),), ("all.h5", keys[1]), f"all/case_{n:02d}"))
    return found


def monai_label(root: Path, cases: Sequence[Source]) -> Copied:
    """A datastore of MONAI Label: drawn in labels/final, predicted in labels/original."""
    for n, source in enumerate(cases):
        copy(source.label, root / "labels" / "original" / f"x{n:02d}.nii.gz")
    return [
        copy_pair(root, s, f"x{n:02d}.nii.gz", f"labels/final/x{n:02d}.nii.gz", f"x{n:02d}")
        for n, s in enumerate(cases)
    ]


def versions(root: Path, cases: Sequence[Source]) -> Copied:
    """Two versions of the labels."""
    for n, source in enumerate(cases):
        copy(source.label, root / "labels" / "v1" / f"x{n:02d}.nii.gz")
    return [
        copy_pair(root, s, f"images/x{n:02d}.nii.gz", f"labels/v2/x{n:02d}.nii.gz", f"x{n:02d}")
        for n, s in enumerate(cases)
    ]


def contrast_and_labels(root: Path, cases: Sequence[Source]) -> Copied:
    """Folders whose names have nothing in common, with files of the same names."""
    return [
        copy_pair(root, s, f"T2/x{n:02d}.nii.gz", f"seg_final/x{n:02d}.nii.gz", f"x{n:02d}")
        for n, s in enumerate(cases)
    ]


def sides_in_folders(root: Path, cases: Sequence[Source]) -> Copied:
    """A folder per side, for images and for the labels of one rater; names recur."""
    found = []
    for n, source in enumerate(cases):
        side, name = "LR"[n % 2], f"x{n // 2:02d}"
        files = (f"{side}_T1/{name}.nii.gz", f"{side}_labels_JD/{name}.nii.gz")
        found.append(copy_pair(root, source, *files, name))
    return found


def bids_with_tools(root: Path, cases: Sequence[Source]) -> Copied:
    """Labels by hand of most scans; those of two programs of all of them, and their scans."""
    found = []
    for n, source in enumerate(cases):
        sub = f"sub-{n:02d}"
        image = f"{sub}/anat/{sub}_T2w.nii.gz"
        label = f"derivatives/manual/{sub}/anat/{sub}_desc-manual_dseg.nii.gz"
        derived = root / "derivatives"
        tool = derived / "hippunfold" / sub / "anat"
        copy(source.label, tool / f"{sub}_space-cropT2w_desc-subfields_dseg.nii.gz")
        copy(source.label, derived / "fmriprep" / sub / "anat" / f"{sub}_dseg.nii.gz")
        copy(source.image, derived / "fmriprep" / sub / "anat" / f"{sub}_desc-preproc_T2w.nii.gz")
        if n < len(cases) - 1:
            found.append(copy_pair(root, source, image, label, sub))
        else:
            copy(source.image, root / image)
    return found


def capitals(root: Path, cases: Sequence[Source]) -> Copied:
    """Some suffixes in capitals."""
    return [
        copy_pair(
            root,
            s,
            f"images/x{n:02d}.{'NII.GZ' if n == 1 else 'nii.gz'}",
            f"labels/x{n:02d}.{'NII.GZ' if n == 2 else 'nii.gz'}",
            f"x{n:02d}",
        )
        for n, s in enumerate(cases)
    ]


FOUR: tuple[Layout, ...] = (bids, nnunet_raw, per_subject, hdf5)
MORE: tuple[Layout, ...] = (
    msd,
    flat,
    flat_without_image_suffix,
    names_without_digits,
    two_folders,
    several_channels,
    glued_sides,
    one_hdf5_file,
    monai_label,
    versions,
    contrast_and_labels,
    sides_in_folders,
    bids_with_tools,
    capitals,
)
