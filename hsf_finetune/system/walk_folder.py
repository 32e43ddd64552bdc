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


def glob_below(top: Path, pattern: str) -> set[str]:
    """What matches a glob as `Path.glob` has it, but for `**/`, which enters folders behind links.

    Paths are text, which takes a third of the memory.

    Raises:
        ValueError: the pattern is no valid glob.
    """
    first, *others = pattern.split("**/")
    found = {str(top)} if not first and others else {*map(str, top.glob(first.rstrip("/")))}
    for part in others:
        folders = {str(folder) for start in found for folder, _ in walk_folder(Path(start))}
        name = part.rstrip("/")
        if name:
            found = {str(path) for folder in folders for path in Path(folder).glob(name)}
        else:
            found = folders
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
    found: list[str] = []
    folders: set[str] = set()
    links: dict[str, str] = {}
    for entry in _entries(folder):
        name = entry.name
        if entry.is_symlink() and os.path.isdir(entry.path):
            links[name] = target = os.path.realpath(entry.path)
            if target in around or _is_below(target, base):
                continue
        elif entry.is_dir(follow_symlinks=False):
            if os.path.join(real, name) in around:
                continue
            folders.add(name)
        found.append(name)
    found.sort(key=os.path.normcase)
    yield folder, (folder / name for name in found)
    for name in found:
        if (name in links or name in folders) and (path := folder / name) not in skip:
            target = links.get(name) or os.path.join(real, name)
            beyond = around | (_with_parents(target) if name in links else {target})
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
