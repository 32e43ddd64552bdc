"""Which cases an epoch draws, and how often those of each dataset come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from hsf_finetune.config.settings import DatasetSettings
from hsf_finetune.data.discovery.cases import Case

_MOST = 8.0
"""Greatest weight that a dataset gets by itself: twice what was measured."""


@dataclass(frozen=True)
class DrawWeights:
    """How often a case of each dataset is drawn, beside one of another.

    Args:
        of: dataset -> its weight.
        remark: what a user should know about them; empty where all are alike.
    """

    of: Mapping[str, float]
    remark: str = ""


def draw_weights(cases: Sequence[Case], datasets: Mapping[str, DatasetSettings]) -> DrawWeights:
    """The datasets' own weights; where none has one, half of the draws are of the finest protocol.

    The finest protocol is the one that draws the most classes by themselves. Without a say, few
    cases in it are crowded out by many that leave more open (benchmarks/label_sets.py).

    Args:
        cases: those that train.
        datasets: their settings.
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
        f"draws: cases of {', '.join(names)} come {weight:.3g} times as often as others, since "
        f"they are {len(fine)} of {len(cases)} and draw the most classes by themselves "
        "(a weight in a dataset's YAML decides instead)",
    )


@dataclass(frozen=True)
class Draw:
    """One case of an epoch, with the seed for everything random about it."""

    index: int
    seed: int


class EpochSampler(Sampler[Draw]):
    """The cases of an epoch, a function of seed and epoch alone.

    Without replacement an epoch is a shuffled pass (or several, cut to
    `k_sample`). Cases of unequal weights come as often as these say, without replacement
    to within one of it in every epoch. With several processes each takes every n-th draw, and the first
    draws come again at the end so that all take equally many.

    Args:
        cases: number of training cases.
        k_sample: draws per epoch over all processes; None is one pass.
        replace: draw with replacement.
        seed: of the run.
        rank: this process.
        world_size: number of processes.
        weights: how often each case comes, beside the others; None is equally often.
    """

    def __init__(
        self,
        cases: int,
        k_sample: int | None,
        replace: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        weights: Sequence[float] | None = None,
    ) -> None:
        self._cases = cases
        given = np.asarray(weights if weights is not None else np.ones(cases), np.float64)
        self._shares = given / given.sum()
        self._draws = k_sample or cases
        self._replace = replace
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        """Draws of this process."""
        return -(-self._draws // self._world_size)

    def __iter__(self) -> Iterator[Draw]:
        """The draws of the current epoch."""
        random = np.random.default_rng([self._seed, self._epoch])
        order = self._order(random)
        seeds = random.integers(2**31, size=self._draws)
        draws = [Draw(int(i), int(s)) for i, s in zip(order, seeds, strict=True)]
        mine = range(self._rank, len(self) * self._world_size, self._world_size)
        return iter([draws[n % len(draws)] for n in mine])

    def _order(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        equal = np.ptp(self._shares) == 0
        if self._replace:
            return random.choice(
                self._cases, self._draws, p=None if equal else self._shares
            ).astype(np.int64)
        if equal:
            passes = -(-self._draws // self._cases)
            order = np.concatenate([random.permutation(self._cases) for _ in range(passes)])
            return order[: self._draws]
        # Systematic sampling: evenly spaced marks on a line of the cases' shares, in any order.
        line = random.permutation(self._cases)
        marks = (np.arange(self._draws) + random.random()) / self._draws
        ends = np.cumsum(self._shares[line])
        taken = line[np.searchsorted(ends, np.minimum(marks, np.nextafter(ends[-1], 0)), "right")]
        return random.permutation(taken)
