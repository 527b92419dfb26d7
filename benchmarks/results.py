"""Evaluates the released weights on GRID's test speakers and in the wild: docs/results.md.

    python benchmarks/results.py [--data cache/grid] [--wild FOLDER] [--results results] [--clips N]

Test clips that are not prepared yet are prepared from the GRID that STILLSPEAK_GRID names, else
../shared/grid. The wild is a folder of talking videos of people outside GRID: --wild, else the one
that STILLSPEAK_WILD names, else ../shared/wild; where there is none it is left out, and the
command says so. Numbers about what faces do stand in one table for both. Each system gets a folder
of results, from which a stopped run goes on; then the part of docs/results.md between its two
markers is written anew from those folders, and what stands around it stays. --tables writes the
tables alone. --lip-reader FILE and --sync FILE are those of stillspeak evaluate.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from stillspeak.data.cache import load_manifest
from stillspeak.data.corpora import LAYOUTS
from stillspeak.data.layouts.grid import grid_root
from stillspeak.data.prepare import prepare
from stillspeak.errors import DataError, StillspeakError, WeightsError
from stillspeak.evaluation.evaluate import evaluate_folder, evaluate_model
from stillspeak.evaluation.metrics import all_metrics

ROOT = Path(__file__).resolve().parents[1]

SYSTEMS = ("layers", "temporal", "baseline", "still", "real")

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"

TABLE_1 = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "fdbm": "FDBM",
    "cpbd": "CPBD",
    "acd": "ACD",
    "acd_ratio": "ACD over real",
    "wer": "WER",
    "wer_real": "WER of real",
    "av_offset": "AV offset, frames",
    "av_confidence": "AV confidence",
    "av_confidence_real": "AV confidence of real",
}
"""Columns of Table 1."""

PAPER = {
    "paper: temporal GAN": {
        "psnr": "27.98", "ssim": "0.844", "fdbm": "0.114", "cpbd": "0.277", "acd": "1.02e-4",
        "acd_ratio": "1.38", "wer": "25.4 %",
    },
    "paper: static baseline": {
        "psnr": "27.39", "ssim": "0.831", "fdbm": "0.113", "cpbd": "0.280", "acd": "1.07e-4",
        "acd_ratio": "1.45", "wer": "37.2 %",
    },
}  # fmt: skip
"""The paper's Table 1, GRID; the ratio is over 0.74e-4 for real videos."""

PER_SPEAKER = ("psnr", "lip_correlation", "lip_amplitude", "acd_ratio", "wer")

WILD = "wild"
"""Folder of the results outside GRID, in that of all results."""

FACES = (
    *("lip_", "width_", "jaw_", "closures_", "closed_", "silent_lip", "silent_opening"),
    *("silent_share", "mouth_psnr", "av_offset", "av_confidence"),
    *("head_", "nod_", "brow_", "blink_", "mood_"),
)
"""How names of metrics of what faces do begin: none of them is shown for GRID alone."""

PERCENT = ("wer", "wer_real")


ARROWS = {"higher": "higher", "lower": "lower", "real": "as real"}

EMPTY = "–"


def main() -> None:
    """Parse arguments, evaluate, write; exit code 1 if a clip failed or a system is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("cache/grid"))
    parser.add_argument("--wild", type=Path, help="talking videos of people outside GRID")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results.md")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS))
    parser.add_argument("--clips", type=int, help="at most so many, from the speakers in turn")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lip-reader", type=Path)
    parser.add_argument("--sync", type=Path)
    parser.add_argument("--real-cache", type=Path)
    parser.add_argument("--tables", action="store_true", help="write the tables alone")
    arguments = parser.parse_args()
    problems: list[str] = []
    try:
        if not arguments.tables:
            prepare_test_clips(arguments.data, arguments.workers)
            problems = evaluate_systems(arguments)
            wild = wild_folder(arguments.wild)
            if wild is None:
                print("results: no videos outside GRID; name a folder: --wild", file=sys.stderr)
            else:
                problems += evaluate_systems(arguments, wild)
            report([arguments.results / name for name in arguments.systems], arguments.results)
        write(arguments.output, tables(arguments.results, arguments.systems))
    except StillspeakError as error:
        problems.append(str(error))
    for problem in problems:
        print(f"results: {problem}", file=sys.stderr)
    if problems:
        raise SystemExit(1)


def prepare_test_clips(cache: Path, workers: int) -> None:
    """Make a cache with GRID's test clips unless there is one."""
    try:
        if any(clip.split == "test" for clip in load_manifest(cache)):
            return
        raise DataError(f"{cache}: holds no test clips; give another --data")
    except DataError:
        if (cache / "manifest.jsonl").exists():
            raise
    root = grid_root()
    if root is None:
        raise DataError("there is no GRID corpus; name its folder in STILLSPEAK_GRID")
    clips = [clip for clip in LAYOUTS["grid"](root) if clip.split == "test"]
    print(f"preparing {len(clips)} test clips", file=sys.stderr)
    summary = prepare(clips, cache, workers=workers)
    for rejected in summary.rejected:
        print(f"left out: {rejected.reason}", file=sys.stderr)


def wild_folder(named: Path | None) -> Path | None:
    """The videos outside GRID: the folder named, else STILLSPEAK_WILD, else ../shared/wild."""
    if named is None and os.environ.get("STILLSPEAK_WILD"):
        named = Path(os.environ["STILLSPEAK_WILD"])
    if named is not None:
        if not named.is_dir():
            raise DataError(f"{named}: no such folder of videos")
        return named
    places = (base.parent / "shared" / "wild" for base in (Path.cwd(), ROOT))
    return next((place for place in places if place.is_dir()), None)


def evaluate_systems(arguments: argparse.Namespace, wild: Path | None = None) -> list[str]:
    """Evaluate what is not evaluated yet, on GRID or a folder; gives what went wrong."""
    problems = []
    common: dict[str, Any] = {
        "clips": arguments.clips,
        "sync": arguments.sync,
        "workers": arguments.workers,
        "command": shlex.join(["python", "benchmarks/results.py", *sys.argv[1:]]),
    }
    results = arguments.results if wild is None else arguments.results / WILD
    for name in arguments.systems:
        begin = time.monotonic()
        where = name if wild is None else f"{name}, outside GRID"
        try:
            if wild is None:
                result = evaluate_model(
                    *(name, arguments.data, results / name),
                    lip_reader=arguments.lip_reader,
                    real_cache=arguments.real_cache,
                    **common,
                )
            else:
                result = evaluate_folder(
                    *(name, wild, results / name),
                    metrics=[m.name for m in all_metrics() if about_faces(m.name)],
                    real_cache=results / "aligned",
                    **common,
                )
        except WeightsError as error:
            problems.append(f"{where} is left out: {error}")
            continue
        problems += [f"{where}: {f.clip}: {f.reason}" for f in result.failed]
        print(
            f"{where}: {result.scored} clips scored, {result.reused} were there already, "
            f"{len(result.failed)} failed; {time.monotonic() - begin:.0f} s",
            file=sys.stderr,
        )
    return problems


def report(folders: Sequence[Path], results: Path) -> None:
    """The page that stillspeak report makes of these folders, where there is that command."""
    try:
        write_report = import_module("stillspeak.evaluation.report.page").write_report
    except ImportError:
        return
    there = [folder for folder in folders if (folder / "summary.json").is_file()]
    write_report(there, results / "report", overwrite=True)
    print(f"{results / 'report'} written", file=sys.stderr)


def about_faces(metric: str) -> bool:
    """Whether a metric is about what faces do."""
    return metric.startswith(FACES)


def said_elsewhere(metric: str) -> bool:
    """Whether the tables show it anyway: in the real video's column, or as one minus another."""
    return metric.endswith("_real") or metric == "closures_missed"


def summaries(results: Path, systems: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Summaries by system, of those that there are."""
    found = {name: results / name / "summary.json" for name in systems}
    return {name: json.loads(p.read_text("utf-8")) for name, p in found.items() if p.is_file()}


def tables(results: Path, systems: Sequence[str]) -> str:
    """Everything that is generated, as Markdown."""
    of, wild = summaries(results, systems), summaries(results / WILD, systems)
    if not of:
        raise DataError(f"{results}: holds no results")
    blocks = [about(of, wild), table_1(of), faces_table(of, wild), all_metrics_table(of)]
    blocks += [speakers_table(of, wild), missing(of, wild)]
    return "\n\n".join(block for block in blocks if block)


def about(of: dict[str, dict[str, Any]], wild: dict[str, dict[str, Any]]) -> str:
    """Command, data and versions."""
    first = next(iter(of.values()))
    some = next(iter(first["metrics"].values()))
    speakers = ", ".join(f"{s} {v['clips']}" for s, v in some["speakers"].items())
    versions: dict[str, set[str]] = {}
    for summary in of.values():
        for name, version in summary["versions"].items():
            versions.setdefault(name, set()).add(version)
    lines = [
        f"Command: `{first['command']}`. Split `{first['split']}`, {first['clips']} clips "
        f"(by speaker: {speakers}). {about_wild(wild)}",
        "",
        "| package or tool | version |",
        "| --- | --- |",
        *(f"| {name} | {' / '.join(sorted(all_))} |" for name, all_ in versions.items()),
        "",
        "| system | weights (SHA-256) |",
        "| --- | --- |",
    ]
    for name, summary in of.items():
        sha256 = summary["system"]["sha256"]
        lines.append(f"| {name} | {sha256 if summary['system']['kind'] == 'model' else 'none'} |")
    return "\n".join(lines)


def about_wild(wild: dict[str, dict[str, Any]]) -> str:
    """How many videos of how many people there are outside GRID."""
    if not wild:
        return "Outside GRID nothing was measured."
    first = next(iter(wild.values()))
    people = max((len(metric["speakers"]) for metric in first["metrics"].values()), default=0)
    return f"Outside GRID: {first['clips']} videos of {people} people, from their first frames."


def faces_table(of: dict[str, dict[str, Any]], wild: dict[str, dict[str, Any]]) -> str:
    """What faces do, GRID and outside of it: means, intervals and medians."""
    lines = [
        "### Faces: GRID and in the wild",
        "",
        "Means over clips, in brackets 95 % of bootstrap means (GRID: speakers drawn with all "
        "their clips; wild: clips drawn), then medians. A correlation says as much as it is above "
        "its `_mismatched` one, closures found as much as they are above `closures_chance`.",
        "",
        "| metric | unit | better | where | " + " | ".join(of) + " |",
        "| --- | --- | --- | --- |" + " ---: |" * len(of),
    ]
    for key, metric in known_metrics(of).items():
        if not about_faces(key) or said_elsewhere(key):
            continue
        start = f"| `{key}` | {metric['unit']} | {ARROWS[metric['better']]}"
        for where, side, interval in (
            ("GRID", of, "interval_speakers"),
            ("wild", wild, "interval_clips"),
        ):
            cells = " | ".join(with_median(side.get(name), key, interval) for name in of)
            lines.append(f"{start} | {where} | {cells} |")
    return "\n".join(lines) if len(lines) > 6 else ""


def with_median(summary: dict[str, Any] | None, key: str, interval: str) -> str:
    """A mean with its interval, and the median unless all are the same number."""
    text = EMPTY if summary is None else cell(summary, key, interval)
    if summary is None or text == EMPTY:
        return EMPTY
    median = number(key, summary["metrics"][key]["median"])
    return text if text == median else f"{text}, {median}"


def known_metrics(of: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """All metrics of all systems."""
    return {key: metric for summary in of.values() for key, metric in summary["metrics"].items()}


def table_1(of: dict[str, dict[str, Any]]) -> str:
    """The paper's Table 1 beside ours: means, 95 % over clips in brackets."""
    lines = [
        "### Table 1",
        "",
        "Means over clips; in brackets 95 % of bootstrap means, clips drawn.",
        "",
        "| | " + " | ".join(TABLE_1.values()) + " |",
        "| --- |" + " ---: |" * len(TABLE_1),
    ]
    for name, row in PAPER.items():
        lines.append(f"| {name} | " + " | ".join(row.get(key, EMPTY) for key in TABLE_1) + " |")
    for name, summary in of.items():
        cells = (cell(summary, key, "interval_clips") for key in TABLE_1)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def all_metrics_table(of: dict[str, dict[str, Any]]) -> str:
    """Every other metric of every system: means, 95 % over speakers in brackets."""
    known = {key: m for key, m in known_metrics(of).items() if not about_faces(key)}
    known = {key: m for key, m in known.items() if not said_elsewhere(key)}
    lines = [
        "### All metrics",
        "",
        "All others, on GRID. Means over clips; in brackets 95 % of bootstrap means, speakers "
        "drawn with all their clips: with few speakers too narrow.",
        "",
        "| metric | unit | better | " + " | ".join(of) + " |",
        "| --- | --- | --- |" + " ---: |" * len(of),
    ]
    for key, metric in known.items():
        cells = " | ".join(cell(summary, key, "interval_speakers") for summary in of.values())
        lines.append(f"| `{key}` | {metric['unit']} | {ARROWS[metric['better']]} | {cells} |")
    return "\n".join(lines)


def speakers_table(of: dict[str, dict[str, Any]], wild: dict[str, dict[str, Any]]) -> str:
    """Means of each speaker; of what faces do outside GRID, too."""
    lines = ["### By speaker", "", "Means over each speaker's clips; wild: over all outside GRID."]
    for key in PER_SPEAKER:
        there = {n: s["metrics"][key]["speakers"] for n, s in of.items() if key in s["metrics"]}
        speakers = sorted({speaker for means in there.values() for speaker in means})
        if not speakers:
            continue
        outside = ["wild"] if about_faces(key) else []
        lines += ["", f"| `{key}` | " + " | ".join(speakers + outside) + " |"]
        lines.append("| --- |" + " ---: |" * len(speakers + outside))
        for name, means in there.items():
            values = [number(key, means.get(speaker, {}).get("mean")) for speaker in speakers]
            if outside:
                metric = wild.get(name, {}).get("metrics", {}).get(key, {})
                values.append(number(key, metric.get("mean")))
            lines.append(f"| {name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def missing(of: dict[str, dict[str, Any]], wild: dict[str, dict[str, Any]]) -> str:
    """Clips that failed, metrics that were left out and values that are not defined."""
    lines: list[str] = []
    gaps: dict[str, list[str]] = {}
    for name, summary in [*of.items(), *((f"{name}, wild", s) for name, s in wild.items())]:
        lines += [f"- {name}: {f['clip']} failed: {f['reason']}" for f in summary["failed"]]
        for reason in dict.fromkeys(summary["left_out"].values()):
            left_out = [key for key, why in summary["left_out"].items() if why == reason]
            lines.append(f"- {name}: without {', '.join(left_out)}: {reason}")
        undefined = [
            f"{key} for {metric['undefined']}"
            for key, metric in summary["metrics"].items()
            if metric["undefined"] and not said_elsewhere(key)
        ]
        if undefined:
            text = f"not defined, of {summary['clips']} clips: {'; '.join(undefined)}"
            gaps.setdefault(text, []).append(name)
    lines += [f"- {'; '.join(names)}: {text}" for text, names in gaps.items()]
    return "\n".join(["### What is missing", "", *lines]) if lines else ""


def cell(summary: dict[str, Any], key: str, interval: str) -> str:
    """A mean with its interval, if that is not the mean itself."""
    metric = summary["metrics"].get(key)
    if metric is None or metric["mean"] is None:
        return EMPTY
    text = number(key, metric["mean"])
    if metric[interval] is not None:
        low, high = (number(key, value) for value in metric[interval])
        if not text == low == high:
            text += f" ({low} to {high})"
    return text


def number(key: str, value: float | str | None) -> str:
    """A number as the tables print it."""
    if value is None:
        return EMPTY
    if isinstance(value, str):
        return value.replace("inf", "∞")
    if key in PERCENT:
        return f"{100 * value:.1f} %"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def write(path: Path, generated: str) -> None:
    """Replace what stands between the markers, in one step."""
    text = path.read_text("utf-8") if path.is_file() else f"# Results\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"{path}: lacks the markers {BEGIN} and {END}; put them where tables go")
    generated = generated.replace(f"{ROOT}/", "")  # reasons name files of this very checkout
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(f"{before}{BEGIN}\n\n{generated}\n\n{END}{after}", "utf-8")
    partial.replace(path)
    print(f"{path} written", file=sys.stderr)


if __name__ == "__main__":
    main()
