"""Which label (or further channel) belongs to which image: one explicit rule.

1. Where the partner's pattern has the image pattern's wildcards, each stands for
   the same text: `imagesTr/*.nii.gz` with `labelsTr/*.nii.gz`, `vol*_im.h5` with
   `vol*_seg.h5`. A pattern without a folder (or one that starts with `./` or `../`) is
   looked up beside the image, any other below the dataset's folder.
2. Otherwise the partner is the one file beside the image that matches; this
   needs a folder that holds just one image of the series.

Zero or two candidates are errors. Hidden files, such as the `._*` that macOS puts
into archives, are never matched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.system.errors import ConfigError, DataError

_WILDCARD = re.compile(r"\*\*/|\*|\?|\[[^\]]*\]")


@dataclass(frozen=True)
class Found:
    """A file that a glob matched, and the text behind each of the glob's wildcards."""

    path: Path
    glob: str
    texts: tuple[str, ...]


def glob_files(root: Path, glob: str) -> list[Found]:
    """Files below `root` that match, in order of their paths.

    Raises:
        ConfigError: the pattern is absolute, or no valid glob.
    """
    if Path(glob).is_absolute():
        raise ConfigError(
            "patterns are relative to the dataset's path",
            found=glob,
            fix="put the folder into main_path and path",
        )
    tidy = _tidy(glob)
    try:
        # Versions of Python differ in what they make of these, so none is accepted.
        if any("**" in part and part != "**" for part in tidy.split("/")):
            raise ValueError("** must stand between slashes")
        expression, paths = re.compile(_regex(tidy)), sorted(root.glob(tidy))
    except (ValueError, IndexError, NotImplementedError, re.error) as error:
        raise ConfigError(
            "not a valid file pattern",
            found=repr(glob),
            expected="such as '**/*_T2w.nii.gz'; ** stands for folders and is followed by /",
            fix=str(error) or None,
        ) from error
    hits = []
    for path in paths:
        match = expression.fullmatch(path.relative_to(root).as_posix())
        if match and path.is_file() and not is_hidden(path, root):
            hits.append(Found(path, tidy, match.groups()))
    return hits


def is_hidden(path: Path, root: Path) -> bool:
    """Whether a file, or a folder on its way below `root`, has a name that starts with a dot."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def partner(
    image: Found,
    glob: str,
    images: Sequence[Found],
    root: Path,
    role: str,
    excluded: Collection[Path] = (),
) -> Path:
    """The file that belongs to an image.

    Args:
        image: the image.
        glob: the partner's pattern.
        images: every image of the series.
        root: the dataset's folder.
        role: `label` or `channel`, for messages.
        excluded: files to leave out; one of them is returned only if it is the
            partner all the same, for the caller to leave the case out.

    Raises:
        DataError: there is no such file, or there are several.
    """
    beside = "/" not in glob or glob.startswith(("./", "../"))
    folder = image.path.parent if beside else root
    exact = _substituted(image, _tidy(glob), beside)
    if exact is not None:
        candidate = Path(os.path.normpath(folder / exact))
        if candidate.is_file() and candidate != image.path:
            return candidate
    neighbours = sum(other.path.parent == image.path.parent for other in images) - 1
    every = [] if glob.startswith("../") else [hit.path for hit in glob_files(folder, glob)]
    near = [p for p in every if p.parent == image.path.parent and p != image.path]
    hits = [path for path in near if path not in excluded] or near
    if len(hits) == 1 and not neighbours:
        return hits[0]
    raise _unpaired(image, glob, exact, folder, hits, neighbours, role)


def _substituted(image: Found, glob: str, beside: bool) -> str | None:
    """The partner's name with the image's texts in place of the wildcards.

    Beside the image only the wildcards of its file name count, not those of its folders.
    """
    wanted = _WILDCARD.findall(glob)
    texts, wildcards = list(image.texts), _WILDCARD.findall(image.glob)
    if beside:
        in_name = len(_WILDCARD.findall(image.glob.rsplit("/", 1)[-1]))
        texts, wildcards = texts[len(texts) - in_name :], wildcards[len(wildcards) - in_name :]
    if wanted != wildcards:
        return None if wanted else glob
    remaining = iter(texts)
    return _WILDCARD.sub(lambda _: next(remaining), glob)


def _unpaired(
    image: Found,
    glob: str,
    exact: str | None,
    folder: Path,
    hits: Sequence[Path],
    neighbours: int,
    role: str,
) -> DataError:
    key = "label" if role == "label" else "mri"
    expected = exact if exact is not None else f"one file that matches '{glob}'"
    fix = f"correct {key}: in the dataset's YAML, or list the image under exclude:"
    what = f"the image has no {role}"
    if hits and neighbours:
        found = _listed(hits) + f", and {neighbours} more images of the series in the same folder"
        if exact is None:
            what = f"the pattern does not tell which {role} belongs to the image"
            fix = f"write '{glob}' with the wildcards of '{image.glob.rsplit('/', 1)[-1]}'"
    elif hits:
        what, found = f"the image has more than one {role}", "several candidates: " + _listed(hits)
    else:
        place = (folder / exact).parent if exact is not None else folder
        there = sorted(place.iterdir()) if place.is_dir() else []
        found = f"in {place}: {_listed(there)}"
    return DataError(what, file=image.path, found=found, expected=expected, fix=fix)


def _listed(paths: Sequence[Path]) -> str:
    rest = f", ... ({len(paths)} entries)" if len(paths) > 8 else ""
    return ", ".join(p.name for p in paths[:8]) + rest if paths else "nothing"


def _tidy(glob: str) -> str:
    """The pattern without `./` and doubled slashes; a final `**` stands for files as well."""
    parts = [part for part in glob.split("/") if part not in ("", ".")]
    return "/".join([*parts, "*"] if parts and parts[-1] == "**" else parts)


def _regex(glob: str) -> str:
    """The glob as a regular expression with one group per wildcard."""
    parts, end = [], 0
    for wildcard in _WILDCARD.finditer(glob):
        parts.append(re.escape(glob[end : wildcard.start()]))
        token = wildcard.group()
        parts.append(
            {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "([^/])"}.get(
                token, "(" + token.replace("[!", "[^") + ")"
            )
        )
        end = wildcard.end()
    return "".join([*parts, re.escape(glob[end:])])
