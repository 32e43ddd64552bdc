"""Folders as people have them: `init`, `check` and `evaluate` find the right files or say which they left."""

from __future__ import annotations

import gzip
import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml

from field.workbench import (
    Answer,
    Attempt,
    Workbench,
    judge,
    kind,
    load,
    phantom,
    run_command,
    save,
    save_hdf5,
    save_mgh,
)

CASES = 6
Name = Callable[[int], str]


def described(folder: Path, image: Name, label: Name, cases: int = CASES) -> None:
    """Writes phantoms under these names."""
    for number in range(cases):
        scan, drawn = phantom(number)
        save(folder / f"{image(number)}.nii.gz", scan)
        save(folder / f"{label(number)}.nii.gz", drawn)


def init(folder: Path, *options: object) -> tuple[Answer, Path]:
    """The answer of `init`, and the YAML that it was to write."""
    file = folder.parent / f"{folder.name}_conf" / "datasets" / "mine.yaml"
    return run_command("init", folder, "-o", file, *options), file


def pairs_of(file: Path, folder: Path) -> set[tuple[str, str]]:
    """Image and label of each case that a YAML finds, as paths below the folder."""
    from hsf_finetune.config.compose import compose
    from hsf_finetune.data.discovery.cases import discover

    settings = compose("finetune", [f"datasets={file.stem}"], file.parents[1])
    cohort = discover(settings.datasets, settings.models)
    root = folder.resolve()
    return {
        (
            c.images[0].path.resolve().relative_to(root).as_posix(),
            c.label.path.resolve().relative_to(root).as_posix(),
        )
        for c in cohort.cases
    }


LAYOUTS: dict[str, tuple[Name, Name]] = {
    "images, labels/v2": (lambda n: f"images/p{n}", lambda n: f"labels/v2/p{n}"),
    "T2, seg_final": (lambda n: f"p{n}/T2", lambda n: f"p{n}/seg_final"),
    "L_T1, L_labels_JD": (lambda n: f"p{n}/L_T1", lambda n: f"p{n}/L_labels_JD"),
    "nnU-Net": (lambda n: f"imagesTr/case_{n:03d}_0000", lambda n: f"labelsTr/case_{n:03d}"),
    "decathlon": (lambda n: f"imagesTr/case_{n:03d}", lambda n: f"labelsTr/case_{n:03d}"),
    "BIDS, beside": (lambda n: f"sub-{n:02d}/anat/sub-{n:02d}_T2w", lambda n: f"sub-{n:02d}/anat/sub-{n:02d}_dseg"),
    "BIDS, derivatives": (lambda n: f"sub-{n:02d}/anat/sub-{n:02d}_T2w", lambda n: f"derivatives/manual/sub-{n:02d}/anat/sub-{n:02d}_dseg"),
    "BIDS, sessions": (lambda n: f"sub-{n:02d}/ses-1/anat/sub-{n:02d}_ses-1_T2w", lambda n: f"derivatives/manual/sub-{n:02d}/ses-1/anat/sub-{n:02d}_ses-1_desc-x_dseg"),
    "flat, suffix": (lambda n: f"p{n}", lambda n: f"p{n}_seg"),
    "flat, prefix": (lambda n: f"img_{n}", lambda n: f"mask_{n}"),
    "flat, camel case": (lambda n: f"p{n}", lambda n: f"p{n}Labels"),
    "folders of names": (lambda n: f"Anna{n}/t1_mprage", lambda n: f"Anna{n}/t1_mprage_manual_segmentation"),
    "MONAI Label": (lambda n: f"p{n}", lambda n: f"labels/final/p{n}"),
    "3D Slicer": (lambda n: f"p{n}/Volume", lambda n: f"p{n}/Segmentation-label"),
    "FreeSurfer": (lambda n: f"p{n}/mri/T1", lambda n: f"p{n}/mri/aseg"),
    "dates in folders": (lambda n: f"2021-0{n + 1}-03/T2", lambda n: f"2021-0{n + 1}-03/T2_label"),
    "raters": (lambda n: f"scans/p{n}", lambda n: f"rois_AB/p{n}_AB"),
    "ASHS": (lambda n: f"p{n}/tse", lambda n: f"p{n}/tse_seg_left"),
    "blanks": (lambda n: f"my scans/p {n}", lambda n: f"my labels/p {n} label"),
    "brackets": (lambda n: f"set [1]/p{n}", lambda n: f"set [1]/p{n}_seg"),
    "quotes and commas": (lambda n: f"o'brien, j/p{n}", lambda n: f"o'brien, j/p{n}_seg"),
    "accents": (lambda n: f"Müller/p{n}", lambda n: f"Müller/p{n}_seg"),
}  # fmt: skip


@kind("layouts of init")
def layouts(bench: Workbench) -> Iterator[Attempt]:
    """Every image gets its own label, and the command that is printed runs as printed."""
    for name, (image, label) in LAYOUTS.items():
        folder = bench.folder() / "data"
        described(folder, image, label)
        answer, file = init(folder)
        right = False
        if answer.code == 0:
            wanted = {(f"{image(n)}.nii.gz", f"{label(n)}.nii.gz") for n in range(CASES)}
            right = pairs_of(file, folder) == wanted
        yield judge(name, answer, right)
        lines = [text.strip() for text in answer.text.splitlines() if "hsf-finetune " in text]
        for line in lines[:1]:
            printed = run_command(*shlex.split(line)[1:])
            yield judge(f"{name}, {line[:40]}", printed, printed.code == 0)


@kind("labels of several origins")
def origins(bench: Workbench) -> Iterator[Attempt]:
    """Labels by hand are taken before those of a program, or the user is asked."""
    scans = [phantom(number) for number in range(CASES)]
    for better, worse, best, others in (
        ("labels/final", "labels/original", 6, 6),
        ("labels/final", "labels/original", 4, 4),
        ("labels/final", "labels/original", 4, 2),
        ("labels/final", "labels/original", 3, 6),
        ("labels/final", "labels/version01", 6, 6),
        ("labels/final", "labels/original_deepedit", 6, 6),
        ("derivatives/manual", "derivatives/hippunfold", 6, 6),
        ("derivatives/manual_edit", "derivatives/ashs", 6, 6),
        ("derivatives/manual", "derivatives/freesurfer", 3, 6),
        ("derivatives/manual", "derivatives/synthseg", 6, 6),
        ("labels_corrected", "labels_predicted", 6, 6),
        ("labels/v2", "labels/v1", 6, 6),
        ("masks_manual", "masks_nnunet", 6, 6),
    ):
        folder = bench.folder() / "data"
        is_bids = better.startswith("derivatives")
        for number, (image, label) in enumerate(scans):
            person = f"sub-{number:02d}"
            name = f"{person}/anat/{person}_T2w" if is_bids else f"images/p{number}"
            save(folder / f"{name}.nii.gz", image)
            for place, count in ((better, best), (worse, others)):
                end = f"{person}/anat/{person}_dseg" if is_bids else f"p{number}"
                if number < count:
                    save(folder / place / f"{end}.nii.gz", label)
        answer, file = init(folder)
        labels = {label for _, label in pairs_of(file, folder)} if answer.code == 0 else set()
        right = len(labels) == best and all(label.startswith(f"{better}/") for label in labels)
        yield judge(f"{better} {best}, {worse} {others}", answer, right and answer.says("not used"))
    for sides in (
        ("hemi-L_dseg", "hemi-R_dseg"),
        ("lh_seg", "rh_seg"),
        ("left_label", "right_label"),
    ):
        folder = bench.folder() / "data"
        for number, (image, label) in enumerate(scans):
            name = f"sub-{number:02d}/anat/sub-{number:02d}_"
            save(folder / f"{name}T2w.nii.gz", image)
            for side, drawn in zip(sides, (label, np.roll(label, 1, 0)), strict=True):
                save(folder / f"{name}{side}.nii.gz", drawn)
        answer, file = init(folder)
        yield judge(f"a label per side, {sides[0]}", answer, False)


@kind("tables that names come from")
def tables(bench: Workbench) -> Iterator[Attempt]:
    for name, labels, words in (
        ("dataset.json", {"background": 0, "front": 1, "back": 2}, ("front", "back")),
        ("dataset.json, off by one", {"background": 0, "front": 2, "back": 3}, ("3", "back")),
        ("dataset.json, one too many", {"background": 0, "a": 1, "b": 2, "gone": 3}, ("gone",)),
    ):
        folder = bench.folder() / "data"
        described(folder, lambda n: f"imagesTr/c{n}_0000", lambda n: f"labelsTr/c{n}")
        content = {"labels": labels, "channel_names": {"0": "T1"}, "file_ending": ".nii.gz"}
        (folder / "dataset.json").write_text(json.dumps(content))
        answer, file = init(folder)
        text = file.read_text() if file.exists() else ""
        is_said = all(word in answer.text + text for word in words)
        if "one" in name:
            is_said = is_said and answer.says("unsure")
        yield judge(name, answer, is_said)


def unpack(image: Path) -> None:
    image.with_suffix("").write_bytes(gzip.decompress(image.read_bytes()))
    image.unlink()


def break_link(image: Path) -> None:
    image.unlink()
    image.symlink_to("/nowhere/case0.nii.gz")


def convert_to_mgz(image: Path) -> None:
    save_mgh(image.with_name("case0.mgz"), load(image).astype(np.float32), np.eye(4))
    image.unlink()


def move_away(image: Path) -> None:
    (image.parent / "old").mkdir()
    shutil.move(image, image.parent / "old")


PARTNERLESS: dict[str, Callable[[Path], object]] = {
    "a suffix in capitals": lambda image: image.rename(image.with_name("case0.NII.GZ")),
    "unpacked": unpack,
    "a broken link": break_link,
    "no image": Path.unlink,
    "no label": lambda image: (image.parents[1] / "labels" / image.name).unlink(),
    "another format": convert_to_mgz,
    "in another folder": move_away,
}


@kind("files without a partner in check")
def unpaired(bench: Workbench) -> Iterator[Attempt]:
    for name, damage in PARTNERLESS.items():
        data = bench.cohort()
        damage(data / "images" / "case0.nii.gz")
        answer = run_command("check", *bench.overrides(data))
        # What is read all the same is right as well.
        is_used = answer.code == 0 and answer.says(f"{CASES} cases")
        yield judge(name, answer, is_used or (answer.is_clear and answer.says("case0")))


@kind("names that evaluate pairs")
def evaluate_names(bench: Workbench) -> Iterator[Attempt]:
    names: list[tuple[str, Name, Name]] = [
        ("nnU-Net", lambda n: f"case_{n:03d}_0000", lambda n: f"case_{n:03d}"),
        ("BIDS", lambda n: f"sub-{n:02d}_T2w", lambda n: f"sub-{n:02d}_dseg"),
        ("BIDS, description", lambda n: f"sub-{n:02d}_ses-1_T2w", lambda n: f"sub-{n:02d}_ses-1_desc-manual_dseg"),
        ("BIDS, sides", lambda n: f"sub-{n // 2:02d}_hemi-{'LR'[n % 2]}_T2w", lambda n: f"sub-{n // 2:02d}_hemi-{'LR'[n % 2]}_dseg"),
        ("BIDS, folders", lambda n: f"sub-{n:02d}/anat/sub-{n:02d}_T2w", lambda n: f"sub-{n:02d}/anat/sub-{n:02d}_dseg"),
        ("same", lambda n: f"p{n}", lambda n: f"p{n}"),
        ("a word for labels", lambda n: f"p{n}", lambda n: f"p{n}_seg"),
        ("a word for images", lambda n: f"img_{n}", lambda n: f"label_{n}"),
        ("folders per person", lambda n: f"p{n}/T2", lambda n: f"p{n}/T2_seg"),
        ("folders, other names", lambda n: f"p{n}/T2", lambda n: f"p{n}/seg_final"),
        ("numbers that begin alike", lambda n: f"p1{n or ''}_0000", lambda n: f"p1{n or ''}"),
    ]  # fmt: skip
    for name, prediction, label in names:
        folder = bench.folder()
        for number in range(4):
            drawn = phantom(number)[1]
            save(folder / "p" / f"{prediction(number)}.nii.gz", drawn)
            save(folder / "l" / f"{label(number)}.nii.gz", drawn)
        answer = run_command("evaluate", folder / "p", folder / "l", "-o", folder / "s.csv")
        scores = (folder / "s.csv").read_text() if answer.code == 0 else ""
        right = bool(scores) and all(",1.0," in line for line in scores.splitlines()[1:])
        yield judge(name, answer, right)
        (folder / "l" / f"{label(3)}.nii.gz").unlink()
        answer = run_command("evaluate", folder / "p", folder / "l")
        yield judge(f"{name}, one without a label", answer, answer.code == 2)


@kind("what a written segmentation keeps of its scan")
def headers(bench: Workbench) -> Iterator[Attempt]:
    image, _ = phantom(55)
    versions: tuple[Any, ...] = (nib.nifti1.Nifti1Image, nib.nifti2.Nifti2Image)
    for version in versions:
        scan = version(image, np.eye(4))
        scan.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"made by hand"))
        scan.header["aux_file"], scan.header["intent_name"] = b"aux", b"intent"
        scan.header.set_xyzt_units("mm", "sec")
        scan.set_sform(np.eye(4), 2)
        scan.set_qform(np.eye(4), 1)
        file = bench.folder() / "scan.nii.gz"
        version.to_filename(scan, file)
        answer, output = bench.predict(file)
        found = version.from_filename(output / file.name) if answer.code == 0 else scan
        right = answer.code == 0
        right &= [e.get_content() for e in found.header.extensions] == [b"made by hand"]
        for key in ("aux_file", "intent_name", "sform_code", "qform_code", "xyzt_units"):
            right &= bool(found.header[key] == scan.header[key])
        yield judge(version.__name__, answer, right)


@kind("data of another scale")
def scale(bench: Workbench) -> Iterator[Attempt]:
    """Distances of electron microscopy are not 0 within a tolerance of 1 mm."""
    for name, size_mm in (("6 nm", 6e-6), ("1 um", 1e-3), ("1 mm", 1.0), ("100 mm", 100.0)):
        folder = bench.folder()
        _, label = phantom(56)
        affine = np.diag([size_mm, size_mm, size_mm, 1])
        one = save(folder / "a.nii.gz", np.roll(label, 3, axis=1), affine)
        other = save(folder / "b.nii.gz", label, affine)
        answer = run_command("evaluate", one, other, "-o", folder / "s.csv")
        lines = (folder / "s.csv").read_text().splitlines() if answer.code == 0 else ["", ""]
        row = dict(zip(lines[0].split(","), lines[1].split(","), strict=False))
        nsd = [float(v) for k, v in row.items() if "nsd" in k.lower()]
        distance = [float(v) for k, v in row.items() if "hd95" in k.lower()]
        right = bool(nsd) and nsd[0] < 0.99 and distance[0] > size_mm
        yield judge(name, answer, right)


@kind("YAML of init with odd names")
def yaml_values(bench: Workbench) -> Iterator[Attempt]:
    for text in (
        "a: b",
        "#1",
        "{x}",
        "*",
        "&a",
        "yes",
        "1e3",
        "a'b",
        'a"b',
        "${oc.env:HOME}",
        "é",
        "-",
        "null",
    ):
        folder = bench.folder() / text.replace("/", "_")
        described(folder / "d", lambda n: f"p{n}", lambda n: f"p{n}_seg")
        answer, file = init(folder)
        right = answer.code == 0 and len(pairs_of(file, folder)) == CASES
        right = right and isinstance(yaml.safe_load(file.read_text(encoding="utf-8")), dict)
        yield judge(text, answer, right)


@kind("HDF5 in init")
def hdf5_layouts(bench: Workbench) -> Iterator[Attempt]:
    for names in (
        ("raw", "label"),
        ("image", "seg"),
        ("volumes/raw", "volumes/labels"),
        ("data", "mask"),
    ):
        folder = bench.folder() / "data"
        for number in range(CASES):
            arrays = dict(zip(names, phantom(number), strict=True))
            save_hdf5(folder / f"v{number}.h5", arrays)
        answer, written = init(folder)
        right = answer.code == 0 and len(pairs_of(written, folder)) == CASES
        yield judge("/".join(names), answer, right)
