"""Messages of many errors at once."""

from __future__ import annotations

import pickle

from hsf_finetune.system.errors import DataError, SeveralErrors


def test_errors_that_many_cases_share_are_shown_for_some_and_kept_for_all() -> None:
    errors = [DataError("the image has no label", file=f"case_{n}") for n in range(2000)]
    several = SeveralErrors("the files do not fit:", [*errors, DataError("another", file="one")])
    text = str(several)
    assert text.count("the image has no label") == 20
    assert "another" in text
    assert text.endswith("... and 1,980 more like these")
    assert len(several.errors) == 2001


def test_errors_reach_another_process_as_they_are() -> None:
    several = SeveralErrors("two:", [DataError("one", file="a", fix="b"), DataError("other")])
    sent = pickle.loads(pickle.dumps(several))
    assert str(sent) == str(several)
    assert [(one.what, one.fix) for one in sent.errors] == [("one", "b"), ("other", None)]
