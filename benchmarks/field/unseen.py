"""Scans that a model has never seen the like of, and folders that hold more than scans."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import ndimage

from field.workbench import (
    Attempt,
    Workbench,
    dice,
    judge,
    kind,
    load,
    phantom,
    run_command,
    save,
    save_hdf5,
    save_mgh,
)

FILLS = (
    *(-32768, 65535, -1024, 1e20, -2000, -1000, -9999, -10000, -999, -99999, 1e6, -1e6),
    *(-3024, -3072, 32767, 2147483647, -2147483648, 3.4e38, -1e10, 1e12, 4095),
)


@kind("fill values")
def fill_values(bench: Workbench) -> Iterator[Attempt]:
    """Planes of a value that marks the outside: the same result as without, or a warning."""
    image, label = phantom(50)
    for value in FILLS:
        for planes in (1, 3):
            for where in ("first", "last", "all"):
                filled = image.astype(np.float64)
                places: list[Any] = [np.s_[:planes]] if where != "last" else [np.s_[-planes:]]
                places += [np.s_[:, -planes:], np.s_[:, :, :planes]] if where == "all" else []
                for place in places:
                    filled[place] = value
                dtype = np.float32 if abs(value) < 3e38 else np.float64
                scan = save(bench.folder() / "scan.nii.gz", filled.astype(dtype))
                answer, output = bench.predict(scan)
                good = answer.code == 0 and dice(load(output / scan.name), label) > 0.85
                said = answer.code == 0 and answer.says("warning")
                yield judge(f"{value:g} in {planes}, {where}", answer, good or said)


@kind("numbers beyond single precision")
def overflow(bench: Workbench) -> Iterator[Attempt]:
    values = ((3.4e38, "f4"), (1e300, "f8"), (1.7e308, "f8"), (np.inf, "f4"), (np.nan, "f4"))
    for value, dtype in values:
        image, label = phantom(50)
        scan = image.astype(dtype)
        scan[:2] = value
        file = save(bench.folder() / "scan.nii.gz", scan)
        answer, output = bench.predict(file)
        good = answer.code == 0 and dice(load(output / file.name), label) > 0.85
        yield judge(f"predict {value:g}", answer, good)
        data = bench.cohort(4)
        save(data / "images" / "case0.nii.gz", scan)
        checked = run_command("check", *bench.overrides(data))
        yield judge(
            f"check {value:g}",
            checked,
            checked.code == 0 and checked.says("marks voxels as outside"),
        )


@kind("scans unlike the training data")
def unlike(bench: Workbench) -> Iterator[Attempt]:
    image, _ = phantom(51)
    random = np.random.default_rng(0)
    scans = {
        "2 mm": (ndimage.zoom(image, 0.5, order=1), np.diag([2, 2, 2, 1])),
        ".5 mm": (ndimage.zoom(image, 2, order=1), np.diag([0.5, 0.5, 0.5, 1])),
        "head size": (np.tile(image, (5, 4, 5)), np.eye(4)),
        "noise": (random.normal(100, 30, image.shape), np.eye(4)),
        "inverted": (image.max() - image, np.eye(4)),
        "nearly empty": (1e-3 * random.normal(size=image.shape), np.eye(4)),
        "anisotropic": (image[:, :, ::4], np.diag([1, 1, 4, 1])),
    }
    for name, (array, affine) in scans.items():
        scan = save(bench.folder() / "scan.nii.gz", array.astype(np.float32), affine)
        answer, _ = bench.predict(scan)
        yield judge(name, answer, answer.code == 0 and answer.says("warning"))
        strict, output = bench.predict(scan, options=["--strict"])
        is_refused = strict.is_clear and not (output / scan.name).exists()
        yield judge(f"{name}, --strict", strict, is_refused)
    ordinary = save(bench.folder() / "scan.nii.gz", phantom(52)[0])
    answer, _ = bench.predict(ordinary, options=["--strict"])
    yield judge("an ordinary one", answer, answer.code == 0 and not answer.says("warning"))


@kind("empty margins")
def margins(bench: Workbench) -> Iterator[Attempt]:
    """A margin of zeros, or of the darkest value, on any face changes nothing."""
    image, _ = phantom(53)
    plain = save(bench.folder() / "scan.nii.gz", image)
    _, output = bench.predict(plain)
    expected = load(output / plain.name)
    for value in (0.0, float(image.min()), -1024.0):
        for axis in range(3):
            for width in ((8, 0), (0, 3), (5, 2)):
                widths = [(0, 0)] * 3
                widths[axis] = width
                scan = save(
                    bench.folder() / "scan.nii.gz", np.pad(image, widths, constant_values=value)
                )
                answer, output = bench.predict(scan)
                good = answer.code == 0 and np.array_equal(
                    load(output / scan.name), np.pad(expected, widths)
                )
                yield judge(f"{value:g} on axis {axis}, {width}", answer, bool(good))


@kind("labels and other files in a folder of scans")
def folders(bench: Workbench) -> Iterator[Attempt]:
    image, label = phantom(54)
    labels = ("scan_dseg", "scan_seg", "scan_label", "scan_mask", "scan-seg", "scan_labels", "scan.seg", "Segmentation", "scan_aseg", "scan_manual_segmentation", "scan_roi", "scan_gt", "groundtruth", "scan_probseg", "labelsTr/scan", "labels/scan", "masks/scan", "derivatives/manual/scan_dseg", "seg/scan", "ground_truth/scan", "annotations/scan", "scan_annotation", "scan_parc")  # fmt: skip
    for name in labels:
        folder = bench.folder()
        save(folder / "scan.nii.gz", image)
        save(folder / f"{name}.nii.gz", label)
        answer, output = bench.predict(folder)
        written = {p.relative_to(output).as_posix() for p in output.rglob("*.nii.gz")}
        is_listed = answer.says("not segmented", name.rpartition("/")[2])
        yield judge(name, answer, written == {"scan.nii.gz"} and is_listed)
    for name in ("b.mgz", "b.nrrd", "b.hdr", "b.mha", "b.mhd", "b.dcm", "b.mnc", "b.nhdr", "B.MGZ", "b.nii.zip", "b.nii.bz2", "b.img", "b.par", "b.ima", "b.tif", "b.nii.xz", "b.nii.zst", "b.gipl", "b.vtk", "b.HEAD"):  # fmt: skip
        folder = bench.folder()
        save(folder / "scan.nii.gz", image)
        if name == "b.mgz":
            save_mgh(folder / name, image, np.eye(4))
        elif name == "b.hdr":
            save(folder / name, image, pair=True)
        else:
            (folder / name).write_bytes(b"anything")
        answer, output = bench.predict(folder)
        is_named = answer.code in (0, 1) and answer.says(name)
        is_segmented = (output / "b.nii.gz").exists()
        yield judge(name, answer, is_segmented if name == "b.mgz" else is_named)
    folder = bench.folder()
    save(folder / "scan.nii.gz", image)
    (folder / "gone.nii.gz").symlink_to("/nowhere/gone.nii.gz")
    answer, _ = bench.predict(folder)
    yield judge("a broken link", answer, answer.code == 1 and answer.says("gone.nii.gz"))


@kind("HDF5 whose voxel size stands in the YAML")
def hdf5_geometry(bench: Workbench) -> Iterator[Attempt]:
    data = bench.folder()
    for number in range(5):
        image, label = phantom(number)
        save_hdf5(data / f"vol{number}.h5", {"raw": image, "seg": label}, None)
    given = {
        "patterns": '{a: {mri: "vol*.h5", mri_key: raw, label_key: seg}}',
        "hdf5": "{spacing_mm: [1, 1, 1]}",
    }
    answer = bench.train(data, epochs=1, **given)
    if answer.code != 0:
        given.pop("hdf5")
        answer = bench.train(data, epochs=1, **given, spacing_mm="[1, 1, 1]")
    yield judge("train", answer, answer.code == 0)
    run = bench.run_of(data)
    for name, options in (
        ("voxel size of the training data", ["--key", "raw"]),
        ("dataset found by its name", []),
        ("--spacing", ["--key", "raw", "--spacing", "1", "1", "1"]),
    ):
        output = bench.folder() / "seg"
        answer = run_command("predict", run, data / "vol0.h5", "-o", output, *options)
        yield judge(name, answer, answer.code == 0 and (output / "vol0.h5").exists())
        output = bench.folder() / "seg"
        answer = run_command("predict", run, data, "-o", output, "--pattern", "vol*.h5", *options)
        yield judge(f"{name}, a folder", answer, answer.code == 0)
