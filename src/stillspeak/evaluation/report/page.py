"""A report on results: tables beside the paper's, plots and sheets of frames.

The folder is that of :mod:`stillspeak.reporting.page`. Everything shown is read from folders of
results or made again from the prepared cache that they name. The same input gives the same bytes:
a report holds no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stillspeak.errors import DataError
from stillspeak.evaluation.options import Progress
from stillspeak.evaluation.report.plots import draw_plots
from stillspeak.evaluation.report.results import read_all
from stillspeak.evaluation.report.sheets import draw_sheets
from stillspeak.evaluation.report.tables import tables
from stillspeak.reporting.page import Figures, check_target, write_page


@dataclass(frozen=True)
class EvaluationReport:
    """What :func:`write_report` wrote, and what the report warns of."""

    page: Path
    markdown: Path
    systems: tuple[str, ...]
    notes: tuple[str, ...]


def write_report(
    results: Sequence[str | Path],
    output: str | Path,
    *,
    data: str | Path | None = None,
    title: str = "Talking faces: results",
    clips: int = 4,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Write a report on folders of results, one a system.

    Args:
        results: folders that ``stillspeak evaluate`` wrote.
        output: folder of the report; it appears whole or not at all.
        data: the prepared cache, instead of those that the results name.
        title: of the page.
        clips: how many have their lips and blinks drawn; the speakers in turn, by name.
        overwrite: replace a report that is there.
        progress: called after each step.

    Raises:
        DataError: a folder holds no results, or damaged ones.
        OutputExistsError: there is a report already.
        OutputError: the folder holds something else, or cannot be written.
    """
    if not results:
        raise DataError("no folder of results was given")
    target = Path(output)
    check_target(target, overwrite=overwrite)
    systems = read_all(results)
    figures = Figures()
    context = {**tables(systems), "title": " ".join(title.split()), "sheets": [], "no_sheets": []}

    def advance(done: int) -> None:
        if progress is not None:
            progress("report", done, len(systems) + 2)

    context |= draw_plots(systems, figures, clips)
    advance(1)
    for done, system in enumerate(systems, start=2):
        sheets, reasons = draw_sheets(system, figures, None if data is None else Path(data))
        context["sheets"] += sheets
        context["no_sheets"] += reasons
        advance(done)
    page, markdown = write_page(target, context, figures)
    advance(len(systems) + 2)
    names = tuple(system.name for system in systems)
    return EvaluationReport(page, markdown, names, tuple(context["notes"]))
