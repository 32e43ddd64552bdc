"""The image predicts as a user, offline, with what it was built of."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import hsf_finetune as hf
from tests.conftest import FAST

pytestmark = pytest.mark.clients

NAME = "hsf_finetune:test"


def buildah(folder: Path, *arguments: str | Path) -> list[str]:
    """A command of buildah in a storage of its own."""
    where = ["--root", folder / "storage", "--runroot", folder / "run"]
    return [str(one) for one in ["buildah", *where, *arguments]]


@dataclass(frozen=True)
class Container:
    """A container of the image.

    Args:
        storage: of buildah.
        name: of the container.
        work: what it has as /work.
    """

    storage: Path
    name: str
    work: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command as a user, without a network."""
        run = buildah(self.storage, "run", "--isolation", "chroot", "--user", "1000:1000")
        arguments = [*run, f"--volume={self.work}:/work", self.name, "--", *command]
        return subprocess.run(
            ["unshare", "--net", *arguments], capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A container of the image, which is built for it."""
    folder = tmp_path_factory.mktemp("image")
    script = Path(__file__).with_name("build_image")
    built = subprocess.run([script, folder, NAME], capture_output=True, text=True, check=False)
    said = (built.stdout + built.stderr).strip().splitlines()
    if built.returncode and said[-1].endswith(("by root only", "buildah mmdebstrap")):
        pytest.skip(f"no image: {said[-1]}")
    assert not built.returncode, "\n".join(said[-30:])
    made = buildah(folder, "from", NAME)
    name = subprocess.run(made, capture_output=True, text=True, check=True).stdout.strip()
    work = folder / "work"
    work.mkdir()
    work.chmod(0o777)
    yield Container(folder, name, work)
    for remove in (("rm", "--all"), ("rmi", "--all", "--force")):
        subprocess.run(buildah(folder, *remove), capture_output=True, check=False)


def test_a_user_segments_a_scan_offline(container: Container, data: Path, source_run: Path) -> None:
    (scan,) = (data / "tiny" / "sub-01").glob("*_T2w.nii.gz")
    shutil.copytree(source_run, container.work / "RUN")
    shutil.copy(scan, container.work)
    ran = container.run("hsf-finetune", "predict", "RUN", scan.name, "-o", "segmentations")
    assert not ran.returncode, ran.stdout + ran.stderr
    found = nib.nifti1.load(container.work / "segmentations" / scan.name)
    expected = hf.load_model(source_run, device="cpu").predict(scan).labels
    assert np.array_equal(np.asarray(found.dataobj), expected)
    assert container.run("id", "-u").stdout.strip() == "1000"
    devices = container.run("cat", "/proc/net/dev").stdout.splitlines()[2:]
    assert [line.partition(":")[0].strip() for line in devices] == ["lo"]


def test_the_image_starts_the_command_and_trains(container: Container) -> None:
    inspected = subprocess.run(
        buildah(container.storage, "inspect", "--type", "image", NAME),
        capture_output=True,
        text=True,
        check=True,
    )
    image = json.loads(inspected.stdout)["OCIv1"]["config"]
    assert image["Entrypoint"] == ["hsf-finetune"]
    assert image["WorkingDir"] == "/work"
    ran = container.run("hsf-finetune", "train", "lightning.max_epochs=1", "run_dir=run", *FAST)
    assert not ran.returncode, ran.stdout + ran.stderr
    assert (container.work / "run" / "checkpoints" / "last.ckpt").exists()
