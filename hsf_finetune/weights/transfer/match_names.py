"""Pairing tensors by name, once prefixes and wrappers' names are removed or added."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from hsf_finetune.system.errors import WeightsError
from hsf_finetune.weights.transfer.tensor_pairs import Place, TensorPairs, canonical_names

_WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_fpw_module"
    r"|_forward_module|_module|module|net)\."
)
"""What torch.compile, FSDP, activation checkpoints, DDP and DeepSpeed put inside names."""
_SPELLINGS = (
    (re.compile(r"\bmlp\.fc(?=[12]\.)"), "mlp.linear"),
    (re.compile(r"\battn\.out_proj\."), "attn.proj."),
    (re.compile(r"\b(layers\d)\.0\.0\."), r"\1.0."),
)
"""One spelling for layers that timm, MONAI's transformers and its autoencoders name otherwise."""


@dataclass(frozen=True)
class PrefixChange:
    """How a checkpoint's names become the network's: one prefix removed, another added."""

    removed: str = ""
    added: str = ""

    def __call__(self, name: str) -> str | None:
        """The network's name of a checkpoint's tensor; None without the prefix."""
        if not name.startswith(self.removed):
            return None
        return self.added + name[len(self.removed) :]

    def __str__(self) -> str:
        """What was done, in words; empty for nothing."""
        changes = ((self.removed, "removed"), (self.added, "added"))
        return ", ".join(f"'{prefix}' {what}" for prefix, what in changes if prefix)


def find_prefix_change(source: Iterable[str], target: Iterable[str]) -> PrefixChange:
    """The change of prefix with which most names agree; the shortest of several.

    Any prefix may be removed (`module.`, `_orig_mod.`, `net.model.`). Only a first
    component of the network's own names may be added (`trunk.`): a UNet resembles the
    UNet inside it, and a deeper prefix would load one level's weights into another.
    """
    return _most_frequent(_count_matches(source, target))


def pair_by_name(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> TensorPairs:
    """Pairs a network's tensors with a checkpoint's, by name.

    A tensor that the network knows by several names is found under any of them. Where the
    names as they are do not fill the network, they are compared without those of wrappers,
    and in one spelling.

    Raises:
        WeightsError: the checkpoint has the network several times, with different values.
    """
    state = network.state_dict(keep_vars=True)
    canonical = canonical_names(network)
    match = _Match(canonical, tensors, str)
    if len(match.origins) < len({*canonical.values()}):
        other = _Match(canonical, tensors, plain_name)
        match = max((match, other), key=lambda one: len(one.origins))
    return TensorPairs(
        target={name: state[name] for name in dict.fromkeys(canonical.values())},
        source={known: tensors[name] for known, name in match.origins.items()},
        origins=match.origins,
        unused=tuple(match.places),
        renamed=match.describe(),
        places=match.places,
    )


# -------------------------------------------------------------------- internals
class _Match:
    """Names of a checkpoint beside those of a network, both in one spelling.

    Parts of a network may have prefixes of their own. Once a part is found, the next one
    is looked for among the other names; but never among those that lie within a part that
    was found, and that the network merely lacks.
    """

    def __init__(
        self,
        canonical: Mapping[str, str],
        tensors: Mapping[str, torch.Tensor],
        spell: Callable[[str], str],
    ) -> None:
        self._target = {spell(name): known for name, known in canonical.items()}
        self._tensors = tensors
        self._changes: list[PrefixChange] = []
        self._modules: dict[str, set[str]] = defaultdict(set)
        for name, known in self._target.items():
            for dot in re.finditer(r"\.", name):
                self._modules[name[: dot.end()]].add(known)
        spelled: dict[str, str] = {}
        for name in tensors:
            # Where wrappers are all that tells two tensors apart, they stay.
            spelled[spell(name) if spell(name) not in spelled else name] = name
        self._respelled = [name for new, name in spelled.items() if new != name]
        self.origins: dict[str, str] = {}
        """First name in the network -> name in the checkpoint."""
        left = self._find_parts(spelled)
        self.places = {name: self._place(new) for new, name in left.items()}
        """Each name that was not used, and where in the network it would belong."""

    def describe(self) -> str:
        """How names were changed, in words; empty if they were not."""
        words = [text for change in self._changes if (text := str(change))]
        if self._respelled:
            wrappers = {w for name in self._respelled for w in _WRAPPERS.findall(name)}
            listed = ", ".join(f"'{word}'" for word in sorted(wrappers))
            words += [f"{listed} removed anywhere"] if wrappers else []
            other = next((n for n in self._respelled if _WRAPPERS.sub("", n) != plain_name(n)), "")
            words += [f"layers in another spelling, such as {other}"] if other else []
        return "; ".join(words)

    def _find_parts(self, spelled: Mapping[str, str]) -> dict[str, str]:
        """Fills the origins; returns what is left of the checkpoint's names."""
        unused = dict(spelled)
        while True:
            open_names = {n: k for n, k in self._target.items() if k not in self.origins}
            # A name within a part that was found stays a name of that part.
            free = [n for n in unused if not (self._fitting(n) and self._place(n).module)]
            counts = _count_matches(free, open_names)
            if self._changes:
                # A further part has the network's own names: no level becomes another one.
                added = {"", *(change.added for change in self._changes)}
                counts = Counter({pair: n for pair, n in counts.items() if pair[1] in added})
            change = _most_frequent(counts)
            found = {n: open_names[new] for n in free if (new := change(n)) in open_names}
            if not found or (self._changes and not self._is_part(change, free, found)):
                return unused
            if not self._changes:
                _check_one_copy(
                    change, {n: self._tensors[o] for n, o in spelled.items()}, self._target
                )
            self._changes.append(change)
            for new, known in found.items():
                self.origins.setdefault(known, unused.pop(new))

    def _is_part(self, change: PrefixChange, free: Collection[str], found: Collection[str]) -> bool:
        """Whether a further change of prefix brings a part, and no copy or chance match."""
        filled = (self._target.get(change(name) or "") in self.origins for name in free)
        return not any(filled) and all("." in name[len(change.removed) :] for name in found)

    def _fitting(self, name: str) -> list[PrefixChange]:
        """The changes so far that a name has the prefix for."""
        return [change for change in self._changes if name.startswith(change.removed)]

    def _place(self, name: str) -> Place:
        """Where a name that the network lacks would belong in it."""
        change = max(self._fitting(name), key=lambda c: len(c.removed), default=PrefixChange())
        mapped = change(name) or name
        for end in reversed([dot.end() for dot in re.finditer(r"\.", mapped)]):
            if mapped[:end] in self._modules and end > len(change.added):
                return Place(mapped[:end], mapped[end:], frozenset(self._modules[mapped[:end]]))
        # `down_5.` beside `down_4.`: a further one of those that the network has.
        first = mapped[len(change.added) :].partition(".")[0]
        if re.search(r"\d", first):
            alike = re.compile(re.escape(change.added) + re.sub(r"\d+", r"\\d+", first) + r"\.")
            for module, known in self._modules.items():
                if alike.fullmatch(module):
                    return Place(module, mapped, frozenset(known))
        return Place("", mapped)


def plain_name(name: str) -> str:
    """A name without those of wrappers, and in one spelling."""
    name = _WRAPPERS.sub("", name)
    for pattern, spelling in _SPELLINGS:
        name = pattern.sub(spelling, name)
    return name


def _most_frequent(counts: Mapping[tuple[str, str], int]) -> PrefixChange:
    """The change that brings most names together, the shortest of several."""
    if not counts:
        return PrefixChange()
    best = min(counts, key=lambda pair: (-counts[pair], len(pair[0]) + len(pair[1]), pair))
    return PrefixChange(*best)


def _count_matches(source: Iterable[str], target: Iterable[str]) -> Counter[tuple[str, str]]:
    """How many names each pair of prefixes (one removed, one added) brings together."""
    added_by_rest: dict[str, set[str]] = defaultdict(set)
    for name in target:
        added_by_rest[name].add("")
        first, dot, rest = name.partition(".")
        if dot:
            added_by_rest[rest].add(first + dot)
    counts: Counter[tuple[str, str]] = Counter()
    for name in source:
        parts = name.split(".")
        for cut in range(len(parts)):
            rest = ".".join(parts[cut:])
            for added in added_by_rest.get(rest, ()):
                counts[name[: len(name) - len(rest)], added] += 1
    return counts


def _check_one_copy(
    change: PrefixChange, tensors: Mapping[str, torch.Tensor], known: Collection[str]
) -> None:
    """Refuses to choose between a student and its teacher, a first and a second network."""
    if not change.removed:
        return
    counts = _count_matches(tensors, known)
    most = counts[change.removed, change.added]
    # Any two networks share a few names, such as `weight`; that makes no copy of this one.
    if 3 * most < len(known):
        return
    own = {change(name): tensor for name, tensor in tensors.items() if change(name) in known}
    others = []
    for (removed, added), count in counts.items():
        other = PrefixChange(removed, added)
        twins = {other(name): tensor for name, tensor in tensors.items() if other(name) in known}
        if count == most and removed != change.removed and twins.keys() == own.keys():
            same = all(torch.equal(twins[name], own[name]) for name in own)
            others += [] if same else [removed]
    if others:
        found = sorted([change.removed, *others])
        raise WeightsError(
            "the checkpoint holds several copies of the network, and they differ",
            found="\n".join(f"{prefix} ({most} tensors)" for prefix in found),
            fix=f"choose one: finetuning.key_prefix={found[0]}",
        )
