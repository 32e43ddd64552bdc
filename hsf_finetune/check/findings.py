"""One finding of the check: a tier, the file, what is wrong and how to correct it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from hsf_finetune.system.console import format_size, shorten_list
from hsf_finetune.system.errors import DataError, SeveralErrors, UserError

Tier = Literal["repaired", "warned", "refused"]
TIERS: tuple[Tier, ...] = ("refused", "warned", "repaired")
"""The most serious first."""

UNPAIRED = "set/unpaired"
"""The kind of files that the dataset describes, and that no case uses all the same."""
EXCLUDE = "list it under the dataset's exclude:"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem of one file, or of the cases together.

    Args:
        tier: `repaired` where reading already corrects it; `warned` where a person should
            look; `refused` where training on it would be wrong.
        kind: subject and name, such as `geometry/spacing`.
        what: one sentence that says what is wrong.
        file: the file; a folder where it is about several cases.
        case: name of the case; empty where it is about several cases.
        found: what was found.
        expected: what was expected.
        fix: how to correct it.
    """

    tier: Tier
    kind: str
    what: str
    file: str
    case: str = ""
    found: str = ""
    expected: str = ""
    fix: str = ""

    @classmethod
    def refusal(cls, error: UserError, kind: str, file: object, case: str = "") -> Finding:
        """The finding for an error that reading a file, or a setting, raised."""
        texts = [str(x) if x is not None else "" for x in (error.found, error.expected, error.fix)]
        where = str(error.file if error.file is not None else file)
        return cls("refused", kind, error.what, where, case, *texts)

    def error(self) -> DataError:
        """The same as an error, for a run that stops because of it."""
        texts = {key: getattr(self, key) or None for key in ("file", "found", "expected", "fix")}
        return DataError(self.what, **texts)


def warn_about(file: object, case: str) -> partial[Finding]:
    """Makes warnings about one file: the result is called with kind, what, found=, fix= ..."""
    return partial(Finding, "warned", file=str(file), case=case)


def format_mm(sizes_mm: Iterable[float]) -> str:
    """Sizes along the axes, for messages."""
    return " x ".join(format_size(size) for size in sizes_mm) + " mm"


def findings_of_tier(findings: Iterable[Finding], *tiers: Tier) -> list[Finding]:
    """The findings of these tiers, in order."""
    return [finding for finding in findings if finding.tier in tiers]


def group_findings(findings: Iterable[Finding]) -> list[list[Finding]]:
    """The findings in groups that differ in case and file only, in order."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.tier, finding.kind, finding.what), []).append(finding)
    return [*groups.values()]


def group_text(group: Sequence[Finding]) -> str:
    """What was found, in how many cases, and the details of the first of them."""
    first = group[0]
    names = [*dict.fromkeys(finding.case or Path(finding.file).name for finding in group)]
    where = f", {len(names)} x ({shorten_list(names)})" if len(names) > 1 else ""
    text = first.what if first.tier == "repaired" else str(first.error())
    return f"{first.tier}{where}: {text}"


def flatten_errors(error: UserError) -> list[UserError]:
    """The single errors that an error consists of."""
    if isinstance(error, SeveralErrors):
        return [single for inner in error.errors for single in flatten_errors(inner)]
    return [error]
