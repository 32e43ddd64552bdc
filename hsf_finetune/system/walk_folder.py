"""What lies below a folder, behind links to folders as well."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path


def list_below(top: Path) -> list[Path]:
    """Every file and folder below a folder, sorted; none where it is no folder.

    Folders behind links are entered (see `walk_folder`).
    """
    return sorted(path for _, paths in walk_folder(top) for path in paths)


def walk_folder(top: Path, skip: Collection[Path] = ()) -> Iterator[tuple[Path, list[Path]]]:
    """The folder and every folder below it, each with the paths of what it holds.

    Folders behind links are entered, under the path of the link. A link that leads back, to a folder
    that holds the link or one on its path, is left out, and so is one to a folder below the top one,
    such as `latest`: what they lead to has another path. A folder that must not be read counts as
    empty.

    Args:
        top: where to begin.
        skip: folders that are not entered.
    """
    if not top.is_dir():
        return
    around = frozenset[str]().union(
        *(
            _with_parents(os.path.realpath(path))
            for path in (top, *Path(os.path.abspath(top)).parents)
        )
    )
    base = os.path.realpath(top)
    waiting = [(top, base, around)]
    while waiting:
        folder, real, around = waiting.pop()
        paths = []
        for entry in _list_entries(folder):
            path = folder / entry.name
            if entry.is_symlink() and os.path.isdir(path):
                target = os.path.realpath(path)
                beyond = around | _with_parents(target)
            elif entry.is_dir(follow_symlinks=False):
                target = os.path.join(real, entry.name)
                beyond = around | {target}
            else:
                paths.append(path)
                continue
            if target in around or (entry.is_symlink() and _is_below(target, base)):
                continue
            paths.append(path)
            if path not in skip:
                waiting.append((path, target, beyond))
        yield folder, paths


def glob_below(top: Path, pattern: str) -> set[Path]:
    """What matches a glob as `Path.glob` has it, but for `**/`, which enters folders behind links.

    Raises:
        ValueError: the pattern is no valid glob.
    """
    first, *others = pattern.split("**/")
    found = {top} if not first and others else {*top.glob(first.rstrip("/"))}
    for part in others:
        folders = {folder for start in found for folder, _ in walk_folder(start)}
        name = part.rstrip("/")
        found = {path for one in folders for path in one.glob(name)} if name else folders
    return found


# -------------------------------------------------------------------- internals
def _with_parents(path: str) -> frozenset[str]:
    return frozenset((path, *map(str, Path(path).parents)))


def _is_below(path: str, top: str) -> bool:
    """Whether a real path lies below another one, and not in a hidden folder of it."""
    parts = Path(path).relative_to(top).parts if Path(path).is_relative_to(top) else ()
    return bool(parts) and not any(part.startswith(".") for part in parts)


def _list_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [*entries]
    except (PermissionError, FileNotFoundError):
        return []
