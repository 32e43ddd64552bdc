"""What a notebook imports: the commands as functions, with results that show themselves.

The examples assume a dataset described in `my_conf/datasets/mine.yaml` (as
`hsf-finetune init` writes it), and `my_conf/experiment/quick.yaml` with a small network and
few epochs; `outputs/source` is the folder of a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hsf_finetune.config.compose import compose as compose_settings
from hsf_finetune.config.settings import Settings
from hsf_finetune.system.caller_state import kept_caller_state

if TYPE_CHECKING:
    from hsf_finetune.check.check_report import CheckReport
    from hsf_finetune.evaluation.compare_runs import Comparison
    from hsf_finetune.evaluation.evaluate import Evaluation
    from hsf_finetune.experiment.run_result import RunResult
    from hsf_finetune.inference.engines import EngineName
    from hsf_finetune.inference.ensemble import Checkpoints
    from hsf_finetune.inference.scan_model import ScanModel
    from hsf_finetune.inference.views import ViewKind
    from hsf_finetune.planning.setup import Setup

PathLike = str | Path


def compose(
    *overrides: str,
    config_dir: PathLike | None = None,
    task: Literal["finetune", "train"] = "finetune",
) -> Settings:
    """The settings that a command line would give, without running anything.

    Args:
        overrides: as on the command line of finetune.py: `datasets=mine`, `models.lr=1e-3`.
        config_dir: a folder with groups of your own, such as `datasets/mine.yaml`.
        task: `finetune`, or `train` for training from random weights.

    Raises:
        ConfigError: an unknown group, option or key, or a wrong value; with what was meant.

    Examples:
        >>> import hsf_finetune as hf
        >>> config = hf.compose("datasets=mine", "models.lr=3e-4", config_dir="my_conf")
        >>> config.models.lr
        0.0003
    """
    return compose_settings(task, overrides, config_dir)


@kept_caller_state()
def plan(config: Settings, *, forecast: bool = True) -> Setup:
    """What a run would do: schedule, transfer receipt and forecast, from the headers of scans.

    Args:
        config: from `compose`.
        forecast: also make a few dry steps, for memory and time.

    Returns:
        The setup, which shows itself in a notebook: `.schedule`, `.transfer` (None where no
        weights are given), `.forecast`, `.split`, `.cohort`.

    Raises:
        UserError: cases, weights, network or schedule do not fit together.

    Examples:
        >>> import hsf_finetune as hf
        >>> config = hf.compose("datasets=mine", "experiment=quick", config_dir="my_conf")
        >>> setup = hf.plan(config, forecast=False)
        >>> setup.schedule.max_epochs
        2
        >>> setup.cohort.classes.names
        ('background', 'anterior', 'posterior')
    """
    from hsf_finetune.planning.plan_run import plan_run

    return plan_run(config, forecast=forecast)


@kept_caller_state()
def finetune(config: Settings) -> RunResult:
    """Trains as the settings say, and scores the model before and after.

    Args:
        config: from `compose`; with `task="train"` the network starts from random weights.

    Returns:
        `.folder` with everything the run wrote, `.before` and `.after` (a row per validation
        case and class), and `.model`, which segments scans.

    Raises:
        UserError: anything that can be mended; nothing half-written is left behind.

    Examples:
        >>> import hsf_finetune as hf
        >>> config = hf.compose("datasets=mine", "experiment=quick", config_dir="my_conf")
        >>> run = hf.finetune(config)
        >>> (run.folder / "checkpoints" / "best.ckpt").exists()
        True
        >>> run.model.predict("scan.nii.gz").labels.shape
        (16, 24, 16)
    """
    from hsf_finetune.experiment.run import run_experiment

    return run_experiment(config)


@kept_caller_state()
def load_model(
    *weights: PathLike,
    checkpoint: Checkpoints = "best",
    device: str = "auto",
    settings: Sequence[str] = (),
    engine: EngineName = "torch",
    tta: ViewKind = "off",
) -> ScanModel:
    """A trained model, or weights by others as they are, which segments scans.

    Args:
        weights: folder of a run, a checkpoint, or what `finetuning.pretrained` takes: an nnU-Net,
            a MONAI bundle, an address, or a name. Of several, probabilities are averaged.
        checkpoint: which one of a run; `folds` are the models of all folds.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        settings: of weights by others, what they do not say: `preprocessing=hsf`.
        engine: what runs the network, as `--engine` of the command.
        tta: the mean over several views of each scan, as `--tta` of the command.

    Returns:
        The model: `.passes` networks run for each scan, and `.predict(scan)` takes paths, nibabel images, or (array, affine).

    Raises:
        WeightsError: it cannot be read, or does not say its classes or how scans are prepared.
        ConfigError: several models differ in their classes, or one cannot segment mirrored scans.

    Examples:
        >>> import hsf_finetune as hf
        >>> model = hf.load_model("outputs/source")
        >>> seg = model.predict("scan.nii.gz")
        >>> sorted(seg.volumes_mm3)
        ['blob']
    """
    from hsf_finetune.inference.ensemble import load_models

    model = load_models(weights, checkpoint, device, settings, engine=engine)
    return model if tta == "off" else model.with_views(tta)


@kept_caller_state()
def check(config: Settings, *, jobs: int | None = None) -> CheckReport:
    """Looks at the data of a run: geometry, content, labels, duplicates, the source's data.

    Args:
        config: from `compose`.
        jobs: threads; None is one for each CPU that this process may use.

    Returns:
        The report: `.findings`, each with its file and the remedy.

    Examples:
        >>> import hsf_finetune as hf
        >>> report = hf.check(hf.compose("datasets=mine", config_dir="my_conf"))
        >>> [finding.what for finding in report.findings if finding.tier == "refused"]
        []
    """
    from hsf_finetune.data.phantom.write_phantoms import make_phantom_cohort
    from hsf_finetune.planning.plan_run import check_run
    from hsf_finetune.planning.start import read_source_checkpoint

    make_phantom_cohort(config.datasets)
    return check_run(config, read_source_checkpoint, jobs)


@kept_caller_state()
def evaluate(
    prediction: PathLike | Sequence[PathLike],
    label: PathLike | None = None,
    *,
    names: Mapping[int, str] | None = None,
    side: Literal["train", "validation", "test"] = "validation",
    tolerance_mm: float | None = None,
    tta: ViewKind = "off",
) -> Evaluation:
    """Scores segmentations against labels, or a run's model on one side of its split.

    Args:
        prediction: a segmentation, a folder of them, or (without `label`) a run's folder, or those
            of several, whose probabilities are averaged.
        label: the manual segmentation, or a folder of them, paired by name.
        names: label value -> name of the class; None scores every value that occurs.
        side: of the split, for a run.
        tolerance_mm: of the normalised surface Dice; None is 1 mm, or one voxel's diagonal for
            data of another scale.
        tta: for a run, the mean over several views of each scan.

    Returns:
        Dice, HD95 (mm), NSD and volume error (mm3) per case and class, with a summary.

    Raises:
        UserError: the files do not pair or cannot be read, or the folder is no run.

    Examples:
        >>> import hsf_finetune as hf
        >>> scores = hf.evaluate("label.nii.gz", "label.nii.gz", names={10: "anterior"})
        >>> scores.rows[0].score.dice
        1.0
    """
    from hsf_finetune.evaluation.evaluate import evaluate_files, evaluate_run

    given = [prediction] if isinstance(prediction, str | Path) else prediction
    first, *more = (Path(one) for one in given)
    if label is None:
        return evaluate_run(first, side, tolerance_mm, more=more, tta=tta)
    return evaluate_files(first, Path(label), names, tolerance_mm)


@kept_caller_state()
def compare(
    *runs: PathLike,
    reference: str | None = None,
    side: Literal["validation", "test"] | None = None,
    output: PathLike | None = None,
) -> Comparison:
    """Compares finished runs on the same cases: paired differences and their intervals.

    Args:
        runs: folders of runs with the same split.
        reference: name of the run that differences refer to; None is the best.
        side: of the split; None is `test` where all have one.
        output: folder for compare.csv, compare.json and compare.png; None writes nothing.

    Raises:
        ConfigError: one is no finished run, or they differ in split, in whether its cases trained
            them, in classes, or in the cases' labels.

    Examples:
        >>> import hsf_finetune as hf
        >>> comparison = hf.compare("outputs/first", "outputs/second")
        >>> [figures.model.name for figures in comparison.figures]
        ['pretrained', 'first', 'second']
    """
    from hsf_finetune.evaluation.compare_runs import compare_runs

    return compare_runs(
        [Path(run) for run in runs],
        output=Path(output) if output is not None else None,
        reference=reference,
        side=side,
    )
