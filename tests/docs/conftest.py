"""A folder in which the documentation's commands run as they stand.

It holds what their examples name: `data` with a small phantom cohort, `my_conf` with the
dataset `mine` and the experiment `quick`, the source model `PATH` (also `outputs/source`), the
finished run `outputs/RUN` (also `RUN`), scans and their labels. Files of `my_conf` that stand
in for shipped ones make networks and runs small.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hsf_finetune.config.compose import compose
from hsf_finetune.config.conf_files import conf_folder
from hsf_finetune.data.phantom.write_phantoms import DESCRIPTION, PhantomCohort, write_phantoms
from hsf_finetune.experiment.run import run_experiment
from tests.conftest import CONF, FAST, save_nifti, tiny_case

SMALL_FILES = {
    "datasets/base.yaml": {"few_subjects": "0"},
    "models/unet.yaml": {
        "channels": "[4, 8]",
        "strides": "[2]",
        "features": "4",
        "num_res_units": "1",
    },
    "lightning/default.yaml": {
        "max_epochs": "1",
        "forecast": "false",
        "threads": "1",
        "accelerator": "cpu",
    },
}
"""Shipped file -> what is smaller in the copy of it that `my_conf` has."""


@pytest.fixture(scope="session")
def prepared(data: Path, source_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that every page gets a copy of."""
    root = tmp_path_factory.mktemp("prepared")
    write_phantoms(root / "data", PhantomCohort(0, 1, 4, (20, 28, 20), 1.6))
    # What is no demo starts from no phantom model, which would have to be trained first.
    (root / "data" / DESCRIPTION).unlink()
    shutil.copytree(data / "tiny", root / "FOLDER")
    (root / "FOLDER" / "dseg.tsv").write_text("index\tname\n10\tanterior\n20\tposterior\n")
    shutil.copytree(source_run, root / "PATH")
    _write_own_configuration(root / "my_conf", root / "FOLDER")
    _write_scans(root, data / "tiny")
    run_experiment(
        compose(
            "finetune",
            [
                "datasets=mine",
                f"datasets.output_path={root / 'outputs'}",
                f"run_dir={root / 'outputs' / 'RUN'}",
                f"finetuning.pretrained={root / 'PATH'}",
                *FAST,
            ],
            root / "my_conf",
        )
    )
    (root / "RUN").symlink_to(Path("outputs") / "RUN")
    (root / "outputs" / "source").symlink_to(Path("..") / "PATH")
    for name in ("first", "second"):
        shutil.copytree(root / "outputs" / "RUN", root / "outputs" / name)
    return root


@pytest.fixture(scope="session")
def copy_prepared(
    prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """A page's name -> its own copy of the prepared folder, the same at each call."""
    copies: dict[str, Path] = {}

    def copy(page: str) -> Path:
        if page not in copies:
            copies[page] = tmp_path_factory.mktemp(re.sub(r"\W+", "_", page)) / "folder"
            shutil.copytree(prepared, copies[page], symlinks=True)
        return copies[page]

    return copy


QUICK = {
    "weights": {"pretrained": "outputs/source"},
    "lightning": {"max_epochs": 2},
    "logger": {"name": "csv"},
}
"""The experiment `quick`."""


def _write_own_configuration(folder: Path, cohort: Path) -> None:
    tiny = yaml.safe_load((CONF / "datasets" / "tiny.yaml").read_text())
    tiny["main_path"] = str(cohort)
    tiny["datasets"]["tiny"]["path"] = "."
    (folder / "datasets").mkdir(parents=True)
    (folder / "datasets" / "mine.yaml").write_text(yaml.safe_dump(tiny))
    (folder / "experiment").mkdir()
    quick = "# @package _global_\n" + yaml.safe_dump(QUICK)
    (folder / "experiment" / "quick.yaml").write_text(quick)
    for name, changes in SMALL_FILES.items():
        text = (conf_folder() / name).read_text()
        for key, value in changes.items():
            text, count = re.subn(rf"^{key}: .*$", f"{key}: {value}", text, flags=re.M)
            assert count == 1, f"{name} has no {key}"
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def _write_scans(root: Path, cohort: Path) -> None:
    """Scans to segment, and their labels under the same names."""
    for number in (4, 5):
        subject = f"sub-{number:02d}"
        for kind, folder in (("T2w", "new_scans"), ("dseg", "labels")):
            (root / folder).mkdir(exist_ok=True)
            scan = root / folder / f"{subject}.nii.gz"
            shutil.copyfile(cohort / subject / f"{subject}_{kind}.nii.gz", scan)
    for name in ("scan.nii.gz", "label.nii.gz", "labels/scan.nii.gz"):
        kind = "dseg" if "label" in name else "T2w"
        shutil.copyfile(cohort / "sub-01" / f"sub-01_{kind}.nii.gz", root / name)
    shutil.copytree(root / "new_scans", root / "folder_of_scans")
    # What `hsf-finetune next` writes, corrected.
    image, label = tiny_case(8)
    save_nifti(root / "next" / "images" / "sub-08.nii.gz", image)
    save_nifti(root / "next" / "labels" / "sub-08.nii.gz", label)
    (root / "next" / "next.tsv").write_text("rank\tscan\n")
