"""Which cases an epoch draws, and how often those of each dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from hsf_finetune.config.settings import DatasetSettings
from hsf_finetune.data.discovery.cases import Case

_MOST = 8.0
"""Largest weight that a dataset gets without being given one: twice what was measured."""


@dataclass(frozen=True)
class DrawWeights:
    """How often a case of each dataset is drawn, relative to cases of other datasets.

    Args:
        by_dataset: name of the dataset -> its weight.
        remark: what a user should know about the weights; empty where all are equal.
    """

    by_dataset: Mapping[str, float]
    remark: str = ""


def choose_draw_weights(
    cases: Sequence[Case], datasets: Mapping[str, DatasetSettings]
) -> DrawWeights:
    """The weights that the datasets are given, or else weights for the finest protocol.

    The finest protocol is the one that draws the most classes by themselves. Half of the draws
    are of its cases where they are fewer than the others: otherwise training sees little of
    what only they tell apart (benchmarks/label_sets.py).
    """
    given = {name: one.weight for name, one in datasets.items()}
    if any(weight is not None for weight in given.values()):
        return DrawWeights({name: weight or 1.0 for name, weight in given.items()})
    alone = [int((case.protocol.matrix.sum(axis=1) == 1).sum()) for case in cases]
    fine = [case.dataset for case, n in zip(cases, alone, strict=True) if n == max(alone)]
    rest = len(cases) - len(fine)
    weight = min(rest / len(fine), _MOST)
    if weight <= 1:
        return DrawWeights(dict.fromkeys(datasets, 1.0))
    names = list(dict.fromkeys(fine))
    return DrawWeights(
        {name: weight if name in names else 1.0 for name in datasets},
        f"draws: cases of {', '.join(names)} are drawn {weight:.3g} times as often as others: "
        f"they are {len(fine)} of {len(cases)} and have the most classes by themselves "
        "(to choose otherwise, give a dataset a weight: in its YAML)",
    )


@dataclass(frozen=True)
class CaseDraw:
    """The position of a case among those that train, and the seed of everything random."""

    index: int
    seed: int


@dataclass(eq=False)
class EpochSampler(Sampler[CaseDraw]):
    """The cases of an epoch, a function of seed and epoch alone.

    Without replacement an epoch is a shuffled pass over all cases (or several passes, cut
    to `k_sample`); where weights differ, each case is drawn as often as its weight gives,
    rounded up or down in every epoch. With several processes each takes every n-th draw, and
    the first draws are repeated at the end so that all processes take equally many.

    Args:
        weights: how often each training case is drawn, relative to the others.
        k_sample: draws per epoch over all processes; None is one pass.
        replace: draw with replacement.
        seed: of the run.
        rank: this process.
        world_size: number of processes.
    """

    weights: Sequence[float]
    k_sample: int | None
    replace: bool
    seed: int
    rank: int = 0
    world_size: int = 1
    _epoch: int = field(default=0, init=False)

    @property
    def _draws(self) -> int:
        return self.k_sample or len(self.weights)

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Draws of this process."""
        return -(-self._draws // self.world_size)

    def __iter__(self) -> Iterator[CaseDraw]:
        random = np.random.default_rng([self.seed, self._epoch])
        order = self._draw_order(random)
        seeds = random.integers(2**31, size=self._draws)
        draws = [CaseDraw(int(i), int(s)) for i, s in zip(order, seeds, strict=True)]
        mine = range(self.rank, len(self) * self.world_size, self.world_size)
        return iter([draws[n % len(draws)] for n in mine])

    def _draw_order(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        cases, shares = len(self.weights), np.asarray(self.weights, np.float64)
        shares = shares / shares.sum()
        equal = np.ptp(shares) == 0
        if self.replace:
            drawn = random.choice(cases, self._draws, p=None if equal else shares)
            return drawn.astype(np.int64)
        if equal:
            passes = -(-self._draws // cases)
            order = np.concatenate([random.permutation(cases) for _ in range(passes)])
            return order[: self._draws]
        # Systematic sampling: evenly spaced marks on a line of the cases' shares, shuffled.
        line = random.permutation(cases)
        marks = (np.arange(self._draws) + random.random()) / self._draws
        ends = np.cumsum(shares[line])
        taken = line[np.searchsorted(ends, np.minimum(marks, np.nextafter(ends[-1], 0)), "right")]
        return random.permutation(taken)
