"""Each defect is caught in the right tier, by a message that names the file and the remedy."""

from __future__ import annotations

import pytest

from hsf_finetune.check.check_data import check_data
from tests.zoo.cohorts import MSD, SIDED_OVERRIDES, WHY_SKIPPED
from tests.zoo.defect import Defect
from tests.zoo.zoo import DEFECTS, Zoo

pytestmark = pytest.mark.skipif(not MSD.is_dir(), reason=WHY_SKIPPED)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo"))


def test_there_are_enough_defects_and_each_has_a_name() -> None:
    assert len(DEFECTS) >= 40
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_is_caught(zoo: Zoo, defect: Defect) -> None:
    cohort, file = zoo.damaged(defect)
    findings = check_data(zoo.settings(cohort.root, defect.overrides), jobs=1).findings
    messages = [f"{f.tier}: {f.error()}" for f in findings]
    hits = [
        finding
        for finding in findings
        if finding.tier == defect.tier
        and all(word in str(finding.error()) for word in defect.words)
    ]
    assert hits, "\n".join(["no finding says so:", *messages])
    assert any(str(file) in str(hit.error()) for hit in hits), f"{file} is not named: {messages}"
    assert defect.tier == "repaired" or any(hit.fix for hit in hits), messages
    if defect.tier != "refused":
        assert not [f for f in findings if f.tier == "refused"], messages


@pytest.mark.parametrize("cohort", ["msd", "both_sides", "named_sides"])
def test_a_clean_set_raises_nothing(zoo: Zoo, cohort: str) -> None:
    overrides = SIDED_OVERRIDES if cohort == "both_sides" else ()
    report = check_data(zoo.settings(zoo.clean(cohort).root, overrides), jobs=1)
    assert [str(finding) for finding in report.findings] == []
