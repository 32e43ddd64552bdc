"""All defects, and the cohorts they damage."""

from __future__ import annotations

import shutil
from pathlib import Path

from hsf_finetune.config.compose import compose
from hsf_finetune.config.settings import Settings
from tests.zoo import content, geometry, labels, sets
from tests.zoo.cohorts import MSD_OVERRIDES, Cohort, both_sides, msd, named_sides
from tests.zoo.defect import Defect

DEFECTS: tuple[Defect, ...] = (
    *geometry.DEFECTS,
    *content.DEFECTS,
    *labels.DEFECTS,
    *sets.DEFECTS,
)
COHORTS = {"msd": msd, "both_sides": both_sides, "named_sides": named_sides}

TINY = (
    "models.channels=[4,8]",
    "models.strides=[2]",
    "models.features=4",
    "models.num_res_units=1",
    "logger=csv",
    "report=off",
    "quality=off",
    "augmentation=none",
    "lightning.threads=1",
    "lightning.accelerator=cpu",
    "lightning.max_epochs=1",
    "datasets.fold=null",
    "datasets.k_sample=2",
)


class Zoo:
    """Clean cohorts, made once, and copies of them that are damaged."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.outputs = folder / "outputs"
        self._clean: dict[str, Cohort] = {}
        self._composed: dict[tuple[str, ...], Settings] = {}

    def clean(self, name: str) -> Cohort:
        if name not in self._clean:
            self._clean[name] = COHORTS[name](self._folder / "clean" / name)
        return self._clean[name]

    def damaged(self, defect: Defect) -> tuple[Cohort, Path]:
        """A damaged copy, and the path that the message has to name.

        Each lies where the one before it lay, with its files' own times of change, so
        that cases that are not damaged need not be read again.
        """
        folder = self._folder / "damaged" / defect.cohort
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.clean(defect.cohort).root, folder)
        cohort = Cohort(folder)
        return cohort, defect.damage(cohort)

    def settings(
        self, root: Path, overrides: tuple[str, ...] = (), config: str = "train"
    ) -> Settings:
        """Settings of a tiny run on a cohort; composed once per set of overrides."""
        given = tuple(o for o in overrides if "{root}" not in o)
        key = (config, *given)
        if key not in self._composed:
            self._composed[key] = compose(config, [*MSD_OVERRIDES, *TINY, *given])
        settings = self._composed[key]
        data = {"main_path": str(root), "output_path": str(self.outputs)}
        for override in set(overrides) - set(given):
            name, _, value = override.format(root=root).partition("=")
            data[name.removeprefix("datasets.")] = value
        return settings.model_copy(update={"datasets": settings.datasets.model_copy(update=data)})
