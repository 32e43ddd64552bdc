"""Which share of the processor time of `predict` is the network's, on many scans, and its memory.

    python benchmarks/network_share.py --model RUN --scans FOLDER --count 300

Where there are fewer scans, the rest are parts of them, each of another shape. Everything counts:
imports, reading, preprocessing, remarks, expected quality, and writing. The process has one thread
of arithmetic.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from rows import show, write

os.environ["OMP_NUM_THREADS"] = "1"

PLACES = (20, 60, 100, 200, 300)
"""After so many scans memory is read."""

spent = {"network": 0.0, "imports": 0.0}
memory_mib: list[float] = []


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        scans = Path(folder) / "scans"
        # In a process of its own, whose imports and work are not counted.
        given = (options.scans, scans, options.count)
        maker = multiprocessing.get_context("spawn").Process(target=make_scans, args=given)
        maker.start()
        maker.join()
        run([str(options.model), str(scans), "-o", f"{folder}/out", "--engine", options.engine])
    total = time.process_time()
    rows = [
        {
            "scans": options.count,
            "engine": options.engine,
            "CPU s": round(total, 1),
            "network": f"{spent['network'] / total:.0%}",
            "network, without imports": f"{spent['network'] / (total - spent['imports']):.0%}",
            "imports s": round(spent["imports"], 1),
            "ms a scan beside the network": round(
                1000 * (total - spent["network"] - spent["imports"]) / options.count, 1
            ),
            **{
                f"MiB at scan {place}": round(memory_mib[place - 1])
                for place in PLACES
                if place <= len(memory_mib)
            },
        }
    ]
    show("the network's share of predict", rows)
    write(options.json, rows)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of a run")
    parser.add_argument("--scans", type=Path, required=True, help="folder of NIfTI files")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    return parser.parse_args()


def make_scans(known: Path, folder: Path, count: int) -> None:
    """Links to scans, and parts of them, in an order without regard to their shapes."""
    import nibabel
    import numpy

    folder.mkdir()
    files = sorted(path for path in known.iterdir() if ".nii" in path.suffixes)
    order = numpy.random.default_rng(0).permutation(count)
    for number, place in enumerate(order.tolist()):
        file = files[place % len(files)]
        one = folder / f"{number:04d}_{file.name}"
        if place < len(files):
            one.symlink_to(file.resolve())
            continue
        cut = [*product(range(4), repeat=3)][(place // len(files) + place) % 63 + 1]
        image: Any = nibabel.load(file)
        nibabel.save(image.slicer[tuple(slice(2 * n, None) for n in cut)], one)


def run(arguments: list[str]) -> None:
    """Runs the command in this process, and measures its parts."""
    from hsf_finetune.cli import main, predict_command

    segment = predict_command._segment

    def measured(options: argparse.Namespace) -> int:
        from hsf_finetune.inference import engine_choice, segment_files

        for name in ("torch_engine", "open_graph"):
            setattr(engine_choice, name, timed(getattr(engine_choice, name)))
        inner = segment_files.segment_files

        def started(*given: Any) -> Any:
            spent["imports"] = time.process_time()
            return inner(*given)

        setattr(segment_files, "segment_files", started)  # noqa: B010
        return segment(options)

    setattr(predict_command, "_segment", measured)  # noqa: B010
    sys.argv[0] = "hsf-finetune"
    try:
        main.main(["predict", *arguments])
    except SystemExit as stop:
        if stop.code:
            raise


def timed(make: Callable[..., Any]) -> Callable[..., Any]:
    """The function that makes an engine, whose logits are measured."""
    import psutil

    process = psutil.Process()

    def made(*given: Any) -> Any:
        engine = make(*given)

        def logits(image: Any) -> Any:
            start = time.thread_time()
            found = engine.logits(image)
            spent["network"] += time.thread_time() - start
            memory_mib.append(process.memory_info().rss / 2**20)
            return found

        return replace(engine, logits=logits)

    return made


if __name__ == "__main__":
    main()
