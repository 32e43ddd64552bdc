"""The user's own map from a checkpoint's tensor names to the network's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from hsf_finetune.system.errors import ConfigError, SeveralErrors


def map_names(
    key_map: Mapping[str, str], source: Iterable[str], target: Iterable[str]
) -> dict[str, str]:
    """The pairs of names that `finetuning.key_map` makes.

    An entry is a name -> a name, or a prefix -> a prefix where it ends in a dot (the empty
    prefix stands for none). A name that several entries fit belongs to the entry of its
    full name, else to that of the longest prefix.

    Args:
        key_map: checkpoint's name or prefix -> the network's.
        source: the checkpoint's names.
        target: the network's names.

    Returns:
        Checkpoint's name -> network's name.

    Raises:
        ConfigError: an entry is half a prefix, fits nothing in the checkpoint, leads to
            nothing in the network, or leads to the same tensor as another entry.
    """
    source, target = list(source), set(target)
    pairs: dict[str, str] = {}
    errors = [error for entry in key_map.items() if (error := _malformed(*entry))]
    for old, new in key_map.items():
        fitting = [n for n in source if n == old or (_is_prefix(old) and n.startswith(old))]
        mapped = {n: new + n[len(old) :] for n in fitting if _owner(n, key_map) == old}
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


def _is_prefix(text: str) -> bool:
    return not text or text.endswith(".")


def _owner(name: str, key_map: Mapping[str, str]) -> str:
    """The entry that decides on a name that at least one of them fits."""
    if name in key_map:
        return name
    return max((old for old in key_map if _is_prefix(old) and name.startswith(old)), key=len)


def _malformed(old: str, new: str) -> ConfigError | None:
    if _is_prefix(old) == _is_prefix(new):
        return None
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
        found=f"no name {'begins with' if _is_prefix(name) else 'is'} '{name}'",
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
