"""What keeps the package easy to find one's way in: rooms, unique names, small pieces."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import hsf_finetune

PACKAGE = Path(hsf_finetune.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}

MOST_ARGUMENTS = 6
MANY_ARGUMENTS: dict[str, str] = {}
"""Functions that take more, at most five of them, each with its reason."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[str, Function]]:
    """Every function and method, as `room/module.py:Class.method`."""

    def below(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function | ast.ClassDef):
                name = f"{prefix}{child.name}"
                if isinstance(child, Function):
                    yield name, child
                yield from below(child, f"{name}.")

    for path, tree in TREES.items():
        yield from below(tree, f"{path.relative_to(PACKAGE).as_posix()}:")


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_nothing_is_loose_at_the_root() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__", "__main__", "api"}


def test_every_room_says_what_it_is_for() -> None:
    folders = {path.parent for path in FILES}
    assert all((folder / "__init__.py").exists() for folder in folders)
    missing = [path for path, tree in TREES.items() if not ast.get_docstring(tree)]
    assert missing == []


def test_no_two_modules_have_one_name() -> None:
    names = [path.stem for path in FILES if not path.stem.startswith("__")]
    names += [path.parent.name for path in FILES if path.name == "__init__.py"]
    assert {name: count for name, count in Counter(names).items() if count > 1} == {}


def test_no_two_public_classes_have_one_name() -> None:
    names = [
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert {name: count for name, count in Counter(names).items() if count > 1} == {}


def test_no_function_takes_more_than_six_arguments() -> None:
    many = {}
    for name, function in functions():
        given = function.args
        arguments = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        count = len([a for a in arguments if a not in ("self", "cls")])
        if count > MOST_ARGUMENTS:
            many[name] = count
    assert many.keys() == MANY_ARGUMENTS.keys(), many
    assert len(MANY_ARGUMENTS) <= 5


def test_files_and_functions_are_small() -> None:
    sizes = {path: lines_of(path) for path in FILES}
    assert {str(path): size for path, size in sizes.items() if size >= 350} == {}
    assert median(size for path, size in sizes.items() if path.stem != "__init__") < 150
    lengths = {name: f.end_lineno - f.lineno + 1 for name, f in functions() if f.end_lineno}
    assert {name: length for name, length in lengths.items() if length > 60} == {}


def test_tests_mirror_the_package() -> None:
    """Each folder of tests is a room, or one that is named with its reason."""
    other = {
        "": "of the whole package",
        "campaigns": "of kills, damage, hostile inputs and what users reported, everywhere",
        "docs": "of the documentation",
        "containers": "of images, and of what is installed",
        "slurm": "of jobs of a real SLURM",
        "zoo": "of defects, which go through several rooms",
        "stored_runs": "files",
        "conf": "files",
    }
    tests = Path(__file__).parent
    for path in sorted(tests.rglob("test_*.py")):
        folder = path.parent.relative_to(tests).as_posix().removeprefix(".")
        if folder.partition("/")[0] not in other:
            assert (PACKAGE / folder).is_dir(), path


def test_importing_the_package_is_light() -> None:
    import subprocess
    import sys

    code = "import sys, hsf_finetune; print(*sorted({n.partition('.')[0] for n in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "lightning", "monai", "hydra", "pydantic", "huggingface_hub"}
    assert heavy.isdisjoint(done.stdout.split())
