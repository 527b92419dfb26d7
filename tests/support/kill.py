"""Commands that are killed with signal 9 and begun again, without starting an interpreter each.

Run as a program, this is a small server: it imports what the commands need once, forks a process
group for each order and says how it ended. It runs no threads of its own, so that forking is safe.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "fcntl.flock"}
"""What Python tells its audit hooks of files being touched, just before it happens."""

WARM = (
    "stillspeak.cli.app",
    "stillspeak.training.run",
    "stillspeak.data.corpora",
    "lightning_fabric",
    "torch.utils.tensorboard",
    "av",
    "cv2",
)


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def server() -> None:
    """Fork one child an order, and say of each how it ended."""
    for name in WARM:
        importlib.import_module(name)
    say("ready")
    running = 0
    text = b""
    while True:
        if select.select([0], [], [], 0.005 if running else None)[0]:
            data = os.read(0, 65536)
            if not data:
                return
            text += data
        while b"\n" in text:
            line, _, text = text.partition(b"\n")
            pid = os.fork()
            if not pid:
                child(json.loads(line))
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)
            say(f"{pid} began")
            running += 1
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            say(f"{pid} {os.waitstatus_to_exitcode(status)}")
            running -= 1


def child(order: dict[str, Any]) -> None:
    """Do what is ordered, dying at the file operation that is asked for."""
    code = 1
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in EVENTS:
            return
        if event != "fcntl.flock" and not str(arguments[0]).startswith(order["folder"]):
            return
        seen += 1
        if seen == order["die_at"]:
            os.killpg(0, signal.SIGKILL)

    try:
        import torch

        torch.set_num_threads(1)
        sys.addaudithook(hook)
        globals()[order["call"]](*order["arguments"])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
            os.write(log, f"\n{seen} file operations\n".encode())
        os._exit(code)


def command(*arguments: str) -> None:
    """The command line."""
    from stillspeak.cli.app import main

    sys.argv = ["stillspeak", *arguments]
    main()


def prepare_quickly(corpus: str, cache: str) -> None:
    """``stillspeak prepare`` in one process, with a detector that sees the same face always."""
    from stillspeak.data import prepare as module
    from stillspeak.data.corpora import find_grid

    module._MANIFEST_EVERY = 2
    module.prepare(find_grid(Path(corpus)), cache, detector_factory=Steady, workers=0)


def with_memory(mebibytes: str, *arguments: str) -> None:
    """The command line, which may take so much more address space than is taken already."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(mebibytes) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    command(*arguments)


def with_files(count: str, *arguments: str) -> None:
    """The command line, which may open so many more files than are open already."""
    import resource

    limit = len(list(Path("/proc/self/fd").iterdir())) - 1 + int(count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    command(*arguments)


def prepare_again(corpus: str, cache: str, times: str) -> None:
    """The whole cache made anew so often, by detectors that differ in their name alone."""
    for number in range(int(times)):
        Steady.version = f"steady {number}"
        prepare_quickly(corpus, cache)


def write_a_video(path: str, frames: str) -> None:
    """A small video over whatever is there, marked as generated ones are."""
    import numpy as np

    from stillspeak.media.marks.marking import Marks
    from stillspeak.media.video_writer import write_video

    pictures = [np.full((64, 64, 3), 9 * n, np.uint8) for n in range(int(frames))]
    write_video(path, pictures, overwrite=True, marks=Marks(watermark=False))


def sign_once(folder: str, target: str) -> None:
    """The certificate with which an installation whose settings lie there would sign."""
    os.environ["STILLSPEAK_CONFIG"] = folder
    from stillspeak.media.marks.signing import find_signer

    Path(target).write_text(find_signer().chain)


def save_often(source: str, target: str, times: str) -> None:
    """The weights of one file written to another so often, by two threads."""
    from concurrent.futures import ThreadPoolExecutor

    from stillspeak.weights import load_model, save_model

    model = load_model(Path(source))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda n: save_model(model, Path(target), {"n": n}), range(int(times))))


def load_often(target: str, times: str) -> None:
    """A weights file loaded, and its golden answer asked for, so often."""
    from stillspeak.weights import load_model, read_info

    for _ in range(int(times)):
        load_model(Path(target))
        read_info(Path(target))


def keep_often(folder: str, own: str, times: str) -> None:
    """What belongs to a real clip kept and read so often, under keys that two systems share."""
    import numpy as np

    from stillspeak.evaluation.real_cache import RealCache

    for number in range(int(times)):
        version = str(number % 2)
        side = RealCache(Path(folder), "a/one", "clip", {"embedding": version, "sync": version})
        expected = np.full((200, 32), float(version))
        side.keep_embeddings(expected)
        side.keep_value("sync", [version] * 500)
        found, value = side.embeddings(), side.value("sync")
        # Of another version it is not there; what is there is whole.
        assert found is None or np.array_equal(found, expected)
        assert value is None or value == [version] * 500
    Path(own).touch()


class Steady:
    """Finds one made face in every picture."""

    version = "steady"

    def detect(self, image: Any) -> list[Any]:
        import numpy as np

        from stillspeak.face.landmarks import Face

        points = np.random.default_rng(0).uniform(10, 70, (478, 2))
        points[[2, 33, 133, 362, 263]] = [(40, 65), (20, 40), (32, 40), (48, 40), (60, 40)]
        return [Face(points.astype(np.float32), {"jawOpen": 0.5}, yaw=0.0, pitch=0.0, roll=0.0)]

    def close(self) -> None:
        pass


class Run:
    """A command that was begun."""

    def __init__(self, killer: Killer, group: int, log: Path) -> None:
        self._killer, self._group, self.log = killer, group, log

    def finish(self, after: float | None = None) -> int:
        """Its exit code; after so many seconds it is killed."""
        code = self._killer.code(self._group, after)
        if code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)
            code = self._killer.code(self._group, None)
        assert code is not None
        return code

    @property
    def said(self) -> list[str]:
        """Lines of its output."""
        return [line for line in self.log.read_text().splitlines()[:-1] if line]

    @property
    def operations(self) -> int:
        """How often it touched a file, if it ran to its end."""
        return int(self.log.read_text().splitlines()[-1].split()[0])


class Killer:
    """Gives orders to a server and kills what it forks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kills = 0
        self._orders = 0
        self._buffer = b""
        self._codes: dict[int, int] = {}
        source = str(Path(__file__).parents[2] / "src")
        path = os.pathsep.join([source, *(p for p in sys.path if p)])
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        assert self._line(None) == "ready"

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)

    def _line(self, until: float | None) -> str | None:
        assert self.process.stdout is not None
        handle = self.process.stdout.fileno()
        while b"\n" not in self._buffer:
            left = None if until is None else max(until - time.monotonic(), 0.0)
            if not select.select([handle], [], [], left)[0]:
                return None
            data = os.read(handle, 4096)
            assert data, "the server of the kills ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def code(self, group: int, after: float | None) -> int | None:
        """How a process ended; None if it has not within so many seconds."""
        until = None if after is None else time.monotonic() + after
        while group not in self._codes:
            line = self._line(until)
            if line is None:
                return None
            ended, code = line.split()
            self._codes[int(ended)] = int(code)
        return self._codes.pop(group)

    def start(self, call: str, *arguments: object, folder: Path, die_at: int | None = None) -> Run:
        """Begin a command; at the ``die_at``-th file operation in ``folder`` it is killed."""
        self._orders += 1
        log = self.folder / f"log-{self._orders}"
        order = {
            "call": call,
            "arguments": [str(argument) for argument in arguments],
            "folder": str(folder),
            "die_at": die_at,
            "log": str(log),
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()
        while True:
            line = self._line(None) or ""
            group, what = line.split()
            if what == "began":
                return Run(self, int(group), log)
            self._codes[int(group)] = int(what)

    def run(
        self,
        call: str,
        *arguments: object,
        folder: Path,
        die_at: int | None = None,
        after: float | None = None,
    ) -> Run | None:
        """Run to the end, or until it is killed (None): at a file operation or a time."""
        run = self.start(call, *arguments, folder=folder, die_at=die_at)
        code = run.finish(after)
        if code == -signal.SIGKILL:
            self.kills += 1
            return None
        assert code == 0, run.log.read_text()
        return run


@contextlib.contextmanager
def killer(folder: Path) -> Iterator[Killer]:
    one = Killer(folder)
    try:
        yield one
    finally:
        one.close()


def left_over(folder: Path) -> Sequence[Path]:
    """What looks as if somebody had not finished it."""
    return [
        path
        for path in folder.rglob("*")
        if "partial" in path.name or ".part" in path.name or path.name.startswith(".tmp")
    ]


if __name__ == "__main__":
    server()
