"""What the check of the data catches, misses and alarms falsely, and what it costs.

    python benchmarks/check_zoo.py --data ../shared/data/msd_hippocampus

Three tables: every defect of tests/zoo with its tier and whether it was caught there; how
often a flip, and a shift by so many voxels, is caught in sets of 8 and 40 drawn at random; and
time and peak memory, each measured in a process of its own. On clean data every warning and
refusal is a false alarm.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rows import show, write

from hsf_finetune.check.check_case import check_case
from hsf_finetune.check.check_cohort import compare_cases
from hsf_finetune.check.check_data import check_data
from hsf_finetune.check.kept_facts import FactsFile
from hsf_finetune.check.measured_cases import select_measured
from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from hsf_finetune.data.discovery.cases import Cohort, discover

sys.path.insert(0, str(Path(__file__).parents[1]))
Rows = list[dict[str, Any]]


_MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "seconds": round(seconds, 2),
    "cpu_s": round(used.ru_utime + used.ru_stime, 2),
    "peak_mib": used.ru_maxrss // 1024,
}))
"""
"""A small process that starts the command: a child counts its parent's memory as its own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/msd_hippocampus"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--trials", type=int, default=40, help="of each shift and flip")
    parser.add_argument("--phantoms", type=int, nargs=2, default=[200, 1000])
    parser.add_argument("--skip", nargs="*", default=[], choices=["zoo", "pose", "cost"])
    parser.add_argument("--json", type=Path, help="file for the rows")
    options = parser.parse_args()
    os.environ["HSF_FINETUNE_MSD"] = str(options.data.resolve())
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HSF_FINETUNE_CACHE"] = str(Path(folder) / "cache")
        if "zoo" not in options.skip:
            rows += zoo_rows(Path(folder))
            show("The zoo", rows)
        if "pose" not in options.skip:
            found = pose_rows(options.data, options.trials)
            show("Flips and shifts in random sets of real crops", found)
            rows += found
        if "cost" not in options.skip:
            found = cost_rows(options, Path(folder))
            show("Time and memory", found)
            rows += found
    write(options.json, rows)


def zoo_rows(folder: Path) -> Rows:
    """Each defect: caught in its tier, elsewhere, or missed; and what else was said."""
    from tests.zoo.zoo import DEFECTS, Zoo

    zoo, rows = Zoo(folder), []
    for defect in DEFECTS:
        cohort, _ = zoo.damaged(defect)
        found = check_data(zoo.settings(cohort.root, defect.overrides), jobs=1).findings
        hits = [f for f in found if all(word in str(f.error()) for word in defect.words)]
        tiers = {f.tier for f in hits}
        rows.append(
            {
                "defect": defect.name,
                "tier": defect.tier,
                "caught": "yes" if defect.tier in tiers else ", ".join(tiers) or "missed",
                "also": ", ".join(sorted({f.kind for f in found if f not in hits})) or "-",
            }
        )
    caught = sum(row["caught"] == "yes" for row in rows)
    rows.append({"defect": "all", "tier": "", "caught": f"{caught} of {len(rows)}", "also": ""})
    return rows


def pose_rows(data: Path, trials: int) -> Rows:
    """How often a label that was moved is named, by the size of the move and of the set."""
    settings = msd(data)
    cohort = discover(settings.datasets, settings.models)
    file = FactsFile()
    facts = [file.add(None, check_case(case)) for case in cohort.cases]
    moves: dict[str, Callable[[Any], Any]] = {"none": lambda label: label}
    for axis, name in enumerate(("left-right", "front-back", "up-down")):
        moves[f"flip {name}"] = partial(np.flip, axis=axis)
        for by in (3, 5, 7):
            moves[f"shift {name} by {by}"] = partial(shifted, axis=axis, by=by)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, change in moves.items():
            row: dict[str, Any] = {"move": name}
            for size in (8, 40):
                named = 0
                random = np.random.default_rng(size)
                for _ in range(trials):
                    chosen = [int(n) for n in random.choice(len(facts), size, replace=False)]
                    case = cohort.cases[chosen[0]]
                    moved = moved_case(case, change, Path(folder))
                    cases = (moved, *(cohort.cases[n] for n in chosen[1:]))
                    own = [file.add(None, check_case(moved)), *(facts[n] for n in chosen[1:])]
                    few = Cohort(cases, cohort.classes, 1, ())
                    found = compare_cases(few, select_measured(cases, own), cases)
                    named += any(finding.case == case.name for finding in found)
                row[f"named in sets of {size}"] = f"{named} of {trials}"
            rows.append(row)
    return rows


def moved_case(case: Any, change: Callable[[Any], Any], folder: Path) -> Any:
    import nibabel as nib

    from hsf_finetune.data.volumes.read_volume import VolumeRef

    label: Any = nib.load(case.label.path)
    array = np.asarray(change(np.asarray(label.dataobj))).astype(np.uint8)
    path = folder / "moved.nii"
    nib.save(nib.Nifti1Image(array, label.affine), path)
    return dataclasses.replace(case, label=VolumeRef(path))


def shifted(array: Any, axis: int, by: int) -> Any:
    moved = np.roll(array, by, axis)
    np.moveaxis(moved, axis, 0)[:by] = 0
    return moved


def cost_rows(options: argparse.Namespace, folder: Path) -> Rows:
    """Time and peak memory of the command, the first time and the second."""
    name = "datasets=msd_hippocampus"
    sets = {"MSD": [name, f"datasets.main_path={options.data.resolve()}"]}
    for count in options.phantoms:
        root = folder / f"phantoms{count}"
        many_phantoms(root, count, options.jobs)
        classes = "datasets.datasets.msd_hippocampus.labels_names={1: head, 2: body}"
        sets[f"{count} phantoms"] = [name, f"datasets.main_path={root}", classes]
    return [
        {"set": what, "check": check, **measured(given, options.jobs, folder / f"report {what}")}
        for what, given in sets.items()
        for check in ("first", "second")
    ]


def many_phantoms(root: Path, count: int, jobs: int) -> None:
    """Left hippocampi of so many phantom subjects, 48 x 64 x 48 voxels each."""
    with ProcessPoolExecutor(jobs) as pool:
        list(pool.map(partial(one_phantom, root), range(count), chunksize=10))


def one_phantom(root: Path, number: int) -> None:
    from hsf_finetune.data.phantom.phantom_image import make_phantom
    from tests.zoo.cohorts import write as write_nifti

    phantom = make_phantom(0, number, "left", "T2w", (48, 64, 48), 0.7)
    label = np.where(phantom.subfields > 3, 2, phantom.subfields > 0).astype(np.uint8)
    name = f"hippocampus_{number:04d}.nii.gz"
    write_nifti(root / "imagesTr" / name, phantom.image, phantom.affine)
    write_nifti(root / "labelsTr" / name, label, phantom.affine)


def measured(overrides: list[str], jobs: int, report: Path) -> dict[str, Any]:
    """What `hsf-finetune check` finds, and what it takes from start to end."""
    command = ["-m", "hsf_finetune", "check", *overrides, f"--jobs={jobs}", "-o", str(report)]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, sys.executable, *command],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads((report / "check.json").read_text(encoding="utf-8"))
    return {"cases": len(found["cases"]), **json.loads(done.stdout), **found["counts"]}


def msd(data: Path) -> Settings:
    return compose("train", ["datasets=msd_hippocampus", f"datasets.main_path={data.resolve()}"])


if __name__ == "__main__":
    main()
