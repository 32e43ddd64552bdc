"""One finding of the check: a tier, the file, what is wrong and how to correct it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from hsf_finetune.system.errors import DataError, SeveralErrors, UserError

Tier = Literal["repaired", "warned", "refused"]
TIERS: tuple[Tier, ...] = ("refused", "warned", "repaired")
"""The most serious first."""

EXCLUDE = "list it under the dataset's exclude:"


@dataclass(frozen=True)
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
    return " x ".join(f"{size:.3g}" for size in sizes_mm) + " mm"


def findings_of_tier(findings: Iterable[Finding], *tiers: Tier) -> list[Finding]:
    """The findings of these tiers, in order."""
    return [finding for finding in findings if finding.tier in tiers]


def flatten_errors(error: UserError) -> list[UserError]:
    """The single errors that an error consists of."""
    if isinstance(error, SeveralErrors):
        return [single for inner in error.errors for single in flatten_errors(inner)]
    return [error]
