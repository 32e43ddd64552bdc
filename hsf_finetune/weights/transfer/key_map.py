"""The user's own map from a checkpoint's tensor names to the network's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from hsf_finetune.system.errors import ConfigError, SeveralErrors


def map_names(
    key_map: Mapping[str, str], source: Iterable[str], target: Iterable[str]
) -> dict[str, str]:
    """The pairs of names that `finetuning.key_map` makes.

    An entry is a name -> a name, a pattern -> a pattern, where each `*` stands for any text,
    the same on both sides, or a prefix -> a prefix where it ends in a dot (the empty prefix
    stands for none). A name that several entries fit belongs to the entry of its full name,
    else to that with the most characters beside its stars.

    Returns:
        Checkpoint's name -> network's name.

    Raises:
        ConfigError: an entry has a pattern on one side only, fits nothing in the checkpoint,
            leads to nothing in the network, or leads to the same tensor as another entry.
    """
    source, target = list(source), set(target)
    patterns = {
        old: re.compile("(.*?)".join(map(re.escape, _starred(old).split("*")))) for old in key_map
    }
    pairs: dict[str, str] = {}
    errors = [error for entry in key_map.items() if (error := _malformed(*entry))]
    for old, new in key_map.items():
        fitting = {n: m for n in source if (m := patterns[old].fullmatch(n))}
        own = {n: m for n, m in fitting.items() if _owner(n, patterns) == old}
        mapped = {n: _filled(new, m.groups()) for n, m in own.items()}
        found = {name: known for name, known in mapped.items() if known in target}
        if not fitting:
            errors.append(_leads_nowhere(old, "in the checkpoint", old, source))
        elif mapped and not found:
            first = next(iter(mapped.values()))
            errors.append(_leads_nowhere(old, "in the network", first, target))
        pairs |= found
    errors += _collisions(pairs)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        title = "several entries of finetuning.key_map are wrong"
        raise ConfigError(str(SeveralErrors(title, [*errors])))
    return pairs


# -------------------------------------------------------------------- internals
def _is_prefix(text: str) -> bool:
    return not text or text.endswith(".")


def _starred(text: str) -> str:
    """An entry with a star for each text that it leaves open, also for what follows a prefix."""
    return text + "*" * _is_prefix(text)


def _filled(new: str, texts: Iterable[str]) -> str:
    """A name of the network, with the texts in place of its stars."""
    left = iter(texts)
    return re.sub(r"\*", lambda star: next(left, ""), _starred(new))


def _owner(name: str, patterns: Mapping[str, re.Pattern[str]]) -> str:
    """The entry that decides on a name that at least one of them fits."""
    if name in patterns:
        return name
    fitting = (old for old, pattern in patterns.items() if pattern.fullmatch(name))
    return max(fitting, key=lambda old: len(old.replace("*", "")))


def _malformed(old: str, new: str) -> ConfigError | None:
    same_stars = _starred(old).count("*") == _starred(new).count("*")
    if same_stars and _is_prefix(old) == _is_prefix(new):
        return None
    if "*" in old + new:
        return ConfigError(
            "finetuning.key_map pairs patterns with another number of stars",
            found=f"{old}: {new}",
            expected="as many stars on both sides",
        )
    return ConfigError(
        "finetuning.key_map pairs a prefix with a name",
        found=f"{old}: {new}",
        expected="two names, or two prefixes that end in a dot",
        fix=f"'finetuning.key_map={{{old.rstrip('.')}.: {new.rstrip('.')}.}}'",
    )


def _leads_nowhere(old: str, where: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for an entry that leads to nothing, with the names that come closest."""
    known = list(known)
    close = get_close_matches(name, known, n=3, cutoff=0.4)
    if not close:
        last = name.rstrip(".").rpartition(".")[2]
        close = [other for other in known if last and last in other.split(".")][:3]
    return ConfigError(
        f"finetuning.key_map: '{old}' leads to nothing {where}",
        found=f"no name {'fits' if '*' in name else 'begins with' if _is_prefix(name) else 'is'} '{name}'",
        expected="a name such as " + ", ".join(close or sorted(known)[:3]),
    )


def _collisions(pairs: Mapping[str, str]) -> list[ConfigError]:
    by_target: dict[str, list[str]] = {}
    for old, new in pairs.items():
        by_target.setdefault(new, []).append(old)
    return [
        ConfigError(f"finetuning.key_map leads several tensors to '{new}'", found=", ".join(olds))
        for new, olds in by_target.items()
        if len(olds) > 1
    ]
