"""Which label (or further channel) belongs to which image: one explicit rule.

1. Where the partner's pattern has the wildcards of the image's pattern, each stands
   for the same text: `imagesTr/*.nii.gz` with `labelsTr/*.nii.gz`, `vol*_im.h5` with
   `vol*_seg.h5`. A pattern without a folder (or one that starts with `./` or `../`) is
   looked up beside the image, any other below the dataset's folder.
2. Otherwise the partner is the one file beside the image that matches; this
   needs a folder that holds just one image of the series.

Zero or two candidates are errors. Hidden files, such as the `._*` that macOS puts
into archives, are never matched. The suffix of a volume may be in capitals, `.NII.GZ`.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, zip_longest
from pathlib import Path

from hsf_finetune.data.volumes.dicom_series import is_dicom_folder
from hsf_finetune.data.volumes.read_volume import SUFFIXES
from hsf_finetune.system.errors import ConfigError, DataError
from hsf_finetune.system.walk_folder import glob_below

_WILDCARD = re.compile(r"\*\*/|\*|\?|\[[^\]]*\]")


@dataclass(frozen=True, slots=True)
class GlobMatch:
    """A file that a glob matches.

    Args:
        file: its path, as text: that takes less memory.
        glob: the pattern, without `./` and doubled slashes.
        texts: what each wildcard of the glob stands for in the path.
    """

    file: str
    glob: str
    texts: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.file)


@dataclass(frozen=True, eq=False)
class ImageSeries:
    """The images of one pattern, as their partners are looked up.

    Args:
        root: the dataset's folder.
        images: every image of the series.
        excluded: files to leave out; one of them is a partner only where no other file is,
            so that the caller leaves the case out.
    """

    root: Path
    images: Sequence[GlobMatch]
    excluded: Collection[Path] = ()

    @cached_property
    def images_in(self) -> Mapping[Path, int]:
        """Folder -> the number of images in it."""
        return Counter(image.path.parent for image in self.images)

    @cached_property
    def matches_by_folder(self) -> Callable[[Path, str], Mapping[Path, list[Path]]]:
        """As the function, which looks at each folder once."""
        return cache(_matches_by_folder)

    @cached_property
    def list_folder(self) -> Callable[[Path], str]:
        """As the function, which looks at each folder once."""
        return cache(_list_folder)

    @cached_property
    def names_by_start(self) -> Callable[[Path], Mapping[str, list[str]]]:
        """As the function, which looks at each folder once."""
        return cache(_names_by_start)


def glob_files(root: Path, glob: str) -> list[GlobMatch]:
    """Files, and folders of DICOM files, below `root` that match, in order of their paths.

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
        # Versions of Python treat these differently, so none is accepted.
        if any("**" in part and part != "**" for part in tidy.split("/")):
            raise ValueError("** must stand between slashes")
        start, suffix = split_suffix(tidy, SUFFIXES)
        expression = re.compile(f"{glob_regex(start)}(?i:{re.escape(suffix)})")
        any_case = (f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in suffix)
        files = sorted(glob_below(root, start + "".join(any_case)), key=_by_folders)
    except (ValueError, IndexError, NotImplementedError, re.error) as error:
        raise ConfigError(
            "not a valid file pattern",
            found=repr(glob),
            expected="such as '**/*_T2w.nii.gz'; ** stands for folders and is followed by /",
            fix=str(error) or None,
        ) from error
    hits = []
    for file in files:
        path = Path(file)
        match = expression.fullmatch(path.relative_to(root).as_posix())
        if match and not is_hidden(path, root) and (path.is_file() or is_dicom_folder(path)):
            hits.append(GlobMatch(file, tidy, match.groups()))
    return hits


def _by_folders(file: str) -> list[str]:
    """So that the files of a folder stand together, as `Path` sorts them."""
    return os.path.normcase(file).split(os.sep)


def is_hidden(path: Path, root: Path) -> bool:
    """Whether the name of a file, or of a folder between it and `root`, starts with a dot."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def find_partner(image: GlobMatch, glob: str, series: ImageSeries, role: str) -> Path:
    """The file that belongs to an image.

    Args:
        image: one of the series.
        glob: the partner's pattern.
        series: the image's series.
        role: `label` or `channel`, for messages.

    Raises:
        DataError: no file belongs to the image, or several may.
    """
    beside = "/" not in glob or glob.startswith(("./", "../"))
    folder = image.path.parent if beside else series.root
    exact = _fill_wildcards(image, _tidy(glob), beside)
    candidate = (
        None if exact is None else _find_file(Path(os.path.normpath(folder / exact)), series)
    )
    if candidate and candidate != image.path:
        return candidate
    matches = {} if glob.startswith("../") else series.matches_by_folder(folder, glob)
    near = [path for path in matches.get(image.path.parent, ()) if path != image.path]
    hits = [path for path in near if path not in series.excluded] or near
    neighbours = series.images_in[image.path.parent] - 1
    if len(hits) == 1 and not neighbours:
        return hits[0]
    what, setting = f"the image has no {role}", "label:" if role == "label" else "mri:"
    fix = f"correct {setting} in the dataset's YAML, or list the image under exclude:"
    if hits and neighbours:
        more = f"{neighbours} more {'images' if neighbours > 1 else 'image'} of the series"
        found = f"{_list_names(hits)}, and {more} in the same folder"
        if exact is None:
            what = f"the pattern does not tell which {role} belongs to the image"
            fix = f"write '{glob}' with the wildcards of '{image.glob.rsplit('/', 1)[-1]}'"
    elif hits:
        what = f"the image has more than one {role}"
        found = f"several candidates: {_list_names(hits)}"
    else:
        place = folder if exact is None else (folder / exact).parent
        found = f"in {place}: {series.list_folder(place)}"
    expected = exact or f"one file that matches '{glob}'"
    raise DataError(what, file=image.path, found=found, expected=expected, fix=fix)


def split_suffix(name: str, suffixes: Sequence[str]) -> tuple[str, str]:
    """The name without the suffix that it ends in, in whatever case, and that suffix."""
    suffix = next((s for s in suffixes if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)], name[len(name) - len(suffix) :]


def _find_file(path: Path, series: ImageSeries) -> Path | None:
    """The file or DICOM folder, or the file that differs in the case of its suffix only."""
    if path.exists() or not path.parent.is_dir():
        return path if path.is_file() or is_dicom_folder(path) else None
    names = series.names_by_start(path.parent).get(split_suffix(path.name, SUFFIXES)[0], ())
    same = (path.with_name(name) for name in names if name.lower() == path.name.lower())
    return next((other for other in same if other.is_file()), None)


def _matches_by_folder(folder: Path, glob: str) -> Mapping[Path, list[Path]]:
    """Each folder at or below one, and the files in it that match."""
    found: dict[Path, list[Path]] = defaultdict(list)
    for hit in glob_files(folder, glob):
        found[hit.path.parent].append(hit.path)
    return found


def _names_by_start(folder: Path) -> Mapping[str, list[str]]:
    """The names in a folder, by what they are without the suffix of a volume."""
    names: dict[str, list[str]] = defaultdict(list)
    for name in os.listdir(folder):
        names[split_suffix(name, SUFFIXES)[0]].append(name)
    return names


def _fill_wildcards(image: GlobMatch, glob: str, beside: bool) -> str | None:
    """The partner's pattern with the image's texts in place of its wildcards.

    Beside the image only the wildcards of its file name count, not those of its folders.
    None where the wildcards of the two patterns differ.
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


def _list_names(paths: Sequence[Path]) -> str:
    """The first names, and how many there are."""
    rest = f", ... ({len(paths)} entries)" if len(paths) > 8 else ""
    return ", ".join(p.name for p in paths[:8]) + rest if paths else "nothing"


def _list_folder(folder: Path) -> str:
    return _list_names(sorted(folder.iterdir()) if folder.is_dir() else [])


def _tidy(glob: str) -> str:
    """The pattern without `./` and doubled slashes; a final `**` stands for files as well."""
    parts = [part for part in glob.split("/") if part not in ("", ".")]
    return "/".join([*parts, "*"] if parts and parts[-1] == "**" else parts)


def glob_regex(glob: str) -> str:
    """The glob as a regular expression with one group per wildcard."""
    groups = {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "([^/])"}
    texts = map(re.escape, _WILDCARD.split(glob))
    wildcards = (groups.get(w, f"({w.replace('[!', '[^')})") for w in _WILDCARD.findall(glob))
    return "".join(chain.from_iterable(zip_longest(texts, wildcards, fillvalue="")))
