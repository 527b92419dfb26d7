"""Reports of small synthetic results: numbers, markup, what is missing, and what is refused."""

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from stillspeak.cli.app import main
from stillspeak.data.cache import load_manifest
from stillspeak.errors import DataError, OutputError, OutputExistsError
from stillspeak.evaluation.evaluate import evaluate_model
from stillspeak.evaluation.report import plots as report_plots
from stillspeak.evaluation.report import sheets as report_sheets
from stillspeak.evaluation.report.page import EvaluationReport, write_report
from stillspeak.evaluation.report.results import read_all
from stillspeak.evaluation.report.tables import best, paired_difference
from stillspeak.evaluation.summary import as_json, bootstrap, summarise, write_number
from stillspeak.evaluation.systems import Loaded, open_system
from stillspeak.reporting.numbers import number
from stillspeak.reporting.plots import SERIES

UNITS = {
    "psnr": ("dB", "higher"),
    "wer": ("1", "lower"),
    "blink_rate": ("1/s", "real"),
    "mood_strength": ("1", "real"),
}
HOSTILE = "<script>alert('x')</script> | $x^2$ & \"q\" `t` ](y)"
CLIPS = ("s2/a", "s2/b", "s10/a", "s10/b")

Values = dict[str, Sequence[float | None]]


def trace(clip: str, *, blink: bool = True, frames: int = 50) -> dict[str, Any]:
    closure = np.full(frames, 0.1)
    brow = np.zeros(frames)
    real = closure.copy()
    real[20:26] = 0.8
    if blink:
        closure[10:15] = [0.3, 0.6, 0.9, 0.6, 0.3]
        brow[30:36] = -2.0
    sides = {
        side: {
            "opening": [None, *(3 + np.sin(np.arange(frames - 1) + k)).tolist()],
            "closure": curve.tolist(),
            "brow": brow.tolist(),
        }
        for k, (side, curve) in enumerate({"generated": closure, "real": real}.items())
    }
    words = [[0.0, 0.3, "sil"], [0.3, 0.8, "bin"], [0.8, 1.5, "blue"], [1.5, 9.0, "sil"]]
    silent = [False] * frames
    return {"clip": clip, "fps": 25, "seconds": frames / 25, "words": words, "silent": silent} | (
        sides
    )


def results(
    folder: Path,
    values: Values,
    *,
    kind: str = "model",
    label: str = "ours",
    clips: Sequence[str] = CLIPS,
    traces: bool = True,
    version: int = 1,
    notes: Mapping[str, str] = MappingProxyType({}),
    **more: Any,
) -> Path:
    """A folder as evaluate writes it."""
    folder.mkdir(parents=True)
    system = {"kind": kind, "label": label, "sha256": "ab" * 32}
    (folder / "system.json").write_text(json.dumps(system))
    rows = []
    metrics = {}
    for name, given in values.items():
        unit, better = UNITS[name]
        about = {"name": name, "version": version, "unit": unit, "better": better}
        about |= {"definition": f"What {name} is.", "definition_hash": f"{name}-{version}"}
        mine: list[dict[str, Any]] = [
            {
                "clip": clip,
                "speaker": clip.split("/")[0],
                "clip_key": f"key of {clip}",
                "metric": name,
                "value": write_number(value),
                "note": notes.get(name, "") if value is not None else "no whole blink",
            }
            for clip, value in zip(clips, given, strict=True)
        ]
        metrics[name] = as_json(summarise(mine, about))
        rows += mine
    (folder / "values.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = {
        "system": system,
        "command": f"stillspeak evaluate --model {label}",
        "data": "nowhere/cache",
        "split": "test",
        "clips": len(clips),
        "failed": [],
        "left_out": {},
        "metrics": metrics,
        "versions": {"stillspeak": "0.1.0", "numpy": "2.0"},
    }
    (folder / "summary.json").write_text(json.dumps(summary | more))
    for clip in clips if traces else ():
        path = folder / "traces" / f"{clip}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(trace(clip, blink=kind != "still")))
    return folder


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """A model, the floor and the ceiling."""
    rate = [0.3, 0.4, 0.3, 0.4]
    ours = {"psnr": [30, 31, 28, 27.5], "wer": [0, 1 / 6, 0.5, 1 / 3]}
    floor = {"psnr": [29, 29.5, 27, 27], "blink_rate": rate}
    return [
        results(tmp_path / "r" / "ours", {**ours, "blink_rate": [0.5, 0, None, 0.3]}),
        results(tmp_path / "r" / "still", floor, kind="still", label="still"),
        results(tmp_path / "r" / "real", {"psnr": [np.inf] * 4}, kind="real", label="real"),
    ]


class Page(HTMLParser):
    """Elements, whether each is closed in order, and what a browser would fetch."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.without_alt = 0
        self.words: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self._look(tag, dict(attrs))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._look(tag, dict(attrs))

    def _look(self, tag: str, attributes: dict[str, str | None]) -> None:
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if attributes.get("id"):
            self.ids.append(str(attributes["id"]))
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            if attributes.get(name) is not None:
                self.fetched.append(str(attributes[name]))
        if tag == "img" and not attributes.get("alt"):
            self.without_alt += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += " " + data.strip()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(made: EvaluationReport) -> Page:
    return Page(made.page.read_text("utf-8"))


def written(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def self_contained(made: EvaluationReport) -> Page:
    """Assert what holds of every page, and read it."""
    read = page(made)
    assert read.open == []
    assert len(read.ids) == len(set(read.ids))
    assert "script" not in read.tags
    assert read.without_alt == 0
    for address in read.fetched:
        assert address.startswith(("#", "data:")), address
        if address.startswith("#"):
            assert address[1:] in read.ids
    text = made.page.read_text("utf-8")
    for address in re.findall(r"url\(([^)]*)\)", text):
        assert address.startswith("#")
    assert "@import" not in text
    pictures = re.findall(r"\]\((figures/[^)]*)\)", made.markdown.read_text("utf-8"))
    assert sorted(pictures) == sorted(
        str(p.relative_to(made.page.parent)) for p in (made.page.parent / "figures").iterdir()
    )
    return read


# --- numbers ------------------------------------------------------------------------------------


def test_table_numbers_are_the_summaries(three: list[Path], tmp_path: Path) -> None:
    made = write_report(three, tmp_path / "out")
    read = self_contained(made)
    assert made.systems == ("ours", "still", "real")
    rows = {cells[0].split()[0]: cells for cells in read.cells if cells and "clips," in cells[0]}
    psnr = json.loads((three[0] / "summary.json").read_text())["metrics"]["psnr"]
    assert psnr["mean"] == 29.125
    assert rows["ours"][1].split()[0] == "29.12"
    low, high = psnr["interval_speakers"]
    assert rows["ours"][1].split()[1:] == [f"{low:.2f}", "to", f"{high:.2f}"]
    assert "25.0" in rows["ours"][7]  # WER in percent, as in the paper
    assert rows["real"][1].strip() == "∞"
    header = next(cells for cells in read.cells if cells[0].strip() == "system")
    assert [c.strip() for c in header[7:9]] == ["WER, %", "WER, real clips, %"]
    paper = next(cells for cells in read.cells if "GRID proposed" in cells[0])
    assert [c.strip() for c in paper[1:8]] == (
        ["27.98", "0.844", "0.114", "0.277", "1.02e−4", "1.38", "25.4"]
    )
    assert "ours, blink_rate: 1 of 4 clips" in read.text
    assert "no whole blink (1 values)" in read.text
    markdown = made.markdown.read_text("utf-8")
    assert "| ours (model) | 29.12 (" in markdown
    assert "| paper, TCD-TIMIT baseline | 23.01 |" in markdown


def test_moods_are_counted(tmp_path: Path) -> None:
    strengths = {"mood_strength": [2.0, 2.0, None, 2.0]}
    happy = results(tmp_path / "h", strengths, notes={"mood_strength": "judged happy"})
    still = results(tmp_path / "s", strengths, kind="still", label="still")
    made = write_report([happy, still], tmp_path / "report")
    text = made.markdown.read_text()
    assert "| system | neutral | happy | sad | angry | surprised | fearful | disgusted |" in text
    assert "| ours | 0 | 3 | 0 | 0 | 0 | 0 | 0 |" in text
    assert "| still | 0 |" not in text
    assert "Clips by the mood" in " ".join(self_contained(made).words)


def test_paired_differences_by_hand() -> None:
    speakers = {"x/1": "x", "x/2": "x", "y/1": "y", "y/2": "y", "z/1": "z"}
    a = {"x/1": 3.0, "x/2": 5.0, "y/1": 1.0, "y/2": np.inf}
    b = {"x/1": 1.0, "x/2": 2.0, "y/1": 0.0, "y/2": 1.0, "z/1": 9.0}
    d = paired_difference(a, b, speakers)
    assert (d.clips, d.infinite, d.mean) == (3, 1, 2.0)
    assert d.interval_clips == bootstrap([np.array([v]) for v in (2.0, 3.0, 1.0)])
    assert d.interval_speakers == bootstrap([np.array([2.0, 3.0]), np.array([1.0])])
    assert d.clear
    assert not paired_difference({"x/1": 1.0}, {"x/1": 0.0}, speakers).clear
    nothing = paired_difference({"x/1": 1.0}, {"z/1": 1.0}, speakers)
    assert (nothing.clips, nothing.mean, nothing.interval_clips) == (0, None, None)


def test_paired_differences_are_in_the_report(three: list[Path], tmp_path: Path) -> None:
    read = page(write_report(three, tmp_path / "out"))
    rows = [[c.strip() for c in cells] for cells in read.cells if cells[0].strip() == "psnr, dB"]
    assert rows[0][1] == "+1.000"  # (1 + 1.5 + 1 + 0.5) / 4
    assert rows[0][4:] == ["yes", "4", "higher"]
    (rate,) = [c for c in read.cells if c[0].strip().startswith("blink_rate, 1/s") and len(c) > 6]
    assert rate[4].strip() == "no"
    assert rows[1][1] == "–"
    assert rows[1][5] == "0 4 infinite, left out"


@pytest.mark.parametrize(
    ("other", "still", "winner"),
    [
        ([27, 28, 25, 24.5], [26, 26, 24, 24], "ours"),
        ([27, 28, 25, 24.5], [31, 32, 29, 29], None),  # the floor is better still
        ([27, 34, 25, 30.0], [26, 26, 24, 24], None),  # not clearly ahead
    ],
)
def test_best_is_marked_where_it_is_honest(
    tmp_path: Path, other: list[float], still: list[float], winner: str | None
) -> None:
    folders = [
        results(tmp_path / "a", {"psnr": [30, 31, 28, 27.5]}),
        results(tmp_path / "b", {"psnr": other}, label="theirs"),
        results(tmp_path / "c", {"psnr": still}, label="still", kind="still"),
        results(tmp_path / "d", {"psnr": [np.inf] * 4}, label="real", kind="real"),
    ]
    assert best("psnr", read_all(folders)) == winner


def test_best_near_the_real_video(tmp_path: Path) -> None:
    folders = [
        results(tmp_path / "a", {"blink_rate": [0.9, 0.8, 0.9, 0.9]}, label="much"),
        results(tmp_path / "b", {"blink_rate": [0.4, 0.4, 0.4, 0.2]}, label="near"),
        results(tmp_path / "c", {"blink_rate": [0.4, 0.5, 0.3, 0.3]}, label="real", kind="real"),
    ]
    assert best("blink_rate", read_all(folders)) == "near"
    assert best("blink_rate", read_all(folders[:2])) is None
    assert best("blink_rate", read_all(folders[1:])) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (np.inf, "∞"),
        (-np.inf, "−∞"),
        (0.0, "0.000"),
        (-0.5, "−0.500"),
        (12.348, "12.35"),
        (123.46, "123.5"),
        (0.00012, "0.00012"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


# --- what is seen -------------------------------------------------------------------------------


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    clip = f"s1/{HOSTILE.replace('/', '')}"
    folder = results(
        tmp_path / "r",
        {"psnr": [30.0]},
        label=HOSTILE,
        clips=[clip],
        traces=False,
        failed=[{"clip": "s1/<b>x", "reason": HOSTILE}],
        left_out={"wer": HOSTILE},
        command="stillspeak ``` <script>",
        versions={"<i>numpy": HOSTILE},
    )
    curves = folder / "traces" / "s1" / "x.json"
    curves.parent.mkdir(parents=True)
    curves.write_text(json.dumps(trace(clip)))
    made = write_report([folder], tmp_path / "out", title=HOSTILE)
    read = self_contained(made)
    assert not {"script", "b>x", "i"} & set(read.tags)
    assert HOSTILE in read.text
    markdown = re.sub(r"```.*?```", "", made.markdown.read_text("utf-8"), flags=re.S)
    assert "<" not in markdown
    assert "](y)" not in markdown.replace("\\]", "")
    for picture in (tmp_path / "out" / "figures").iterdir():
        assert b"<script" not in picture.read_bytes()


def test_failed_clips_are_named_and_counted(tmp_path: Path) -> None:
    failed = [{"clip": "s9/x", "reason": "no face"}, {"clip": "s9/y", "reason": "two faces"}]
    folder = results(tmp_path / "r", {"psnr": [1, 2, 3, 4]}, failed=failed)
    text = self_contained(write_report([folder], tmp_path / "out")).text
    for said in ("Clips that failed: 2", "2 failed", "s9/x", "no face", "two faces"):
        assert said in text


def test_without_traces_it_says_why(tmp_path: Path) -> None:
    folder = results(tmp_path / "r", {"psnr": [1, 2, 3, 4]}, traces=False)
    text = self_contained(write_report([folder], tmp_path / "out")).text
    assert "ours: no curves over time (its results hold no traces" in text
    assert "ours, blinks and brows: its results hold no traces" in text
    assert "ours, the same sound on several faces:" in text


def test_pauses_are_no_words_and_nothing_is_invented(three: list[Path], tmp_path: Path) -> None:
    made = write_report([three[0], three[1]], tmp_path / "out", clips=2)
    text = page(made).text
    assert "s2/a: bin blue" in text
    assert "s10/a: bin blue" in text
    assert "s2/b: bin blue" not in text
    (folder,) = {three[0]}
    for path in folder.glob("traces/*/*.json"):
        path.write_text(json.dumps(trace(json.loads(path.read_text())["clip"], blink=False)))
    text = page(write_report([folder], tmp_path / "again")).text
    assert "no whole blink was found in 4 clips, so none is shown" in text
    assert "no brows lowered (a frown) by more than 1 px for 3 frames were found" in text


def test_blinks_and_brows_of_a_trace() -> None:
    traces = {"c": trace("c")}
    (blink,) = report_sheets.blinks(traces, "generated")
    assert (blink.start, blink.stop, blink.peak) == (10, 15, 12)
    assert blink.size == pytest.approx(0.8)
    (move,) = report_sheets.brow_movements(traces, "generated")
    assert (move.start, move.stop, move.size) == (30, 36, -2.0)


def test_differences_between_folders_are_told(tmp_path: Path) -> None:
    one = results(tmp_path / "a", {"psnr": [1, 2, 3, 4]})
    two = results(
        *(tmp_path / "b", {"psnr": [1, 2, 3]}),
        label="theirs",
        clips=["s2/a", "s2/b", "s30/z"],
        version=2,
        versions={"stillspeak": "0.1.0", "numpy": "1.0"},
    )
    made = write_report([one, two], tmp_path / "out")
    assert len(made.notes) == 3
    assert "2 in common, 2 only for ours, 1 only for theirs" in made.notes[0]
    assert "psnr has different definitions (ours version 1, theirs version 2)" in made.notes[1]
    assert "numpy" in made.notes[2]
    text = page(made).text
    assert "Before you compare" in text
    assert all(" ".join(note.split()) in text for note in made.notes)


def test_clips_prepared_differently_are_not_paired(three: list[Path], tmp_path: Path) -> None:
    path = three[1] / "values.jsonl"
    path.write_text(path.read_text().replace("key of s2/a", "another key"))
    made = write_report(three[:2], tmp_path / "out")
    assert (
        "1 of 4 clips that ours and still have in common are prepared differently" in made.notes[0]
    )
    row = next(c for c in page(made).cells if c[0].strip() == "psnr, dB")
    assert row[5].strip() == "3"


# --- frames -------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_sheets_show_the_frames_that_were_scored(speaking_cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "real"
    evaluate_model("real", speaking_cache, folder, split="train", metrics=["psnr"], workers=0)
    clip = load_manifest(speaking_cache)[0]
    name = f"{clip.speaker}/{clip.name}"
    path = folder / "traces" / f"{name}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(trace(name, frames=clip.frames)))
    made = write_report([folder], tmp_path / "out")
    assert f"A blink: real, {name}" in self_contained(made).text
    strips = sorted((tmp_path / "out" / "figures").glob("*.png"))
    frames = report_sheets.SystemFrames(open_system("real"), speaking_cache, folder, {})
    with Image.open(strips[0]) as picture:
        shown = np.asarray(picture)[:, :96, :3]
    assert (shown == frames.generated(name)[9]).all()
    # Gone caches and changed clips are a reason, not an error.
    shutil.move(path.parent.parent, tmp_path / "traces")
    for data in (tmp_path, tmp_path / "none"):
        shutil.copytree(tmp_path / "traces", folder / "traces", dirs_exist_ok=True)
        out = tmp_path / f"without-{data.name}"
        text = page(write_report([folder], out, data=data)).text
        assert "real, a blink:" in text
        assert not list((out / "figures").glob("*.png"))


# --- bytes --------------------------------------------------------------------------------------


def test_two_reports_are_equal_bytes(three: list[Path], tmp_path: Path) -> None:
    write_report(three, tmp_path / "x")
    write_report(three, tmp_path / "y")
    assert written(tmp_path / "x") == written(tmp_path / "y")
    for path in (tmp_path / "x").rglob("*.svg"):
        assert b"dc:date" not in path.read_bytes()


def test_a_report_is_replaced_only_if_asked(three: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_report(three, out)
    (out / "mine.txt").write_text("x")
    with pytest.raises(OutputExistsError, match="holds a report already"):
        write_report(three, out)
    write_report(three[:1], out, overwrite=True)
    assert not (out / "mine.txt").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    with pytest.raises(OutputError, match="something else than a report"):
        write_report(three, three[0], overwrite=True)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(OutputError, match="is no folder"):
        write_report(three, file, overwrite=True)


def test_nothing_half_written_stays(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_report(three[:1], out)
    before = written(tmp_path)
    real_write = Path.write_text

    def full(path: Path, *arguments: Any, **more: Any) -> int:
        if path.name == "index.html":
            raise OSError(28, "No space left on device")
        return real_write(path, *arguments, **more)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_report(three, out, overwrite=True)
    with pytest.raises(OutputError):
        write_report(three, tmp_path / "new")
    assert written(tmp_path) == before
    assert not (tmp_path / "new").exists()


# --- bad input ----------------------------------------------------------------------------------


def damage(name: str, text: str) -> Any:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("hurt", "said"),
    [
        (lambda folder: (folder / "system.json").unlink(), "is no folder of results"),
        (lambda folder: (folder / "summary.json").unlink(), "there is none"),
        (lambda folder: (folder / "values.jsonl").unlink(), "there is none"),
        (damage("system.json", "{"), "cannot be read"),
        (damage("system.json", "[]"), "no table"),
        (damage("system.json", "{}"), "without kind, label, sha256"),
        (damage("summary.json", '{"clips": 1}'), "damaged"),
        (damage("summary.json", '{"clips": 1, "metrics": {"psnr": {"mean": "x"}}}'), "damaged"),
        (damage("values.jsonl", '{"clip": "s/x"'), "damaged"),
        (damage("values.jsonl", "[1]\n"), "damaged"),
        (damage("traces/s2/a.json", '{"clip": "s2/a"}'), "damaged"),
        (damage("traces/s2/a.json", "[]"), "damaged"),
    ],
)
def test_damaged_results_are_one_line(
    three: list[Path], tmp_path: Path, hurt: Any, said: str
) -> None:
    hurt(three[0])
    with pytest.raises(DataError, match=said) as caught:
        write_report(three, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert str(three[0]) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_same_folder_twice(three: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="given twice"):
        write_report([three[0], three[0]], tmp_path / "out")


def test_two_systems_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [results(tmp_path / name, {"psnr": [1, 2, 3, 4]}) for name in ("x", "y")]
    assert write_report(folders, tmp_path / "out").systems == ("ours (x)", "ours (y)")


def run(*arguments: Any) -> int:
    sys.argv = ["stillspeak", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def _argv() -> Iterator[None]:
    before = sys.argv
    yield
    sys.argv = before


@pytest.mark.usefixtures("_argv")
def test_the_command(three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run("report", *three, "-o", out, "--title", "Mine", "--clips", 1) == 0
    assert "index.html" in capsys.readouterr().out
    assert "<h1>Mine</h1>" in (out / "index.html").read_text("utf-8")
    assert run("report", *three, "-o", out) == 1
    error = capsys.readouterr().err
    assert error.startswith("stillspeak: ")
    assert error.count("\n") == 1
    assert run("report", tmp_path / "nothing", "-o", tmp_path / "new") == 1
    assert run("report", "-o", tmp_path / "new") == 2


# --- in a browser -------------------------------------------------------------------------------


@pytest.mark.e2e
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (390, True)])
def test_a_browser_shows_it(three: list[Path], tmp_path: Path, width: int, dark: bool) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed (optional system package)")
    made = write_report(three, tmp_path / "out")
    # Headless windows are at least 500 pixels wide, so the page is shown in a frame, and a copy
    # of it writes down how wide it got: no script is in the page itself.
    text = made.page.read_text("utf-8")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    wide = "document.documentElement.scrollWidth + ' of ' + document.documentElement.clientWidth"
    probe = f"<script>parent.postMessage({wide}, '*')</script></body>"
    (tmp_path / "out" / "copy.html").write_text(text.replace("</body>", probe), "utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<!DOCTYPE html><body style='margin:0'><p id='w'></p><script>onmessage = e => "
        "{document.getElementById('w').textContent = 'width ' + e.data}</script>"
        f"<iframe src='out/copy.html' style='width:{width}px;height:2000px;border:0'></iframe>"
    )
    base = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    base += [f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    base += ["--enable-logging=stderr", "--log-level=0", "--allow-file-access-from-files"]
    base += ["--virtual-time-budget=3000"]
    base += ["--blink-settings=preferredColorScheme=0"] if dark else []
    dumped = subprocess.run(
        [*base, "--dump-dom", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert f"width {width} of {width}" in dumped.stdout
    shot = tmp_path / "shot.png"
    shown = subprocess.run(
        [*base, f"--screenshot={shot}", "--window-size=1280,2000", made.page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in shown.stderr + dumped.stderr
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("L"), np.float64)
    assert pixels.std() > 5
    assert (np.median(pixels) < 60) == dark


def test_plots_follow_the_pages_colours() -> None:
    curve = report_plots.Curve("<a> $", SERIES[0], [1.0, None, 2.0])
    plot = report_plots.distribution("psnr & more", "dB", [curve])
    inline = plot.inline("p1")
    assert "var(--series-0)" in inline
    assert "#0101" not in inline
    assert "#0072b2" in plot.file().decode()
    assert "&lt;a&gt; $" in inline


# --- sheets of made-up frames -------------------------------------------------------------------


class Painted:
    """Frames whose grey level says which clip and frame they are of."""

    def real(self, clip: str) -> Loaded:
        grey = np.arange(50, dtype=np.uint8) + (100 if clip == "s4/b" else 0)
        frames = np.broadcast_to(grey[:, None, None, None], (50, 128, 96, 3)).copy()
        words = [(0.0, 0.4, "sil"), (0.4, 0.8, "bin"), (0.8, 1.2, "blue")]
        return Loaded(frames, np.zeros(32000, np.float32), words, "bin blue")

    def generated(self, clip: str) -> Any:
        return self.real(clip).frames + 50

    def speaking(self, face: str, sound: str) -> Any:
        return self.real(face).frames[:1] + np.arange(50, dtype=np.uint8)[:, None, None, None]


def levels(strip: report_sheets.Strip) -> list[int]:
    with Image.open(io.BytesIO(strip.png)) as picture:
        row = np.asarray(picture)[0]
    return [int(row[left, 0]) for left in range(0, len(row), 96 + report_sheets.GAP)]


def test_one_sound_on_several_faces() -> None:
    sheet = report_sheets.same_sound(cast(Any, Painted()), ["s2/a", "s4/b"], "ours")
    assert sheet.columns == ("still", "bin", "blue")
    assert [levels(strip) for strip in sheet.strips] == [[0, 15, 25], [0, 15, 25], [100, 115, 125]]
    assert "“bin blue”" in sheet.caption


def test_a_blink_beside_the_real_video() -> None:
    blink = report_sheets.Movement("s2/a", 10, 15, 12, 0.5)
    sheet = report_sheets.blink_sheet(cast(Any, Painted()), blink, "ours", 25)
    assert [levels(strip) for strip in sheet.strips] == [
        [59, 61, 62, 63, 65],
        [9, 11, 12, 13, 15],
    ]
    assert sheet.columns[0] == "open 0.36\N{NO-BREAK SPACE}s"
    brows = report_sheets.Movement("s2/a", 1, 49, 5, -2.0)
    sheet = report_sheets.brow_sheet(cast(Any, Painted()), brows, "ours", 25)
    assert levels(sheet.strips[1]) == [0, 1, 5, 48, 49]
    assert sheet.title == "Brows lowered: ours, s2/a"
