"""What is installed: the tested versions, the oldest ones, the least that `predict` needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

import hsf_finetune as hf
from hsf_finetune.cli.main import NOT_FOR_PREDICT
from tests.conftest import CONF, FAST

ROOT = CONF.parents[1]
NAMES_IN_CONDA = {
    "isal": "python-isal",
    "torch": "pytorch",
    "matplotlib": "matplotlib-base",
    "xxhash": "python-xxhash",
}
OLDEST = os.environ.get("HSF_FINETUNE_ENV_OLDEST", "")
"""An environment with the oldest versions that are admitted; see make test-clients."""
RECIPE = os.environ.get("HSF_FINETUNE_ENV_RECIPE", "")
"""An environment with rattler-build."""


def normal(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def dependencies() -> dict[str, str]:
    """Name -> versions, of what pyproject.toml depends on, in its order."""
    text = (ROOT / "pyproject.toml").read_text()
    (block,) = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r'^  "([\w-]+)([^"]*)"', block, re.MULTILINE))


def pins(name: str) -> Iterator[tuple[str, str]]:
    """Packages and versions of a file of requirements."""
    for line in (ROOT / name).read_text().splitlines():
        if found := re.match(r"([\w.-]+)==([^\s;]+)", line):
            yield normal(found.group(1)), found.group(2)


def test_the_lock_has_the_tested_versions() -> None:
    tested, run = dict(pins("constraints.txt")), dict(pins("requirements.lock"))
    locked = run | dict(pins("requirements-dev.lock"))
    assert {n: v for n, v in locked.items() if tested.get(n, v) != v} == {}
    assert {normal(name) for name in dependencies()} - run.keys() == {"torch"}
    for name in ("requirements.lock", "requirements-dev.lock"):
        lines = (ROOT / name).read_text().splitlines()[1:]
        assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)


def test_the_recipe_for_conda_has_the_same_dependencies() -> None:
    recipe = yaml.safe_load((ROOT / "containers/conda/recipe.yaml").read_text())
    python, *run = recipe["requirements"]["run"]
    named = {NAMES_IN_CONDA.get(n, n.lower()): v for n, v in dependencies().items()}
    assert dict(line.split() for line in run) == named
    text = (ROOT / "pyproject.toml").read_text()
    assert f'requires-python = "{python.split()[1]}"' in text
    assert recipe["context"]["version"] == hf.__version__


def test_predict_needs_the_first_half_of_the_dependencies_only(
    data: Path, source_run: Path, tmp_path: Path
) -> None:
    (scan,) = (data / "tiny" / "sub-01").glob("*_T2w.nii.gz")
    needed = [n for n in dependencies() if n.replace("hydra-core", "hydra") not in NOT_FOR_PREDICT]
    assert len(needed) + len(NOT_FOR_PREDICT) == len(dependencies())
    documented = (ROOT / "docs/windows_and_containers.md").read_text().split("`predict` alone")[1]
    installed = re.findall(r"-c constraints.txt ([\w\s\\-]+?)\npip", documented)
    assert " ".join(installed).replace("\\\n", "").split() == needed
    without = f"import sys; sys.modules.update(dict.fromkeys({NOT_FOR_PREDICT!r}));"
    code = f"{without} from hsf_finetune.cli.main import main; main()"
    command = [sys.executable, "-c", code, "predict", source_run, scan, "-o", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not ran.returncode, ran.stderr
    found = np.asarray(nib.nifti1.load(tmp_path / scan.name).dataobj)
    assert np.array_equal(found, hf.load_model(source_run, device="cpu").predict(scan).labels)
    train = subprocess.run([sys.executable, "-c", code, "train"], capture_output=True, text=True)
    assert train.returncode == 2
    assert "pip install hsf-finetune (without --no-deps)" in train.stderr


@pytest.mark.clients
@pytest.mark.skipif(not RECIPE, reason="HSF_FINETUNE_ENV_RECIPE names no environment")
def test_rattler_build_reads_the_recipe() -> None:
    code = (
        "import sys, rattler_build as r\n"
        "(found,) = r.Stage0Recipe.from_file(sys.argv[1]).render()\n"
        "print(found.recipe.package.name, found.recipe.build.noarch)"
    )
    command = [f"{RECIPE}/bin/python", "-c", code, ROOT / "containers/conda/recipe.yaml"]
    assert subprocess.check_output(command, text=True).split() == ["hsf-finetune", "python"]


@pytest.mark.clients
@pytest.mark.skipif(not OLDEST, reason="HSF_FINETUNE_ENV_OLDEST names no environment")
def test_the_oldest_versions_train_predict_and_report(data: Path, tmp_path: Path) -> None:
    python = f"{OLDEST}/bin/python"
    listed = subprocess.check_output([python, "-m", "pip", "list", "--format=json"], text=True)
    versions = {normal(one["name"]): one["version"] for one in json.loads(listed)}
    for name, admitted in dependencies().items():
        oldest = admitted.partition(",")[0].removeprefix(">=")
        if name != "torch":
            assert f"{versions[normal(name)]}.".startswith(f"{oldest}."), name

    def run(*arguments: str | Path) -> str:
        ran = subprocess.run(
            [python, "-m", "hsf_finetune", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not ran.returncode, ran.stdout + ran.stderr
        return ran.stdout

    where = [f"datasets.main_path={data}", f"run_dir={tmp_path / 'run'}", "datasets=tiny"]
    shown = [one for one in FAST if not one.startswith(("report", "logger", "augmentation"))]
    run("train", "--config-dir", CONF, *where, *shown, "lightning.max_epochs=2")
    (scan,) = (data / "tiny" / "sub-01").glob("*_T2w.nii.gz")
    run("predict", tmp_path / "run", scan, "-o", tmp_path / "found")
    assert (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "found" / scan.name).exists()
