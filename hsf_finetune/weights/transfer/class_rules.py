"""Which channels of a pretrained head each class of a new head comes from."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from hsf_finetune.labels.classes import BACKGROUND
from hsf_finetune.system.errors import ConfigError, SeveralErrors

Derivations = Mapping[str, "str | Sequence[str]"]
HeadPolicy = Literal["transfer", "copy", "fresh"]
RuleName = Literal["copied", "split", "merged", "from background", "copied by position", "fresh"]


@dataclass(frozen=True)
class ClassRule:
    """Where one output channel comes from.

    Args:
        target: class of the new head.
        rule: how its channel is made.
        sources: classes of the checkpoint that it is made of.
        channels: their channels in the checkpoint; empty where it starts fresh.
        bias_shift: what is added to the bias.
        note: what a user should know about it.
    """

    target: str
    rule: RuleName
    sources: tuple[str, ...]
    channels: tuple[int, ...]
    bias_shift: float = 0.0
    note: str = ""

    def line(self) -> str:
        """The rule in a few words."""
        words: list[str] = [self.rule]
        if self.rule != "from background" and self.sources not in ((), (self.target,)):
            words.append("of " + " + ".join(self.sources))
        if self.bias_shift:
            words.append(f"(bias {self.bias_shift:+.3f})")
        if self.note:
            words.append(f"- {self.note}")
        return " ".join(words)


def make_class_rules(
    target: Sequence[str],
    source: Sequence[str] | None,
    source_channels: int | None,
    derive_from: Derivations,
    policy: HeadPolicy = "transfer",
) -> tuple[ClassRule, ...]:
    """One rule per class of the new head.

    With `transfer`, a class is made of the class of the same name, or of those in
    `derive_from`. With p the softmax of the logits z, a source channel that feeds k target
    channels gives each of them its weights and its bias - log k: exp(z - log k) sums to
    exp(z) over the k, so every probability but the parent's own stays as it was, and the
    children's sum is the parent's. A new class with no derivation comes out of the
    background in just that way (Cermelli et al. 2020, "Modeling the background",
    arXiv:2002.00718, eq. 10). A class made of m others should get the log of the sum of
    their exp(z), which no single channel has; it gets the mean of their weights and the
    mean of their biases + log m. That is right where they agree, and never too high
    (Jensen): of two whose logits differ by d, it is too low by log cosh(d / 2).

    Without names, and with `copy` in any case, channels go by their position.

    Args:
        target: classes of the new head, in channel order.
        source: classes of the checkpoint, in channel order; None where it names none.
        source_channels: output channels of the checkpoint, for a head without names.
        derive_from: class of the new head -> class or classes of the checkpoint.
        policy: by name (`transfer`), by position (`copy`), or as initialised (`fresh`).

    Raises:
        ConfigError: `derive_from` names a class that the new head or the checkpoint
            does not have, the checkpoint names no classes, `derive_from` has no effect
            with the policy, or there are too many or too few classes to copy.
    """
    if policy != "transfer" and derive_from:
        raise ConfigError(
            f"finetuning.derive_from has no effect with finetuning.head={policy}",
            found=dict(derive_from),
            fix="finetuning.head=transfer, or leave derive_from out",
        )
    if policy == "fresh":
        return fresh_rules(target, "finetuning.head=fresh")
    if policy == "copy":
        return _copy_by_position(target, source, source_channels)
    if source is None:
        return _rules_without_names(target, source_channels, derive_from)
    derived = {
        name: (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))
        for name, given in derive_from.items()
    }
    _check_derived(target, source, derived)
    default = {name: name if name in source else BACKGROUND for name in target}
    known = {name: (origin,) for name, origin in default.items() if origin in source}
    origins: dict[str, tuple[str, ...]] = {n: derived.get(n) or known.get(n) or () for n in target}
    uses = Counter(origin for origins_of in origins.values() for origin in origins_of)
    rules = []
    for name in target:
        note = "" if name in derived or name in source else _spelling_note(name, source)
        rules.append(_rule(name, origins[name], uses, source, note))
    return tuple(rules)


def source_class_names(
    recorded: Sequence[str] | None, given: Sequence[str] | None, channels: int | None
) -> Sequence[str] | None:
    """The classes of a checkpoint: those it records, or those the user gives it.

    Raises:
        ConfigError: the given names contradict the recorded ones or the number of
            channels, are not distinct, or do not begin with the background.
    """
    if given is None or (recorded is not None and list(recorded) == list(given)):
        return recorded
    name, found = "finetuning.source_classes", "[" + ", ".join(given) + "]"
    if recorded is not None:
        raise ConfigError(
            f"{name} contradicts the checkpoint, which names its classes itself",
            found=found,
            expected="[" + ", ".join(recorded) + "]",
            fix=f"leave {name} out; finetuning.derive_from says which class comes out of which",
        )
    if list(given[:1]) != [BACKGROUND] or len(set(given)) < len(given):
        raise ConfigError(
            f"{name} should be distinct names, of which '{BACKGROUND}' is the first", found=found
        )
    if channels not in (None, len(given)):
        raise ConfigError(
            f"{name} should have a name for each of the checkpoint's {channels} channels",
            found=f"{len(given)} names: {found}",
        )
    return given


def fresh_rules(target: Sequence[str], note: str) -> tuple[ClassRule, ...]:
    """Every channel as it was initialised, and why."""
    return tuple(ClassRule(name, "fresh", (), (), note=note) for name in target)


def derive_override(derived: Derivations) -> str:
    """The override, quoted for Hydra and a shell, that takes classes out of others."""

    def escaped(name: str) -> str:
        return re.sub(r"([\\()\[\]{}:=,])", r"\\\1", name)

    pairs = [
        f"{escaped(target)}: "
        + (escaped(given) if isinstance(given, str) else f"[{', '.join(map(escaped, given))}]")
        for target, given in derived.items()
    ]
    return shlex.quote(f"finetuning.derive_from={{{', '.join(pairs)}}}")


# -------------------------------------------------------------------- internals
def _rule(
    name: str,
    origins: tuple[str, ...],
    uses: Mapping[str, int],
    source: Sequence[str],
    note: str,
) -> ClassRule:
    if not origins:
        return ClassRule(name, "fresh", (), (), note=note or "the checkpoint has no background")
    shift = math.log(len(origins)) - sum(math.log(uses[o]) for o in origins) / len(origins)
    rule: RuleName
    if len(origins) > 1:
        rule, note = "merged", _merge_note(len(origins))
    elif origins == (name,):
        rule = "copied"
    elif origins == (BACKGROUND,):
        rule = "from background"
    else:
        rule = "split" if uses[origins[0]] > 1 else "copied"
    return ClassRule(name, rule, origins, tuple(source.index(o) for o in origins), shift, note)


def _rules_without_names(
    target: Sequence[str], source_channels: int | None, derive_from: Derivations
) -> tuple[ClassRule, ...]:
    if derive_from:
        raise ConfigError(
            "finetuning.derive_from needs the checkpoint's class names, and it has none",
            found=dict(derive_from),
            fix=f"name its {source_channels or ''} output channels in their order: "
            f"'finetuning.source_classes=[{BACKGROUND}, ...]'",
        )
    if source_channels == len(target):
        return _copy_by_position(target, None, source_channels)
    count = f"its {source_channels} channels have" if source_channels else "its head has"
    note = f"{count} no names; to name them: 'finetuning.source_classes=[{BACKGROUND}, ...]'"
    return fresh_rules(target, note)


def _copy_by_position(
    target: Sequence[str], source: Sequence[str] | None, source_channels: int | None
) -> tuple[ClassRule, ...]:
    count = source_channels if source is None else len(source)
    if count != len(target):
        raise ConfigError(
            "finetuning.head=copy needs as many classes as the checkpoint has",
            found=f"{count} in the checkpoint, {len(target)} in the new head: {', '.join(target)}",
            fix="finetuning.head=transfer (by name; finetuning.source_classes names those of a "
            "checkpoint that does not) or finetuning.head=fresh",
        )
    names = source or [f"channel {number}" for number in range(len(target))]
    return tuple(
        ClassRule(name, "copied by position", (names[number],), (number,))
        for number, name in enumerate(target)
    )


def _merge_note(count: int) -> str:
    return (
        f"lossy: mean weights, mean bias + log {count}; too low wherever they differ"
        + (" (by log cosh of half the difference)" if count == 2 else "")
        + f". Exact: keep the {count} as classes, and let a label value stand for any of them"
    )


def _spelling_note(name: str, source: Sequence[str]) -> str:
    def bare(text: str) -> str:
        return re.sub(r"[\W_]+", "", text).casefold()

    similar = [other for other in source if bare(other) == bare(name)]
    if not similar:
        return ""
    return f"the checkpoint has '{similar[0]}': {derive_override({name: similar[0]})}"


def _check_derived(
    target: Sequence[str], source: Sequence[str], derived: Mapping[str, tuple[str, ...]]
) -> None:
    errors = [
        _unknown_class(name, target, "is not a class of this dataset")
        for name in derived
        if name not in target
    ]
    errors += [
        _unknown_class(origin, source, "is not a class of the checkpoint")
        for origins in derived.values()
        for origin in origins
        if origin not in source
    ]
    errors += [
        ConfigError(f"finetuning.derive_from gives no class for '{name}'")
        for name, origins in derived.items()
        if not origins
    ]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        title = "several names in finetuning.derive_from are wrong"
        raise ConfigError(str(SeveralErrors(title, [*errors])))


def _unknown_class(name: str, known: Sequence[str], what: str) -> ConfigError:
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return ConfigError(
        f"finetuning.derive_from: '{name}' {what}",
        found=name,
        expected="one of " + ", ".join(known),
        fix=f"did you mean '{close[0]}'?" if close else None,
    )
