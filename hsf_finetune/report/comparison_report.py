"""The report of a comparison of finished runs."""

from __future__ import annotations

from hsf_finetune.evaluation.compare_runs import Comparison
from hsf_finetune.evaluation.comparison_plots import draw_figures
from hsf_finetune.report.page import Grid, Lines, Page, Part, Picture, Section
from hsf_finetune.report.trained_cases import also_trained
from hsf_finetune.system.run_folder import read_split


def report_comparison(compared: Comparison) -> Page:
    """The report of models on the same cases, from what `compare_runs` found."""
    figures, reference = compared.figures, compared.reference
    text = f"Dice of {len(figures)} models, differences to {reference}, seconds and what trained"
    drawn = draw_figures(figures, reference, compared.title)
    runs = [one.model for one in figures if one.model.folder]
    folders = {one.name: one.folder for one in runs if one.folder}
    trained = [
        name for name, folder in folders.items() if also_trained(read_split(folder), compared.side)
    ]
    caveat = []
    if trained:
        seen = f"These {compared.side} cases also trained {', '.join(trained)}"
        caveat = [f"{seen}: the figures are no measure of new scans."]
    elif compared.side == "validation":
        caveat = ["Where validation cases chose the epoch, the figures are a little high."]
    tables: list[Part] = [*map(Grid.from_rich, compared.tables())]
    tables += [Lines(compared.remarks)] if compared.remarks else []
    return Page(
        title=f"Comparison of {len(runs)} runs",
        about=compared.title,
        answer=[compared.sentence, *caveat],
        sections=[
            Section("Models", [Picture(drawn, text), *tables]),
            Section(
                "Runs",
                [
                    Grid(["run", "folder"], [[one.name, str(one.folder)] for one in runs]),
                    Lines(["hsf-finetune report RUN writes the report of one of them."]),
                ],
            ),
        ],
    )
