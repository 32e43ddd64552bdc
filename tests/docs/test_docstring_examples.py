"""The examples in the docstrings of the public API run, and give what they say."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

import hsf_finetune


class OnlyExpected(doctest.OutputChecker):
    """Lets an example without an expected value print, as a run does."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


NAMES = [name for name in hsf_finetune.__all__ if not name.startswith("__")]


@pytest.mark.parametrize("name", NAMES)
def test_examples(
    name: str, copy_prepared: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy_prepared("docstrings"))
    public = getattr(hsf_finetune, name)
    found = doctest.DocTestFinder(recurse=False).find(public, name, globs={})
    examples = [test for test in found if test.examples]
    runner = doctest.DocTestRunner(OnlyExpected(), optionflags=doctest.ELLIPSIS, verbose=False)
    report: list[str] = []
    for test in examples:
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
    if inspect.isfunction(public):
        assert examples, f"the docstring of {name} has no example"
