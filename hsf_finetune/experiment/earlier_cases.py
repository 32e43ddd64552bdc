"""What a model that learns from corrections must not lose: its Dice on earlier cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from hsf_finetune.data.discovery.cases import Case
from hsf_finetune.evaluation.score_model import score_cases
from hsf_finetune.evaluation.score_tables import ScoreRow, read_scores, write_scores
from hsf_finetune.experiment.active_run import ActiveRun
from hsf_finetune.inference.predictor import Predictor
from hsf_finetune.system import console
from hsf_finetune.system.atomic_files import atomic_write, write_json
from hsf_finetune.system.run_folder import BEST, GIVEN

MOST_LOST = 0.005
"""Mean Dice that an earlier case may lose."""
_REFERENCE = "first_scores.csv"
"""In the folder of corrections: scores of the model that the first of them were learnt by."""
_SHARES = (1.0, 0.9, 0.75, 0.6, 0.45, 0.3, 0.2, 0.1, 0.0)
"""Of the way from the weights of before to the trained ones; the longest that will do is taken."""


class EarlierCases:
    """The validation cases of a run, and those of the source's task, before and after training.

    Args:
        run: that has not been trained yet.
        checkpoint: what it starts from.
        before: scores of the validation cases.
        source: cases of the source's task.
    """

    def __init__(
        self, run: ActiveRun, checkpoint: Path, before: Sequence[ScoreRow], source: Sequence[Case]
    ) -> None:
        self._run, self._start, self._source = run, checkpoint, source
        kept = checkpoint.parent.parent / GIVEN / _REFERENCE
        first = read_scores(kept) if kept.exists() else [*before, *self._score(source)]
        write_scores(run.folder.file(GIVEN) / _REFERENCE, first)
        self._first = _case_means(first)

    def go_on_from(self, checkpoint: Path) -> None:
        """Lets training start from other weights than those whose losses are measured.

        Args:
            checkpoint: of the same network, such as what the round before has trained.
        """
        self._load(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])

    def take_back(self) -> tuple[float, dict[str, float]]:
        """Moves the trained weights back towards those of before, as far as the cases need it.

        The mean of the weights keeps more of what was known than the trained ones, at little
        loss of what was learnt (Wortsman et al., CVPR 2022).

        The trained weights stay in the last checkpoint.

        Returns:
            Share of the way that is left, and earlier case -> Dice lost since the first model.
        """
        best = self._run.folder.checkpoints / BEST
        content = torch.load(best, map_location="cpu", weights_only=True)
        start = torch.load(self._start, map_location="cpu", weights_only=True)["state_dict"]
        for share in _SHARES:
            mixed = {
                name: start[name].lerp(value, share) if value.is_floating_point() else value
                for name, value in content["state_dict"].items()
            }
            self._load(mixed)
            after = _case_means(self._score([*self._run.setup.split.validation, *self._source]))
            lost = {case: dice - after[case] for case, dice in self._first.items() if case in after}
            if max(lost.values(), default=0.0) <= MOST_LOST:
                break
        if share < 1:
            way = f"the weights go {share:.0%} of the way to" if share else "the model is without"
            console.say(
                f"an earlier case would lose more than {MOST_LOST:g} Dice: {way} what was learnt; "
                "the next corrections go on from there"
            )
            with atomic_write(best) as temporary:
                torch.save({**content, "state_dict": mixed}, temporary)
        if found := sorted(after.keys() - self._first.keys()):
            console.say(
                "warning: something is found now where earlier cases have nothing, and nothing was "
                f"found: {console.shorten_list(found)}. Dice does not count that; look at them"
            )
        write_json(self._run.folder.file(GIVEN) / "losses.json", {"share": share, "lost": lost})
        return share, lost

    def _load(self, state: Mapping[str, Tensor]) -> None:
        network = {name.removeprefix("network."): value for name, value in state.items()}
        self._run.setup.anatomy.network.load_state_dict(network)

    def _score(self, cases: Sequence[Case]) -> list[ScoreRow]:
        setup = self._run.setup
        return score_cases(Predictor(setup.anatomy, setup.card, setup.device), cases)


def _case_means(rows: Sequence[ScoreRow]) -> dict[str, float]:
    """Case -> mean Dice over its classes; without cases that have none, and in which none is found."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if not math.isnan(row.score.dice):
            found.setdefault(row.case, []).append(row.score.dice)
    return {case: fmean(dice) for case, dice in found.items()}
