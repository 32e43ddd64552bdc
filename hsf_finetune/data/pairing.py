"""Which label (or further channel) belongs to which image: one explicit rule.

1. Where the partner's pattern has the image pattern's wildcards, each stands for
   the same text: `imagesTr/*.nii.gz` with `labelsTr/*.nii.gz`, `vol*_im.h5` with
   `vol*_seg.h5`. A pattern without a folder is looked up beside the image.
2. Otherwise the partner is the one file beside the image that matches; this
   needs a folder that holds just one image of the series.

Zero or two candidates are errors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.errors import ConfigError, DataError

_WILDCARD = re.compile(r"\*\*/|\*|\?|\[[^\]]*\]")


@dataclass(frozen=True)
class Found:
    """A file that a glob matched, and the text behind each of the glob's wildcards."""

    path: Path
    glob: str
    texts: tuple[str, ...]


def glob_files(root: Path, glob: str) -> list[Found]:
    """Files below `root` that match, in order of their paths."""
    if Path(glob).is_absolute():
        raise ConfigError(
            "patterns are relative to the dataset's path",
            found=glob,
            fix="put the folder into main_path and path",
        )
    expression = re.compile(_regex(glob))
    hits = []
    for path in sorted(root.glob(glob)):
        match = expression.fullmatch(path.relative_to(root).as_posix())
        if match and path.is_file():
            hits.append(Found(path, glob, match.groups()))
    return hits


def partner(image: Found, glob: str, images: Sequence[Found], root: Path, role: str) -> Path:
    """The file that belongs to an image.

    Args:
        image: the image.
        glob: the partner's pattern.
        images: every image of the series.
        root: the dataset's folder.
        role: `label` or `channel`, for messages.

    Raises:
        DataError: there is no such file, or there are several.
    """
    folder = root if "/" in glob else image.path.parent
    exact = _substituted(image, glob)
    if exact is not None:
        candidate = folder / exact
        if candidate.is_file() and candidate != image.path:
            return candidate
    alone = sum(other.path.parent == image.path.parent for other in images) == 1
    hits = [h.path for h in glob_files(folder, glob) if h.path != image.path] if alone else []
    if len(hits) == 1:
        return hits[0]
    raise _unpaired(image, glob, exact, folder, hits, role)


def _substituted(image: Found, glob: str) -> str | None:
    """The partner's name with the image's texts in place of the wildcards."""
    wanted = _WILDCARD.findall(glob)
    texts, wildcards = list(image.texts), _WILDCARD.findall(image.glob)
    if "/" not in glob:
        in_name = len(_WILDCARD.findall(image.glob.rsplit("/", 1)[-1]))
        texts, wildcards = texts[len(texts) - in_name :], wildcards[len(wildcards) - in_name :]
    if wanted != wildcards:
        return None if wanted else glob
    remaining = iter(texts)
    return _WILDCARD.sub(lambda _: next(remaining), glob)


def _unpaired(
    image: Found, glob: str, exact: str | None, folder: Path, hits: Sequence[Path], role: str
) -> DataError:
    if hits:
        found = "several candidates: " + ", ".join(p.name for p in hits)
    else:
        place = (folder / exact).parent if exact is not None else folder
        there = sorted(p.name for p in place.iterdir()) if place.is_dir() else []
        rest = f", ... ({len(there)} entries)" if len(there) > 8 else ""
        found = f"in {place}: {', '.join(there[:8]) or 'nothing'}{rest}"
    return DataError(
        f"the image has no {role}" if not hits else f"the image has more than one {role}",
        file=image.path,
        found=found,
        expected=f"{exact}" if exact is not None else f"one file that matches '{glob}'",
        fix=f"correct {role if role == 'label' else 'mri'}: in the dataset's YAML, or list the "
        "image under exclude:",
    )


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
