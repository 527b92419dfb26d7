"""Train on a machine that is lent for minutes and reached only through small parcels.

    here    python tools/lease/lease.py pack CACHE PARTS
    there   python tools/lease/lease.py unpack PARTS CACHE
    there   python tools/lease/lease.py run --data CACHE --run RUN --config C --minutes 9 --out OUT
    there   python tools/lease/lease.py more --run RUN --out OUT --after 7
    here    python tools/lease/lease.py collect OUT [OUT ...] RUN
    here    python tools/lease/lease.py send RUN PARCEL      (then, there: run ... --from PARCEL)

Nothing has to be installed there but what training imports; `check` says what is missing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(ROOT / "src"))  # there it runs from a copied tree, not installed

from stillspeak.errors import (  # noqa: E402
    DataError,
    MissingDependencyError,
    StillspeakError,
    TrainingError,
)

NEEDED = {
    "numpy": "numpy",
    "torch": "torch",
    "av": "av",
    "soxr": "soxr",
    "PIL": "pillow",
    "safetensors": "safetensors",
    "pydantic": "pydantic",
    "typer": "typer",
    "rich": "rich",
    "lightning_fabric": "lightning-fabric",
    "tensorboard": "tensorboard",
}
"""What training imports, and how it is called where packages are installed from."""

PART_MIB = 45
"""Beside a part the tree itself travels, 17 MiB with the bundled weights: 62 in all."""

MIB = 2**20
OUTBOX = "outbox"
SUMMARY = "summary.json"
LEDGER = "lease.jsonl"
LOG = "lease.log"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; a user's mistake is one line and exit code 1."""
    begin = time.monotonic()
    options = parser().parse_args(arguments)
    try:
        return int(options.do(options, begin) or 0)
    except StillspeakError as error:
        print(f"lease: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, do: Any) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=do.__doc__.splitlines()[0])
        one.set_defaults(do=do)
        return one

    one = command("pack", pack_command)
    one.add_argument("cache", type=Path)
    one.add_argument("parts", type=Path)
    one.add_argument("--part-mib", type=float, default=PART_MIB, help=f"largest part ({PART_MIB})")
    one.add_argument("--max-mib", type=float, help="largest sum of all parts")
    one.add_argument("--clips-per-speaker", type=int)
    one.add_argument("--speakers", nargs="+")
    one.add_argument("--splits", nargs="+", default=["train", "validation"])
    one.add_argument("--crf", type=int, default=10, help="0 best to 51 (10)")
    one.add_argument("--workers", type=int)

    one = command("unpack", unpack_command)
    one.add_argument("parts", type=Path)
    one.add_argument("cache", type=Path)
    one.add_argument("--workers", type=int)

    one = command("check", check_command)
    one.add_argument("--device", default="auto")

    one = command("run", run_command)
    one.add_argument("--data", type=Path, required=True, metavar="CACHE")
    one.add_argument("--run", type=Path, required=True)
    one.add_argument("--config", type=Path, required=True)
    one.add_argument("--minutes", type=float, required=True, help="of this call, all in all")
    one.add_argument("--out", type=Path, required=True, help="what goes back")
    one.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    one.add_argument("--from", dest="parcels", type=Path, nargs="+", default=[], metavar="PARCEL")
    one.add_argument("--start-from", help="weights to begin a new run with")
    one.add_argument("--device", default="auto", help="auto asks for CUDA")
    one.add_argument("--reserve", type=float, default=0.75, help="minutes to save in (0.75)")
    one.add_argument("--weights", choices=["best", "last", "both", "none"], default="both")
    one.add_argument("--sheets", type=int, default=3, help="newest contact sheets (3)")
    one.add_argument("--slim-state", action="store_true", help="see training/slim.py")
    limits(one)

    one = command("more", more_command)
    one.add_argument("--run", type=Path, required=True)
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--after", type=int, required=True, help="pieces that went back before")
    limits(one)

    one = command("collect", collect_command)
    one.add_argument("out", type=Path, nargs="+")
    one.add_argument("run", type=Path)

    one = command("send", send_command)
    one.add_argument("run", type=Path)
    one.add_argument("parcel", type=Path)
    one.add_argument("--part-mib", type=float, default=PART_MIB, help=f"largest one ({PART_MIB})")
    one.add_argument("--slim-state", action="store_true", help="see training/slim.py")
    return top


def limits(one: argparse.ArgumentParser) -> None:
    """What may go back at once."""
    one.add_argument("--piece-mib", type=float, default=15.9, help="largest file back (15.9)")
    one.add_argument("--call-mib", type=float, default=63.7, help="of all files of a call (63.7)")
    one.add_argument("--call-files", type=int, default=8, help="files back a call (8)")


# ------------------------------------------------------------------ the data


def pack_command(options: argparse.Namespace, begin: float) -> int:
    """Pack a prepared cache into parts of limited size."""
    from pack import pack

    made = pack(
        options.cache,
        options.parts,
        splits=options.splits,
        speakers=options.speakers,
        clips_per_speaker=options.clips_per_speaker,
        part_bytes=int(options.part_mib * MIB),
        max_bytes=None if options.max_mib is None else int(options.max_mib * MIB),
        crf=options.crf,
        workers=options.workers,
        progress=every(50),
    )
    for path in made.parts:
        print(f"{path}: {path.stat().st_size / MIB:.1f} MiB")
    print(
        f"{made.clips} clips of {made.speakers} speakers, {made.frames} frames, "
        f"{made.bytes / MIB:.1f} MiB in {len(made.parts)} parts, "
        f"{made.bytes / made.frames:.0f} bytes a frame; {made.left_out} clips left out; "
        + ("all there already" if made.again else f"{time.monotonic() - begin:.0f} s")
    )
    return 0


def unpack_command(options: argparse.Namespace, begin: float) -> int:
    """Restore a cache from the parts that are there; 1 if any is damaged."""
    from pack import unpack

    done = unpack(options.parts, options.cache, workers=options.workers, progress=every(200))
    print(
        f"{done.clips} clips unpacked, {done.skipped} there already, {done.listed} in "
        f"{options.cache}; {time.monotonic() - begin:.0f} s"
    )
    if done.missing:
        print(f"not here yet: parts {', '.join(map(str, done.missing))} of {done.parts}")
    for line in done.damaged:
        print(f"lease: {line}", file=sys.stderr)
    return 1 if done.damaged else 0


def every(count: int) -> Any:
    """A progress callback that says a line now and then."""

    def progress(done: int, total: int, name: str) -> None:
        if done % count == 0:
            print(f"{done} of {total} {name}", file=sys.stderr)

    return progress


# ------------------------------------------------------------------ there


def check_command(options: argparse.Namespace, begin: float) -> int:
    """Say what this machine has and what it lacks for training."""
    print(ready(options.device))
    return 0


def ready(device: str) -> str:
    """A line on this Python and its accelerator.

    Raises:
        MissingDependencyError: something that training imports is not there.
        TrainingError: no CUDA device, and no other was asked for.
    """
    lacking = []
    for module, package in NEEDED.items():
        try:
            importlib.import_module(module)
        except (ImportError, OSError):
            lacking.append(package)
    if lacking:
        names = " ".join(lacking)
        raise MissingDependencyError(
            f"{sys.executable} lacks {names}; bring the wheels along, then: python -m pip install "
            f"--no-index --no-deps --find-links WHEELS --target SITE {names}; export "
            "PYTHONPATH=SITE"
        )
    import torch

    cuda = torch.cuda.is_available()
    if device in ("auto", "cuda") and not cuda:
        raise TrainingError(
            f"PyTorch {torch.__version__} sees no CUDA device; add --device cpu to train without"
        )
    name = torch.cuda.get_device_name() if cuda and device != "cpu" else device
    return f"Python {sys.version.split()[0]}, PyTorch {torch.__version__}, {name}"


def run_command(options: argparse.Namespace, begin: float) -> int:
    """Train for some minutes and leave everything worth having in OUT."""
    from stillspeak.training.checkpoint import latest_checkpoint

    machine = ready(options.device)
    print(machine)
    if options.parcels:
        print(take_in(options.parcels, options.run, newer_stays=True))
    resumed = latest_checkpoint(options.run)
    stop_at = begin + 60 * (options.minutes - options.reserve)
    left = (stop_at - time.monotonic()) / 60
    if left <= 0:
        raise TrainingError(
            f"of {options.minutes:g} minutes none is left to train beside a reserve of "
            f"{options.reserve:g}; allow more, or a smaller --reserve"
        )
    command = [sys.executable, "-m", "stillspeak", "train", "--config", str(options.config)]
    command += ["--data", str(options.data), "--run", str(options.run)]
    command += ["--device", options.device, "--minutes", f"{left:.3f}"]
    for override in options.overrides:
        command += ["--set", override]
    if resumed:
        command.append("--resume")
    elif options.start_from:
        command += ["--from", options.start_from]
    options.run.mkdir(parents=True, exist_ok=True)
    before = time.time()
    with Gauge() as gauge:
        code = supervise(
            command,
            options.run / LOG,
            stop_at,
            begin + 60 * (options.minutes - options.reserve / 3),
        )
    said = (options.run / LOG).read_text("utf-8", errors="replace").strip().splitlines()
    print("\n".join(said[-12:]))

    newest = latest_checkpoint(options.run)
    summary = {
        "machine": machine,
        "outcome": said[-1] if said else "said nothing",
        "exit_code": code,
        **pace(options.run, step_of(resumed)),
        "gpu": gauge.summary(),
        "minutes": round((time.monotonic() - begin) / 60, 2),
    }
    with (options.run / LEDGER).open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(summary) + "\n")
    fresh = newest is not None and (
        step_of(newest) > step_of(resumed) or newest.stat().st_mtime >= before
    )
    fill_outbox(options, newest if fresh else None, step=step_of(newest), since=before)
    summary |= hand_out(options, after=0)
    summary["minutes"] = round((time.monotonic() - begin) / 60, 2)
    (options.out / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    print(json.dumps({k: v for k, v in summary.items() if k != "files"}))
    if code:
        print(f"lease: training broke off: {summary['outcome']}", file=sys.stderr)
    return 1 if code else 0


def supervise(command: list[str], log: Path, stop_at: float, kill_at: float) -> int:
    """Run a command; tell it to stop at one time and end it at another. Returns its exit code."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT / "src"), *filter(None, [environment.get("PYTHONPATH")])]
    )
    told = threading.Event()
    old = {s: signal.signal(s, lambda *_: told.set()) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        with log.open("w", encoding="utf-8") as file:
            child = subprocess.Popen(  # noqa: S603
                command, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
            terminated = False
            while child.poll() is None:
                now = time.monotonic()
                if not terminated and (told.is_set() or now >= stop_at):
                    child.terminate()
                    terminated = True
                if now >= kill_at:
                    child.kill()
                time.sleep(0.1)
        return child.returncode
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class Gauge:
    """Asks nvidia-smi how busy the card is, every two seconds, if there is one."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Gauge:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _watch(self) -> None:
        tool = shutil.which("nvidia-smi")
        if tool is None:
            return
        query = "--query-gpu=utilization.gpu,memory.used,power.draw"
        while not self._stop.wait(2):
            try:
                answer = subprocess.run(  # noqa: S603
                    [tool, query, "--format=csv,noheader,nounits"],
                    capture_output=True,
                    text=True,
                    timeout=10,
                    check=True,
                ).stdout
                self.rows.append([float(x) for x in answer.splitlines()[0].split(",")])
            except (OSError, subprocess.SubprocessError, ValueError, IndexError):
                continue

    def summary(self) -> dict[str, float] | None:
        """Per cent busy (mean, and half of the samples below), MiB at most, mean watts."""
        if not self.rows:
            return None
        busy, memory, power = (list(column) for column in zip(*self.rows, strict=True))
        return {
            "busy_percent": round(statistics.mean(busy), 1),
            "busy_percent_median": statistics.median(busy),
            "memory_mib": max(memory),
            "watts": round(statistics.mean(power), 1),
            "samples": len(busy),
        }


def pace(run: Path, since: int) -> dict[str, Any]:
    """Steps of this call, and steps and decoded frames a second, from the run's own log."""
    path, config = run / "metrics.jsonl", run / "config.json"
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        row = json.loads(line)
        if row["kind"] == "train" and row["step"] > since:
            rows.append(row)
    result: dict[str, Any] = {"from_step": since, "step": rows[-1]["step"] if rows else since}
    if rows:
        # The rows' own rates leave start-up out and count validation in.
        first, last = rows[0], rows[-1]
        seconds = last["seconds"] - first["seconds"]
        if last["step"] > first["step"] and seconds > 0:
            rate = (last["step"] - first["step"]) / seconds
        else:
            rate = last["steps_per_second"]
        result["steps_per_second"] = round(rate, 3)
        result["steps_per_second_median"] = round(
            statistics.median(row["steps_per_second"] for row in rows), 3
        )
        if config.exists():
            table = json.loads(config.read_text("utf-8"))
            data = table["data"]
            frames = data["batch"] * data["decoded_frames"]
            frames *= table["training"].get("accumulate", 1)
            result["frames_per_second"] = round(rate * frames, 1)
    return result


def step_of(checkpoint: Path | None) -> int:
    """The step in a checkpoint's name; 0 for none."""
    return 0 if checkpoint is None else int(checkpoint.stem.rpartition("-")[2])


# ------------------------------------------------------------------ what goes back


def fill_outbox(
    options: argparse.Namespace, checkpoint: Path | None, *, step: int, since: float
) -> None:
    """Cut everything worth having into pieces, the dearest first."""
    from archive import cut

    run, outbox = options.run, options.run / OUTBOX
    shutil.rmtree(outbox, ignore_errors=True)

    def fresh(path: Path) -> bool:
        return path.is_file() and path.stat().st_mtime >= since

    results = {
        name: run / name
        for name in ("config.json", "metrics.jsonl", LEDGER, LOG)
        if (run / name).is_file()
    }
    for pattern, count in (("*.png", options.sheets), ("*.mp4", 1)):
        newest = sorted(filter(fresh, (run / "samples").glob(pattern)))
        results |= {f"samples/{path.name}": path for path in newest[len(newest) - count :]}
    sets: list[tuple[str, dict[str, Path]]] = [("results", results)]
    for name in ("best", "last"):
        path = run / f"{name}.safetensors"
        if options.weights in (name, "both") and fresh(path):
            sets.append((name, {path.name: path}))
    slim = None
    if checkpoint is not None:
        slim = slim_file(checkpoint, run) if options.slim_state else None
        sets.append(("state", {(slim or checkpoint).name: slim or checkpoint}))
    for order, (kind, files) in enumerate(sets):
        cut(
            files,
            outbox / str(order),
            kind=kind,
            step=step,
            piece_bytes=int(options.piece_mib * MIB),
        )
    if slim is not None:
        slim.unlink()


def hand_out(options: argparse.Namespace, *, after: int) -> dict[str, Any]:
    """Copy as many pieces as may go back at once into OUT; says which and what is left."""
    from archive import PIECE, sha256_of

    outbox = options.run / OUTBOX
    pieces = sorted(outbox.glob("*/*.piece"))
    if not pieces:
        raise DataError(f"{outbox}: nothing here to hand out; run first")
    if not 0 <= after < len(pieces):
        raise DataError(f"there are {len(pieces)} pieces; --after {after} leaves none")
    options.out.mkdir(parents=True, exist_ok=True)
    for old in options.out.iterdir():
        if PIECE.fullmatch(old.name):
            old.unlink()
    room = int(options.call_mib * MIB) - 64 * 1024  # for the summary
    chosen: list[Path] = []
    for path in pieces[after:]:
        room -= path.stat().st_size
        if room < 0 or len(chosen) + 1 >= options.call_files:
            break
        shutil.copyfile(path, options.out / path.name)
        chosen.append(path)
    if not chosen:
        raise DataError("not even one piece may go back; allow more with --call-mib, --call-files")
    done = after + len(chosen)
    if done < len(pieces):
        print(
            f"pieces {after + 1} to {done} of {len(pieces)} are in {options.out}; for the next: "
            f"lease.py more --run {options.run} --out {options.out} --after {done}"
        )
    return {
        "pieces": len(pieces),
        "handed_out": done,
        "files": [{"name": p.name, "sha256": sha256_of(options.out / p.name)} for p in chosen],
    }


def more_command(options: argparse.Namespace, begin: float) -> int:
    """Put the pieces into OUT that did not go back with the run's own call."""
    done = hand_out(options, after=options.after)
    print(f"{done['handed_out']} of {done['pieces']} pieces have gone back")
    return 0


def collect_command(options: argparse.Namespace, begin: float) -> int:
    """Put what came back into the run's folder, ready for `stillspeak train --resume`."""
    print(take_in(options.out, options.run))
    return 0


def take_in(folders: Sequence[Path], run: Path, *, newer_stays: bool = False) -> str:
    """Join the pieces of some folders into a run's folder. Returns a line on what came.

    Whole sets are put in place before a half one is complained about.

    Raises:
        DataError: damaged or mixed pieces, a half set, or pieces of another run.
        TrainingError: the run has gone further than what came.
    """
    from archive import find_pieces, join, missing_pieces
    from stillspeak.training.checkpoint import latest_checkpoint

    found = find_pieces(folders)
    steps = {int(boxes[0].table["step"]) for boxes in found.values()}
    if len(steps) > 1:
        raise DataError(
            f"{', '.join(map(str, folders))}: pieces of steps {', '.join(map(str, sorted(steps)))}"
            "; keep those of one step"
        )
    (step,) = steps
    own = step_of(latest_checkpoint(run))
    if own > step:
        if newer_stays:
            return f"{run} has step {own} already, what was sent is step {step}; nothing taken"
        raise TrainingError(
            f"{run}: has gone on to step {own}, what came is of step {step}; "
            "collect it into a new folder"
        )
    incoming = run / ".incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    came, half = [], []
    try:
        for kind, boxes in found.items():
            if missing_pieces(boxes):
                half.append(boxes)
                continue
            for name in join(boxes, incoming).files:
                if kind == "state" and name.startswith("slim-"):
                    restore_slim(incoming / name)
            came.append(kind)
        refuse_another_run(incoming, run)
        for path in sorted(incoming.rglob("*")) if incoming.is_dir() else []:
            if path.is_file():
                target = run / path.relative_to(incoming)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
        if not came and run.is_dir() and not any(run.iterdir()):
            run.rmdir()
    for boxes in half:
        join(boxes, run)  # raises, and says which pieces are missing
    more = "" if "state" in came else "; no checkpoint came"
    return f"step {step}: {', '.join(came)} put into {run}{more}"


def refuse_another_run(incoming: Path, run: Path) -> None:
    """A run's log begins as it began: other first lines are of another run."""
    theirs, ours = incoming / "metrics.jsonl", run / "metrics.jsonl"
    if theirs.is_file() and ours.is_file():
        with theirs.open(encoding="utf-8") as a, ours.open(encoding="utf-8") as b:
            first, own = a.readline(), b.readline()
        if own and first != own:
            raise DataError(f"{run}: holds another run than what came; name a new folder")


def send_command(options: argparse.Namespace, begin: float) -> int:
    """Cut a run's newest checkpoint into pieces, to go on from there elsewhere."""
    from archive import PIECE, cut
    from stillspeak.training.checkpoint import latest_checkpoint

    checkpoint = latest_checkpoint(options.run)
    if checkpoint is None:
        raise TrainingError(f"{options.run}: holds no checkpoint to send")
    slim = slim_file(checkpoint, options.run) if options.slim_state else None
    files = {(slim or checkpoint).name: slim or checkpoint}
    for name in ("config.json", "metrics.jsonl", LEDGER):
        if (options.run / name).is_file():
            files[name] = options.run / name
    if options.parcel.is_dir():
        for old in options.parcel.iterdir():
            if PIECE.fullmatch(old.name):
                old.unlink()
    try:
        pieces = cut(
            files,
            options.parcel,
            kind="state",
            step=step_of(checkpoint),
            piece_bytes=int(options.part_mib * MIB),
        )
    finally:
        if slim is not None:
            slim.unlink()
    size = sum(path.stat().st_size for path in pieces) / MIB
    print(f"step {step_of(checkpoint)}: {len(pieces)} pieces, {size:.1f} MiB in {options.parcel}")
    return 0


def slim_file(checkpoint: Path, folder: Path) -> Path:
    """The slim form of a checkpoint, in a new file."""
    from slim import slim
    from stillspeak.training.checkpoint import load_checkpoint, save_checkpoint

    path = folder / f"slim-{step_of(checkpoint):09d}.safetensors"
    save_checkpoint(path, slim(load_checkpoint(checkpoint)))
    return path


def restore_slim(path: Path) -> None:
    """Make a whole checkpoint of a slim one, in its place."""
    from slim import restore
    from stillspeak.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint

    save_checkpoint(checkpoint_path(path.parent, step_of(path)), restore(load_checkpoint(path)))
    path.unlink()


if __name__ == "__main__":
    sys.exit(main())
