"""The images predict as a user, offline, with what they were built of."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import hsf_finetune as hf
from tests.conftest import CONF, FAST

pytestmark = pytest.mark.clients

NAME = "hsf_finetune:test"
ROOT = CONF.parents[1]
DEFINITION = ROOT / "containers" / "hsf_finetune.def"
HOME = "home/user"
ALONE = ("--mount", "--net", "--pid", "--fork")
RUN_READ_ONLY = """
set -eu
mount --bind "$ROOT" "$ROOT"
mount --bind "$HOME_FOLDER" "$ROOT/$HOME"
mount --bind "$WORK" "$ROOT/work"
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
mount --rbind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
mount -o remount,bind,ro "$ROOT"
exec chroot --userspec=1000:1000 --groups= "$ROOT" env --ignore-environment HOME="/$HOME" \
    PATH=/usr/local/bin:/usr/bin:/bin \
    sh -c 'cd /work; . /.singularity.d/environment; exec sh /.singularity.d/"$@"' - "$@"
"""
"""As Apptainer runs a script of an image: nothing of it can be written, home and working folder
are mounted, /tmp is a temporary one, and the user is the one who started it."""


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


def output_of(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """What a command prints; it must succeed."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert not ran.returncode, ran.stdout + ran.stderr
    return ran.stdout.strip()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of buildah with the image of the Dockerfile, which is built for it."""
    folder = tmp_path_factory.mktemp("image")
    script = Path(__file__).with_name("build_image")
    built = subprocess.run([script, folder, NAME], capture_output=True, text=True, check=False)
    said = (built.stdout + built.stderr).strip().splitlines()
    if built.returncode and said[-1].endswith(("by root only", "buildah mmdebstrap")):
        pytest.skip(f"no image: {said[-1]}")
    assert not built.returncode, "\n".join(said[-30:])
    yield folder
    for remove in (("rm", "--all"), ("rmi", "--all", "--force")):
        subprocess.run(buildah(folder, *remove), capture_output=True, check=False)


@pytest.fixture(scope="module")
def container(storage: Path) -> Container:
    """A container of the image."""
    work = storage / "work"
    work.mkdir()
    work.chmod(0o777)
    return Container(storage, output_of(buildah(storage, "from", NAME)), work)


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
    inspected = output_of(buildah(container.storage, "inspect", "--type", "image", NAME))
    image = json.loads(inspected)["OCIv1"]["config"]
    assert image["Entrypoint"] == ["hsf-finetune"]
    assert image["WorkingDir"] == "/work"
    ran = container.run("hsf-finetune", "train", "lightning.max_epochs=1", "run_dir=run", *FAST)
    assert not ran.returncode, ran.stdout + ran.stderr
    assert (container.work / "run" / "checkpoints" / "last.ckpt").exists()


def sections_of(definition: Path) -> dict[str, str]:
    """The sections of a definition of Apptainer, with its arguments' own values filled in."""
    text = re.sub(r"^#.*\n", "", definition.read_text(), flags=re.MULTILINE)
    header, *parts = re.split(r"^%(\w+)\n", text, flags=re.MULTILINE)
    sections = {"header": header, **dict(zip(parts[::2], parts[1::2], strict=True))}
    for argument in sections["arguments"].split():
        name, _, value = argument.partition("=")
        sections = {key: part.replace(f"{{{{ {name} }}}}", value) for key, part in sections.items()}
    return sections


@pytest.fixture(scope="module")
def unpacked(storage: Path) -> Path:
    """What Apptainer makes of its definition, in a folder.

    Its steps are run where the Dockerfile's have been: pip finds the packages that the project
    depends on, if they are the same.
    """
    sections = sections_of(DEFINITION)
    base = re.findall(r"^FROM (.*)", (ROOT / "containers" / "Dockerfile").read_text(), re.MULTILINE)
    assert sections["header"].split() == ["Bootstrap:", "docker", "From:", *base]
    name = output_of(buildah(storage, "from", NAME))
    root = Path(output_of(buildah(storage, "mount", name)))
    run = buildah(storage, "run", "--isolation", "chroot", "--user", "0", name, "--", "sh", "-exc")
    run[-4:-4] = ["--workingdir", "/", *(storage / "mounts").read_text().split()]
    remove = "python -m pip uninstall -q -y hsf-finetune; rm -r /opt/hsf_finetune /work /cache"
    listed = "python -m pip freeze --exclude hsf-finetune"
    installed = output_of([*run, f"{remove}; {listed}"])
    for line in sections["files"].splitlines():
        if line.strip():
            source, target = line.split()
            assert target.endswith("/")
            (root / target[1:]).mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-fLr", ROOT / source, root / target[1:]], check=True)
    assert output_of([*run, f"{sections['post']}\n{listed}"]) == installed
    scripts = root / ".singularity.d"
    scripts.mkdir()
    for section in ("environment", "runscript", "test"):
        (scripts / section).write_text(sections[section])
    (root / HOME).mkdir()
    return root


def test_the_definition_of_apptainer_predicts_and_writes_into_three_folders_only(
    storage: Path, unpacked: Path, data: Path, source_run: Path, tmp_path: Path
) -> None:
    (scan,) = (data / "tiny" / "sub-01").glob("*_T2w.nii.gz")
    work, home = tmp_path / "work", tmp_path / "home"
    shutil.copytree(source_run, work / "RUN")
    shutil.copy(scan, work)
    own = home / ".local/lib/python3.11/site-packages/hsf_finetune"
    own.mkdir(parents=True)
    (own / "__init__.py").write_text("raise ImportError('a package of the user, not the image')")
    subprocess.run(["chown", "-R", "1000:1000", work, home], check=True)

    def run(*script: str) -> str:
        places = {"ROOT": unpacked, "HOME_FOLDER": home, "HOME": HOME, "WORK": work}
        return output_of(
            ["unshare", *ALONE, "sh", "-c", RUN_READ_ONLY, "-", *script],
            {**os.environ, **{name: str(value) for name, value in places.items()}},
        )

    assert "No broken requirements found" in run("test")
    run("runscript", "predict", "RUN", scan.name, "-o", "segmentations")
    found = nib.nifti1.load(work / "segmentations" / scan.name)
    assert np.array_equal(
        np.asarray(found.dataobj), hf.load_model(source_run, device="cpu").predict(scan).labels
    )
    assert (work / "segmentations" / scan.name).stat().st_uid == 1000
    written = {path.relative_to(home) for path in home.rglob("*") if path.is_file()}
    assert {path.parts[:2] for path in written} <= {(".local", "lib"), (".cache", "hsf_finetune")}
    with pytest.raises(AssertionError, match="Read-only file system"):
        run("runscript", "predict", "RUN", scan.name, "-o", "/cache/segmentations")
