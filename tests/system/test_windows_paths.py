"""What a Windows machine gives and takes, as far as another one can tell: its paths as texts."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import pytest

import hsf_finetune
from hsf_finetune.config.compose import composed
from hsf_finetune.data.discovery.pairing import is_hidden
from hsf_finetune.data.discovery.subjects import assign_subjects
from hsf_finetune.system.urls import is_remote, parse_address

SOURCES = sorted(Path(hsf_finetune.__file__).parent.rglob("*.py"))
UNIX_ONLY = {"crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


@pytest.mark.parametrize(
    ("typed", "path"),
    [
        (r"C:\data\new\Users", r"C:\data\new\Users"),
        (r"C:\my data", r"C:\my data"),
        (r"'C:\a=b (1)\data'", r"C:\a=b (1)\data"),
        (r"'\\server\share\data'", r"\\server\share\data"),
        ("//server/share/data", "//server/share/data"),
    ],
)
def test_a_path_of_windows_is_a_setting_as_it_is(typed: str, path: str) -> None:
    found = composed("train", [f"datasets.main_path={typed}"], None).tree.datasets.main_path
    assert found == path
    assert PureWindowsPath(found).is_absolute()
    assert not is_remote(found)


@pytest.mark.parametrize(
    "files",
    [
        ["sub-01/anat/sub-01_T2w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz"],
        ["anna/scan.nii.gz", "berta/scan.nii.gz"],
        ["images/p1_left.nii.gz", "images/p1_right.nii.gz", "images/p2_left.nii.gz"],
    ],
)
@pytest.mark.parametrize("pattern", [None, r"^(?:\w+/)?(\w+)"])
def test_subjects_do_not_depend_on_how_folders_are_separated(
    files: Sequence[str], pattern: str | None
) -> None:
    def subjects(kind: type[PurePath], root: str) -> list[str]:
        return assign_subjects([kind(root, *f.split("/")) for f in files], kind(root), pattern)  # type: ignore[misc, arg-type]

    assert subjects(PureWindowsPath, "C:\\data") == subjects(PurePosixPath, "/data")


def test_a_hidden_folder_is_one_everywhere() -> None:
    root = PureWindowsPath("C:\\.me\\data")
    assert is_hidden(root / ".cache" / "a.nii.gz", root)  # type: ignore[arg-type]
    assert not is_hidden(root / "cache" / "a.nii.gz", root)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address", ["https://host/a:b|c?d.ckpt", "hf://me/repo/weights/a b.ckpt@main"]
)
def test_a_file_of_the_cache_has_a_name_that_windows_takes(address: str) -> None:
    name = parse_address(address).cache_file.name
    assert not re.search(r'[<>:"/\\|?*]', name)


def test_nothing_is_imported_that_windows_lacks_and_no_shell_is_started() -> None:
    wrong = []
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        for node in tree.body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{path.name}: {n}" for n in names if n.partition(".")[0] in UNIX_ONLY]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                shell = any(k.arg == "shell" for k in node.keywords)
                if called in ("os.system", "os.popen", "os.fork") or (
                    shell and called.startswith("subprocess")
                ):
                    wrong.append(f"{path.name}: {called}")
    assert wrong == []
