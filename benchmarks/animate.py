"""What `animate` costs, stage by stage, for short and for long sound.

    python benchmarks/animate.py [--seconds 3 600] [--model NAME] [--output results.json]

`command` is the whole cold command line, from process start to exit, in a process of its own, so
that peak memory is its own; short sound is also timed stage by stage, in another process. The
portrait is skimage's astronaut (512 x 512 pixels), the sound the bundled sentence, repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES_UP_TO = 60
"""Seconds of sound up to which the stages are timed one by one, each over the whole clip."""


def main() -> None:
    """Run the workers and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, nargs="+", default=[3.0, 600.0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--worker", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        print(json.dumps(stages(arguments.worker, arguments.model)))
        return

    rows = []
    for seconds in arguments.seconds:
        row = {"sound_s": seconds}
        row["command_s"], row["command_peak_mb"] = cold_command(seconds, arguments.model)
        if seconds <= STAGES_UP_TO:
            command = [sys.executable, __file__, "--worker", str(seconds)]
            command += ["--model", arguments.model]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row |= json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| | " + " | ".join(f"{row['sound_s']:g} s of sound" for row in rows) + " |")
    print("| --- |" + " ---: |" * len(rows))
    for key in [key for key in rows[0] if key != "sound_s"]:
        cells = (f"{row[key]:.2f}" if key in row else "" for row in rows)
        print(f"| {key} | " + " | ".join(cells) + " |")
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1))


def stages(seconds: float, model: str) -> dict[str, float]:
    """Time each stage in this process."""
    clock = Clock()
    import torch

    from stillspeak.animate import Animator
    from stillspeak.media.video import write_video

    clock.lap("import_s")
    with tempfile.TemporaryDirectory() as folder:
        photo, speech = inputs(Path(folder), seconds)
        clock.lap(None)
        animator = Animator(model, device="cpu")
        clock.lap("model_load_s")
        detector = animator.detector
        clock.lap("detector_load_s")
        animation = animator.animate(photo, speech)
        clock.lap("read_and_detect_s")
        frames = sum(1 for _ in decoded_only(animation))
        clock.lap("generate_s")
        shown = 0
        for _ in animation:
            shown += 1
        clock.lap("generate_and_render_s")
        assert shown == len(animation) == frames
        write_video(Path(folder, "out.mp4"), animation, **animation.video_settings)
        clock.lap("generate_render_encode_s")
        detector.close()
    timings = clock.laps
    length = frames / animation.fps
    return {
        **timings,
        "generate_times_real_time": length / timings["generate_s"],
        "render_times_real_time": length / timings["generate_and_render_s"],
        "whole_times_real_time": length / timings["generate_render_encode_s"],
        "peak_mb": peak_mb(),
        "threads": torch.get_num_threads(),
    }


def decoded_only(animation):  # type: ignore[no-untyped-def]
    """The generator without drawing into the photo."""
    from dataclasses import replace

    class Skip:
        context = animation.renderer.context

        @staticmethod
        def render(decoded):  # type: ignore[no-untyped-def]
            yield from decoded.frames[0]

    return iter(replace(animation, renderer=Skip()))


def inputs(folder: Path, seconds: float) -> tuple[Path, Path]:
    """The portrait and the sentence, repeated to the length asked for, as files."""
    import wave
    from importlib.resources import files

    import numpy as np
    from PIL import Image
    from skimage.data import astronaut

    from stillspeak.media.audio import load_audio

    Image.fromarray(astronaut()).save(folder / "photo.png")
    sentence = load_audio(Path(str(files("stillspeak"))) / "resources" / "speech.flac")
    samples = np.resize(sentence, round(seconds * 16_000))
    with wave.open(str(folder / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return folder / "photo.png", folder / "speech.wav"


def cold_command(seconds: float, model: str) -> tuple[float, float]:
    """Wall-clock seconds and peak memory of the command line in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        photo, speech = inputs(Path(folder), seconds)
        command = [sys.executable, "-m", "stillspeak", "animate", str(photo), str(speech)]
        command += ["-o", str(Path(folder, "out.mp4")), "--model", model, "--quiet"]
        start = time.perf_counter()
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"the command failed with exit code {process.returncode}")
        return took, usage.ru_maxrss / 1024


def peak_mb() -> float:
    """Peak resident memory of this process in MB (Linux counts in kB)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Clock:
    """Wall-clock time between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._mark = time.perf_counter()

    def lap(self, name: str | None) -> None:
        """Note the time since the last lap under a name, or drop it."""
        now = time.perf_counter()
        if name:
            self.laps[name] = now - self._mark
        self._mark = time.perf_counter()


if __name__ == "__main__":
    main()
