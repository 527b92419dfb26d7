"""``stillspeak dub`` that is killed, or told to stop: the old file or the new one, and no more."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stillspeak.weights import save_model
from support.animate import speech, write_wav
from support.conceal import talker, talking, write_timed
from support.dub import samples
from support.kill import Killer, left_over

pytestmark = pytest.mark.e2e

COUNT = 30


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command line but for its output."""
    folder = tmp_path_factory.mktemp("dub")
    save_model(talker(), folder / "small.safetensors", {"made": "for tests"})
    video = write_timed(folder / "a.mp4", talking(COUNT), range(COUNT), speech(1.2), crf=12)
    sound = write_wav(folder / "speech.wav", speech(3.0, seed=4))
    model = str(folder / "small.safetensors")
    return ["dub", str(video), str(sound), "--model", model, "--overwrite", "-q"]


def same(first: Path, second: Path) -> bool:
    pairs = zip(samples(first), samples(second), strict=True)
    return all(np.array_equal(a, b) for one, two in pairs for a, b in zip(one, two, strict=True))


def test_it_is_the_old_file_or_the_new_one(kill: Killer, words: list[str], tmp_path: Path) -> None:
    whole = tmp_path / "whole" / "out.mp4"
    whole.parent.mkdir()
    begin = time.monotonic()
    undisturbed = kill.run("command", *words, "-o", whole, folder=whole.parent)
    seconds = time.monotonic() - begin
    assert undisturbed is not None
    folder = tmp_path / "killed"
    folder.mkdir()
    output = folder / "out.mp4"
    output.write_bytes(b"of value")
    plans = [{"die_at": n} for n in range(1, undisturbed.operations + 1, 4)]
    for plan in [*plans, {"after": 0.5 * seconds}, {"after": 0.8 * seconds}]:
        if kill.run("command", *words, "-o", output, folder=folder, **plan) is None:
            assert output.read_bytes() == b"of value" or same(output, whole)
        # Of a killed run one hidden folder at most is left, which the next one sweeps.
        assert sum(path.parent == folder for path in left_over(folder)) <= 1
    assert kill.run("command", *words, "-o", output, folder=folder) is not None
    assert same(output, whole)
    assert sorted(folder.iterdir()) == [output]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_when_it_is_told_to(words: list[str], tmp_path: Path, number: int) -> None:
    output = tmp_path / "out.mp4"
    command = [sys.executable, "-m", "stillspeak", *words, "-o", str(output)]
    path = os.pathsep.join(p for p in sys.path if p)
    long = write_wav(tmp_path / "long.wav", speech(300.0))
    command[command.index("dub") + 2] = str(long)

    def heed() -> None:
        """A suite that was started in a shell's background ignores interrupts."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, env=environment, preexec_fn=heed
    ) as process:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob(".stillspeak.*.partial/video.part")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) in (130, -number)
        said = process.stderr.read().decode() if process.stderr else ""
    assert "Traceback" not in said
    assert not output.exists()
    if number == signal.SIGINT:
        assert len(said.splitlines()) <= 1
        assert sorted(tmp_path.iterdir()) == [long]
