"""What lies below a folder, behind links to folders as well."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path


def paths_below(top: Path) -> Iterator[Path]:
    """Every file and folder below a folder, in their order; none where it is no folder.

    Folders behind links are entered (see `walk_folder`).
    """
    listed: list[Iterator[Path]] = []
    for folder, paths in walk_folder(top):
        yield from _up_to(folder, listed)
        listed.append(paths)
    yield from _up_to(None, listed)


def walk_folder(top: Path, skip: Collection[Path] = ()) -> Iterator[tuple[Path, Iterator[Path]]]:
    """The folder and every folder below it, each with the paths of what it holds, in their order.

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
    yield from _walk(top, base, around, base, skip)


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
def _walk(
    folder: Path, real: str, around: frozenset[str], base: str, skip: Collection[Path]
) -> Iterator[tuple[Path, Iterator[Path]]]:
    """As `walk_folder`.

    Args:
        folder: where to begin.
        real: its real path.
        around: real paths that no folder may lead back to.
        base: real path of the top folder.
        skip: folders that are not entered.
    """
    # Names take a fraction of the memory of paths, and a folder may hold thousands.
    found: list[tuple[str, str | None, bool]] = []
    for entry in _entries(folder):
        target, is_link = None, entry.is_symlink()
        if is_link and os.path.isdir(entry.path):
            target = os.path.realpath(entry.path)
        elif entry.is_dir(follow_symlinks=False):
            target = os.path.join(real, entry.name)
        if target is None or not (target in around or (is_link and _is_below(target, base))):
            found.append((entry.name, target, is_link))
    found.sort(key=lambda one: os.path.normcase(one[0]))
    yield folder, (folder / name for name, _, _ in found)
    for name, target, is_link in found:
        if target is not None and (path := folder / name) not in skip:
            beyond = around | (_with_parents(target) if is_link else {target})
            yield from _walk(path, target, beyond, base, skip)


def _up_to(folder: Path | None, listed: list[Iterator[Path]]) -> Iterator[Path]:
    """What is left of lists of folders, the innermost last, up to a folder or to the end."""
    while listed:
        for path in listed[-1]:
            yield path
            if path == folder:
                return
        listed.pop()


def _with_parents(path: str) -> frozenset[str]:
    return frozenset((path, *map(str, Path(path).parents)))


def _is_below(path: str, top: str) -> bool:
    """Whether a real path lies below another one, and not in a hidden folder of it."""
    parts = Path(path).relative_to(top).parts if Path(path).is_relative_to(top) else ()
    return bool(parts) and not any(part.startswith(".") for part in parts)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with suppress(PermissionError, FileNotFoundError), os.scandir(folder) as entries:
        yield from entries
