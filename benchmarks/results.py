"""Evaluates the released weights on GRID's test speakers and writes the tables of docs/results.md.

    python benchmarks/results.py [--data cache/grid] [--results results] [--clips N]

Test clips that are not prepared yet are prepared from the GRID that STILLSPEAK_GRID names, else
../shared/grid. Each system gets a folder of results, from which a stopped run goes on; then the
part of docs/results.md between its two markers is written anew from those folders, and what
stands around it stays. --tables writes the tables alone. --lip-reader FILE and --sync FILE are
those of stillspeak evaluate.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from stillspeak.data.corpora import LAYOUTS
from stillspeak.data.layouts.grid import grid_root
from stillspeak.data.prepare import load_manifest, prepare
from stillspeak.errors import DataError, StillspeakError, WeightsError
from stillspeak.evaluation.evaluate import evaluate_model

ROOT = Path(__file__).resolve().parents[1]

SYSTEMS = ("fluent", "warp", "temporal", "baseline", "still", "real")

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

PER_SPEAKER = ("psnr", "ssim", "lip_correlation", "lip_amplitude", "acd_ratio", "wer", "av_offset")

PERCENT = ("wer", "wer_real")

ARROWS = {"higher": "higher", "lower": "lower", "real": "as real"}

EMPTY = "–"


def main() -> None:
    """Parse arguments, evaluate, write; exit code 1 if a clip failed or a system is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("cache/grid"))
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


def evaluate_systems(arguments: argparse.Namespace) -> list[str]:
    """Evaluate what is not evaluated yet; gives what went wrong."""
    problems = []
    for name in arguments.systems:
        begin = time.monotonic()
        try:
            result = evaluate_model(
                name,
                arguments.data,
                arguments.results / name,
                clips=arguments.clips,
                lip_reader=arguments.lip_reader,
                sync=arguments.sync,
                real_cache=arguments.real_cache,
                workers=arguments.workers,
                command=shlex.join(["python", "benchmarks/results.py", *sys.argv[1:]]),
            )
        except WeightsError as error:
            problems.append(f"{name} is left out: {error}")
            continue
        problems += [f"{name}: {f.clip}: {f.reason}" for f in result.failed]
        print(
            f"{name}: {result.scored} clips scored, {result.reused} were there already, "
            f"{len(result.failed)} failed; {time.monotonic() - begin:.0f} s",
            file=sys.stderr,
        )
    return problems


def report(folders: Sequence[Path], results: Path) -> None:
    """The page that stillspeak report makes of these folders, where there is that command."""
    try:
        write_report = import_module("stillspeak.evaluation.report").write_report
    except ImportError:
        return
    there = [folder for folder in folders if (folder / "summary.json").is_file()]
    write_report(there, results / "report", overwrite=True)
    print(f"{results / 'report'} written", file=sys.stderr)


def tables(results: Path, systems: Sequence[str]) -> str:
    """Everything that is generated, as Markdown."""
    found = {name: results / name / "summary.json" for name in systems}
    of = {name: json.loads(p.read_text("utf-8")) for name, p in found.items() if p.is_file()}
    if not of:
        raise DataError(f"{results}: holds no results")
    blocks = [about(of), table_1(of), all_metrics_table(of), speakers_table(of), missing(of)]
    return "\n\n".join(block for block in blocks if block)


def about(of: dict[str, dict[str, Any]]) -> str:
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
        f"(by speaker: {speakers}).",
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
    """Every metric of every system: means, 95 % over speakers in brackets."""
    known = {key: metric for summary in of.values() for key, metric in summary["metrics"].items()}
    lines = [
        "### All metrics",
        "",
        "Means over clips; in brackets 95 % of bootstrap means, speakers drawn with all their "
        "clips: with few speakers too narrow.",
        "",
        "| metric | unit | better | " + " | ".join(of) + " |",
        "| --- | --- | --- |" + " ---: |" * len(of),
    ]
    for key, metric in known.items():
        cells = " | ".join(cell(summary, key, "interval_speakers") for summary in of.values())
        lines.append(f"| `{key}` | {metric['unit']} | {ARROWS[metric['better']]} | {cells} |")
    return "\n".join(lines)


def speakers_table(of: dict[str, dict[str, Any]]) -> str:
    """Means of each speaker."""
    lines = ["### By speaker", "", "Means over each speaker's clips."]
    for key in PER_SPEAKER:
        there = {n: s["metrics"][key]["speakers"] for n, s in of.items() if key in s["metrics"]}
        speakers = sorted({speaker for means in there.values() for speaker in means})
        if not speakers:
            continue
        lines += ["", f"| `{key}` | " + " | ".join(speakers) + " |"]
        lines.append("| --- |" + " ---: |" * len(speakers))
        for name, means in there.items():
            values = (number(key, means.get(speaker, {}).get("mean")) for speaker in speakers)
            lines.append(f"| {name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def missing(of: dict[str, dict[str, Any]]) -> str:
    """Clips that failed, metrics that were left out and values that are not defined."""
    lines = []
    for name, summary in of.items():
        lines += [f"- {name}: {f['clip']} failed: {f['reason']}" for f in summary["failed"]]
        for reason in dict.fromkeys(summary["left_out"].values()):
            left_out = [key for key, why in summary["left_out"].items() if why == reason]
            lines.append(f"- {name}: without {', '.join(left_out)}: {reason}")
        undefined = [
            f"{key} for {metric['undefined']}"
            for key, metric in summary["metrics"].items()
            if metric["undefined"]
        ]
        if undefined:
            lines.append(
                f"- {name}: not defined, of {summary['clips']} clips: {'; '.join(undefined)}"
            )
    return "\n".join(["### What is missing", "", *lines]) if lines else ""


def cell(summary: dict[str, Any], key: str, interval: str) -> str:
    """A mean with its interval."""
    metric = summary["metrics"].get(key)
    if metric is None or metric["mean"] is None:
        return EMPTY
    text = number(key, metric["mean"])
    if metric[interval] is not None:
        low, high = (number(key, value) for value in metric[interval])
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
