"""The errors a user can meet, each one clear message instead of a traceback."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

_SHOWN = 20
"""Errors of one kind that a message shows: one for each case of a cohort could be thousands."""


class UserError(Exception):
    """Something the user can mend.

    Args:
        what: one sentence that says what is wrong.
        file: the file, folder or volume it is about.
        found: what was found there.
        expected: what should have been there.
        fix: what to do about it, ideally a line to paste.
    """

    def __init__(
        self,
        what: str,
        *,
        file: object = None,
        found: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        self.what, self.file, self.found, self.expected, self.fix = what, file, found, expected, fix
        parts = [what]
        details = {"file": file, "found": found, "expected": expected, "fix": fix}
        for name, value in details.items():
            if value is not None:
                text = str(value).replace("\n", "\n" + " " * 12)
                parts.append(f"  {name + ':':<10}{text}")
        super().__init__("\n".join(parts))


class ConfigError(UserError):
    """A setting is unknown, malformed or contradicts another one."""


class DataError(UserError):
    """An image, a label or a dataset description cannot be used as it is."""


class WeightsError(UserError):
    """A checkpoint cannot be read, or does not fit the network."""


class TrainingError(UserError):
    """Training cannot go on."""


class OutputError(UserError):
    """A result could not be written."""


class SeveralErrors(UserError):  # noqa: N818 (it is a plural)
    """Several errors of one kind, reported together.

    Args:
        title: what they have in common.
        errors: the errors, in the order in which to print them.
    """

    def __init__(self, title: str, errors: list[UserError]) -> None:
        shown = [e for n, e in _numbered_in_kind(errors) if n < _SHOWN]
        lines = [title, *map(str, shown)]
        if len(errors) > len(shown):
            lines.append(f"... and {len(errors) - len(shown):,} more like these")
        super().__init__("\n".join(lines))
        self.title, self.errors = title, errors

    def __reduce__(self) -> tuple[type[SeveralErrors], tuple[str, list[UserError]]]:
        """As it is sent from one process to another."""
        return SeveralErrors, (self.title, self.errors)


def _numbered_in_kind(errors: list[UserError]) -> Iterator[tuple[int, UserError]]:
    """Each error with the number of those before it that say the same of other files."""
    seen: Counter[str] = Counter()
    for error in errors:
        yield seen[error.what], error
        seen[error.what] += 1
