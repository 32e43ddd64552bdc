"""The tables of a call that get rows of each scan: its volumes and its expected Dice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hsf_finetune.check.findings import Finding
from hsf_finetune.data.volumes.read_volume import VolumeRef
from hsf_finetune.inference.quality_model import FEWEST_SUBJECTS
from hsf_finetune.inference.quality_table import QUALITY_FILE, QualityTable
from hsf_finetune.inference.scan_jobs import JobResult, SegmentOptions
from hsf_finetune.inference.scan_model import ScanModel
from hsf_finetune.inference.volume_table import VolumeTable
from hsf_finetune.system import console
from hsf_finetune.system.console import count_of
from hsf_finetune.system.errors import ConfigError


@dataclass(frozen=True)
class PredictionTables:
    """The tables that get rows of each scan.

    Args:
        volumes: of volumes, if it was asked for.
        quality: of the expected Dice, if the model can tell it.
    """

    volumes: VolumeTable | None
    quality: QualityTable | None

    @classmethod
    def of(cls, model: ScanModel, output: Path, options: SegmentOptions) -> PredictionTables:
        """The tables of a call; those that exist are read, so that another one is refused at once.

        Raises:
            OutputError: a table is one of other classes.
            ConfigError: scans are to be listed by a Dice that the model cannot tell.
        """
        card, volumes, quality = model.card, None, None
        if options.outputs.volumes is not None:
            volumes = VolumeTable(options.outputs.volumes, card.classes[1:], options.shard)
            volumes.missing(())
        # Regions of a scan are other images than those that the model was validated on.
        if card.quality and options.where is None:
            quality = QualityTable(output / QUALITY_FILE, card.quality, options.shard)
            quality.missing(())
        elif options.review:
            raise ConfigError(
                "--review needs a model that foretells Dice, and a scan that it sees as a whole",
                found="--where" if card.quality else "a model card without it",
                expected=f"a run with quality=on and {FEWEST_SUBJECTS} validation subjects or more",
            )
        return cls(volumes, quality)

    def note(self, result: JobResult) -> None:
        """Writes the rows of a scan that was segmented, or failed."""
        scan, error = result.job.channels[0], result.error
        if self.volumes:
            remarks = [warning.kind for warning in result.warnings]
            remarks += [f"failed: {error.what}"] if error else []
            self.volumes.write_row(scan, result.volumes_mm3, remarks)
        if self.quality:
            failed = [Finding.refusal(error, "failed", scan.path)] if error else []
            self.quality.write_scan(scan, result.foretold, [*failed, *result.warnings])

    def collect(self, scans: Sequence[VolumeRef]) -> None:
        """Moves what all processes have written of parts of the scans into the tables."""
        for table in (self.volumes, self.quality):
            if table:
                table.collect(scans)

    def show(
        self, results: Sequence[JobResult], scans_of_all: Sequence[VolumeRef], review: int
    ) -> None:
        """Prints where the tables are, what they lack, and which scans to look at first.

        Args:
            results: of this call.
            scans_of_all: those of all parts.
            review: how many scans to look at first.
        """
        scans = [result.job.channels[0] for result in results]
        for name, table in (("volumes", self.volumes), ("expected Dice", self.quality)):
            if table is None:
                continue
            if not table.path.exists():  # every scan was segmented before
                console.say(
                    f"{name}: {table.path} was not written, since no scan was segmented now; "
                    "--overwrite segments them again and writes it"
                )
                continue
            console.say(f"{name}: {table.path}")
            if missing := table.missing(scans):
                names = console.shorten_list([ref.path.name for ref in missing])
                console.say(
                    f"  without the rows of {count_of(len(missing), 'scan')} segmented before, "
                    f"which --overwrite adds: {names}"
                )
        if self.quality and self.quality.path.exists() and review:
            console.console.print(self.quality.worst(scans_of_all, review))
