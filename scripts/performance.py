"""Writes the tables of docs/performance.md out of the pages in which the numbers were measured.

    python scripts/performance.py            # writes them
    python scripts/performance.py --check    # says whether they are behind, exit code 1

Nothing is measured here and no number is typed in: each is looked up in a table of
docs/results.md or benchmarks/README.md by its row and column, and the page links to where it
stands. A number that is not found any more is an error.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stillspeak.weights import catalogue, read_info, scorers

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- performance: begin -->", "<!-- performance: end -->"

QUALITY = (
    ("PSNR, dB", "higher"),
    ("SSIM", "higher"),
    ("CPBD", "higher"),
    ("ACD over real", "lower"),
    ("WER", "lower"),
    ("AV offset, frames", "zero"),
    ("AV confidence", "higher"),
)
"""Columns of the results' Table 1."""

LIPS = (
    *("lip_correlation", "lip_correlation_mismatched", "lip_amplitude", "width_correlation"),
    *("closures_found", "closures_chance", "lip_jitter", "silent_lip_stability", "blink_rate"),
)
"""Rows of the table of all metrics."""


@dataclass(frozen=True)
class Table:
    """A table of a Markdown page: its heading and cells by row and column."""

    heading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def cell(self, row: str, column: str) -> str:
        """The cell of the first row that begins with these words.

        Raises:
            SystemExit: there is none.
        """
        if column in self.columns:
            for cells in self.rows:
                if " | ".join(cells).startswith(row):
                    return cells[self.columns.index(column)]
        raise SystemExit(f"{self.heading!r}: no row {row!r} with a column {column!r} any more")


def tables(path: Path) -> list[Table]:
    """All tables of a page."""
    found, heading = [], ""
    lines = iter([*path.read_text("utf-8").splitlines(), ""])
    for line in lines:
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|"):
            block = [line]
            for following in lines:
                if not following.startswith("|"):
                    break
                block.append(following)
            rows = [_cells(row) for row in block]
            found.append(Table(heading, rows[0], tuple(rows[2:])))
    return found


def table(name: str, heading: str, column: str) -> Table:
    """The first table under a heading that has a column.

    Raises:
        SystemExit: there is none.
    """
    for one in tables(ROOT / name):
        if one.heading == heading and column in one.columns:
            return one
    raise SystemExit(f"{name}: no table under {heading!r} with a column {column!r} any more")


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().strip("|").split(" | "))


def _mean(cell: str) -> str:
    """Without the interval in brackets."""
    return cell.split(" (")[0]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# --- the page ---------------------------------------------------------------------------------


def quality() -> Iterator[str]:
    """The paper's Table 1 in short."""
    source = table("docs/results.md", "Table 1", "PSNR, dB")
    systems = [row[0] for row in source.rows]
    yield "## How good"
    yield ""
    yield "GRID's test speakers, whom no model saw; means over clips, from"
    yield "[results.md](results.md#table-1), where the intervals and the warnings are."
    yield ""
    yield _row(["", *(name for name, _ in QUALITY)])
    yield _row(["---", *("---:" for _ in QUALITY)])
    yield _row(["better is", *(better for _, better in QUALITY)])
    for system in systems:
        cells = [_mean(source.cell(f"{system} | ", name)) for name, _ in QUALITY]
        yield _row([system, *cells])
    yield ""
    yield "Lips and eyes, from [the same page](results.md):"
    yield ""
    about = ("metric", "unit", "better", "where")
    found = [one for one in tables(ROOT / "docs/results.md") if one.columns[:3] == about[:3]]
    models = [name for name in found[0].columns if name not in about]
    # Tables of an earlier version stand on the page as well.
    found = [one for one in found if set(models) <= set(one.columns)]
    yield _row([*about, *models])
    yield _row([*("---" for _ in about), *("---:" for _ in models)])
    for metric in LIPS:
        rows = [(one, row) for one in found for row in one.rows if row[0] == f"`{metric}`"]
        if not rows:
            raise SystemExit(f"docs/results.md: no row {metric} any more")
        for one, row in rows:
            cells = dict(zip(one.columns, row, strict=True))
            values = (_mean(cells[name]) for name in models)
            yield _row([*row[:3], cells.get("where", "GRID"), *values])
    yield ""


def speed() -> Iterator[str]:
    """How long things take."""
    page = "benchmarks/README.md"
    faces = [one for one in tables(ROOT / page) if "frames/s" in one.columns]
    cold = table(page, "animate.py", "3 s of sound")
    imports = table(page, "imports.py", "CPU, s")
    judge = table(page, "evaluate.py", "CPU s a clip")
    yield "## How fast"
    yield ""
    yield "Two cores and no GPU, from [benchmarks](../benchmarks/README.md), which says on which"
    yield "machine, how and beside what."
    yield ""
    yield _row(["what", "value", "measured by"])
    yield _row(["---", "---:", "---"])
    link = "[{0}](../benchmarks/README.md#{1})"
    animate = link.format("animate.py", "animatepy")
    for table_ in faces[:1]:
        for row in table_.rows:
            what = f"frames a second decoded and drawn, a face of {row[0]} lines, {row[1]}"
            yield _row([what, row[-1], animate])
    for key, what in (
        ("command_s", "the whole command for 3 s of sound, cold, s"),
        ("command_peak_mb", "its memory at most, MB"),
    ):
        yield _row([what, cold.cell(key, "3 s of sound"), animate])
    long = "600 s of sound"
    yield _row(
        ["memory at most for 600 s of sound, MB", cold.cell("command_peak_mb", long), animate]
    )
    for what in ("`import stillspeak`", "`stillspeak --help`"):
        cell = imports.cell(what, "CPU, s")
        yield _row([f"{what}, s of CPU", cell, link.format("imports.py", "importspy")])
    streaming = link.format("streaming.py", "streamingpy")
    live = table(page, "streaming.py", "clock: median, ms")
    for row in live.rows:
        key = " | ".join(row[:3])
        median = live.cell(key, "clock: median, ms")
        last = live.cell(key, live.columns[live.columns.index("95 %") + 1])
        threads = "" if row[2] == "1" else f", {row[2]} threads"
        what = f"a live frame, {row[0]}, {row[1]}{threads}, ms: median; 99th percentile"
        yield _row([what, f"{median}; {last}", streaming])
    cold_live = table(page, "streaming.py", "CPU, s")
    for row in cold_live.rows:
        cell = cold_live.cell(row[0], "median, s")
        what = f"a process to its first live frame, {row[0]}, s"
        yield _row([what, cell, streaming])
    held = table(page, "streaming.py", "held")
    for view in dict.fromkeys(row[0] for row in held.rows):
        most = max(int(row[1]) for row in held.rows if row[0] == view and row[2] == "True")
        yield _row([f"faces at 25 frames a second, {view}", str(most), streaming])
    call = table(page, "streaming.py", "delay: median, s")
    cell = call.cell("1 | ", "delay: median, s")
    yield _row(["microphone to loudspeaker through WebRTC, s", cell, streaming])
    web = table(page, "web.py", "median")
    for key, what in (
        ("video plays", "`stillspeak serve` to a playing video of 7.1 s in the browser"),
        ("a second video", "the next video of 7.1 s"),
    ):
        yield _row([what, web.cell(key, "median"), link.format("web.py", "webpy")])
    evaluate = link.format("evaluate.py", "evaluatepy")
    for row in judge.rows[:2]:
        yield _row([f"evaluating 50 clips, {row[0]}, s", row[1], evaluate])
    yield ""


def size() -> Iterator[str]:
    """The released files."""
    yield "## How large"
    yield ""
    yield "The released weights, from the files themselves:"
    yield ""
    yield _row(["name", "MiB", "what"])
    yield _row(["---", "---:", "---"])
    default = catalogue()["default"].name
    entries = {**catalogue(), **scorers()}
    for name, entry in sorted(entries.items()):
        if name == "default" or not entry.path.is_file():
            continue
        read_info(entry.path)  # or it is no weights file
        mark = " (used unasked)" if name == default else ""
        mebibytes = f"{entry.path.stat().st_size / 2**20:.1f}"
        yield _row([f"`{name}`", mebibytes, f"{entry.summary}{mark}"])
    yield ""


def content() -> str:
    """What stands between the page's marks."""
    return "\n".join([*quality(), *speed(), *size()]).rstrip() + "\n"


def main() -> int:
    """Write the tables, or compare them with what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    arguments = parser.parse_args()
    page = PAGE.read_text("utf-8")
    parts = re.split(f"{re.escape(BEGIN)}|{re.escape(END)}", page)
    if len(parts) != 3:
        raise SystemExit(f"{PAGE}: needs the marks {BEGIN} and {END}, once each")
    made = f"{parts[0]}{BEGIN}\n\n{content()}\n{END}{parts[2]}"
    if arguments.check:
        if made != page:
            print("performance.md: behind; run python scripts/performance.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(made, "utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
