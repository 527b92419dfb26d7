"""What `animate` costs, stage by stage, for short and for long sound.

    python benchmarks/animate.py [--seconds 3 600] [--model NAME] [--output results.json]

`command` is the whole cold command line, from process start to exit, in a process of its own, so
that peak memory is its own; short sound is also timed stage by stage, in another process. The
portrait is skimage's astronaut (512 x 512 pixels), the sound the bundled sentence, repeated.

    python benchmarks/animate.py --faces 512 1024

times the generator and the drawing into the photo instead, frame by frame and without encoding,
for faces of so many lines in a photo of twice as many; in seconds of the clock and of CPU.
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
    # As the command does, before NumPy is loaded: a second thread would only spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, nargs="+", default=[3.0, 600.0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--faces", type=int, nargs="+", help="lines of face; see above")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--worker", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        print(json.dumps(stages(arguments.worker, arguments.model)))
        return

    if arguments.faces:
        faces(arguments.faces, arguments.model, arguments.output)
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


def faces(lines: list[int], model: str, output: Path | None) -> None:
    """Print a table of frames a second for faces of different sizes."""
    rows = []
    for height in lines:
        for degrees, head_motion in ((0, 0.0), (20, 0.0), (0, 1.0)):
            rows.append(face_row(height, degrees, head_motion, model))
            print(json.dumps(rows[-1]), flush=True)
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    keys = list(rows[0])
    print("| " + " | ".join(keys) + " |")
    print("| " + " | ".join("---:" for _ in keys) + " |")
    for row in rows:
        print("| " + " | ".join(f"{row[key]:.4g}" for key in keys) + " |")
    if output:
        output.write_text(json.dumps(rows, indent=1))


def face_row(lines: int, degrees: float, head_motion: float, model: str) -> dict[str, float]:
    """Milliseconds a frame of decoding and of drawing into the photo."""
    import cv2
    import numpy as np
    from skimage.data import astronaut

    from stillspeak.animate import Animator
    from stillspeak.face.align import face_transform

    with Animator(model, device="cpu") as animator:
        portrait = astronaut()
        (found,) = animator.detector.detect(portrait)
        own = face_transform(found.points, scale=lines / 128)
        scale = float(np.sqrt(np.linalg.det(own[:, :2])))
        # The face in the middle of a photo of twice its height, enlarged and turned.
        turn = cv2.getRotationMatrix2D(found.centre, -degrees, scale)
        turn[:, 2] += lines - np.array(found.centre)
        size = (2 * lines, 2 * lines)
        photo = cv2.warpAffine(portrait, turn, size, borderMode=cv2.BORDER_REFLECT)
        with tempfile.TemporaryDirectory() as folder:
            _, speech = inputs(Path(folder), 4.0)
            animation = animator.animate(
                photo, speech, size=photo.shape[0], head_motion=head_motion
            )
        for _ in zip(range(20), animation, strict=False):  # warm up
            pass
        took = {}
        for name, frames in (("decode", decoded_only(animation)), ("whole", iter(animation))):
            clock, cpu = time.perf_counter(), time.process_time()
            count = sum(1 for _ in frames)
            took[name] = (
                1000 * (time.perf_counter() - clock) / count,
                1000 * (time.process_time() - cpu) / count,
            )
    decode, whole = took["decode"], took["whole"]
    return {
        "face_lines": lines,
        "photo_lines": photo.shape[0],
        "degrees": degrees,
        "head_motion": head_motion,
        "decode_ms": decode[0],
        "decode_cpu_ms": decode[1],
        "draw_ms": whole[0] - decode[0],
        "draw_cpu_ms": whole[1] - decode[1],
        "frames_per_s": 1000 / whole[0],
        "frames_per_cpu_s": 1000 / whole[1],
    }


def stages(seconds: float, model: str) -> dict[str, float]:
    """Time each stage in this process."""
    clock = Clock()
    import torch

    from stillspeak.animate import Animator
    from stillspeak.media.video_writer import write_video

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

    class Skip:
        @staticmethod
        def render(decoded, poses=None, curves=None):  # type: ignore[no-untyped-def]
            yield from (decoded.frames if decoded.pose is None else decoded.pose)[0]

    bare = animation.synthesizer.restarted()
    bare.renderer = Skip()
    return bare.speak(animation.audio)


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
