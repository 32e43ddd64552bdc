"""The status of every volume of a dataset's folder, and what to do about files without a partner."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.config.settings import DatasetSettings
from hsf_finetune.data.discovery.pairing import glob_regex, is_hidden, split_suffix
from hsf_finetune.data.volumes.read_volume import FOREIGN, SUFFIXES
from hsf_finetune.system.walk_folder import paths_below

_EXCLUDE = ", or list it under the dataset's exclude:"


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A file with its status, `image`, `label`, `excluded` or `unused`, and the reason.

    A file that several cases use has an entry for each. `fix` says what to do about a file that
    the dataset describes, and that no case uses all the same.
    """

    path: Path
    status: str
    reason: str
    case: str = ""
    subject: str = ""
    fix: str = ""


def find_other_files(
    name: str,
    dataset: DatasetSettings,
    root: Path,
    excluded: Mapping[Path, str],
    used: Collection[str],
) -> Iterator[LedgerEntry]:
    """The volumes below a dataset's folder that its cases do not use, and why."""
    patterns = _Patterns(dataset)
    for path in paths_below(root):
        if str(path) in used:
            continue
        suffix = split_suffix(path.name, (*SUFFIXES, *FOREIGN))[1].lower()
        if not suffix or not (path.is_file() or path.is_symlink()) or path.is_dir():
            continue
        reason, fix = patterns.explain(path, path.relative_to(root).as_posix(), suffix)
        if suffix in FOREIGN and not reason:
            continue
        status = "excluded" if path in excluded or is_hidden(path, root) else "unused"
        if status == "excluded":
            fix, reason = "", "a hidden file"
            reason = f"matches exclude: {excluded[path]}" if path in excluded else reason
        elif dataset.table is not None:
            reason = f"the table of '{name}' does not list it"
        reason = reason or f"no pattern of '{name}' matches it"
        yield LedgerEntry(path, status, reason, fix=fix)


class _Patterns:
    """The patterns of a dataset, which also recognise files with another suffix."""

    def __init__(self, dataset: DatasetSettings) -> None:
        globs: list[tuple[str, str]] = []
        for pattern in dataset.patterns.values():
            images = [pattern.mri] if isinstance(pattern.mri, str) else pattern.mri
            globs += [("image", glob) for glob in images]
            if pattern.label is not None and images:
                globs.append(("label", _from_root(pattern.label, images[0])))
        self._patterns: list[tuple[str, re.Pattern[str], str]] = []
        for role, glob in globs if dataset.table is None else ():
            with suppress(re.error):  # no valid glob, which discovery reports
                self._patterns.append((role, *_with_any_suffix(glob)))

    def explain(self, path: Path, relative: str, suffix: str) -> tuple[str, str]:
        """Why a file that a pattern describes may be unused, and the fix; else empty texts."""
        roles = [
            (role, wanted)
            for role, expression, wanted in self._patterns
            if expression.fullmatch(relative)
        ]
        if not roles:
            return "", ""
        if not path.exists():
            return "a link that leads to no file", f"restore the file that it leads to{_EXCLUDE}"
        exact = [role for role, wanted in roles if wanted in ("", suffix)]
        if not exact and suffix in FOREIGN:
            return f"{suffix} files are not read", f"convert it to NIfTI{_EXCLUDE}"
        if not exact:
            wanted = roles[0][1]
            fix = f"convert it to {wanted}, or write a pattern for {suffix}{_EXCLUDE}"
            return f"its suffix {suffix} is not that of the pattern, {wanted}", fix
        if "label" in exact:
            return "a label without an image", f"put its image beside the others{_EXCLUDE}"
        return "", ""


def _from_root(label: str, image: str) -> str:
    """A label's glob from the dataset's folder, where it is given from the image's."""
    if "/" in label and not label.startswith(("./", "../")):
        return label
    folder = image.rpartition("/")[0]
    return posixpath.normpath(f"{folder}/{label}".replace("**/../", "**/")).lstrip("/")


def _with_any_suffix(glob: str) -> tuple[re.Pattern[str], str]:
    """The glob as an expression that any suffix of a volume fits, and its own suffix."""
    start, suffix = split_suffix(glob, SUFFIXES)
    others = "|".join(map(re.escape, (*SUFFIXES, *FOREIGN)))
    any_suffix = f"(?i:{others})" if suffix else ""
    return re.compile(glob_regex(start) + any_suffix), suffix.lower()
