"""What `dub` costs: frames a second with all that belongs to it, memory, and each stage by itself.

    python benchmarks/dub.py [--video FILE] [--lines 720] [--seconds 10 60] [--model NAME]

The video is scaled to so many lines and shown back and forth for so many seconds; by default it is
skimage's astronaut (the bundled sentence on its lips), whose head drifts in a picture of 16:9.
`command` is the whole cold command line in a process of its own, with its peak memory. Stages are
timed one by one over a few seconds, in the clock's and in the processor's milliseconds a frame.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

STAGE_SECONDS = 3.0


def main() -> None:
    """Make the videos, run the command on each and print a table."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--video", type=Path)
    parser.add_argument("--lines", type=int, default=720)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0, 60.0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seconds in arguments.seconds:
            video = Path(folder) / f"{seconds:g}.mp4"
            made = make_video(video, arguments.video, arguments.lines, seconds)
            sound = make_sound(Path(folder) / "speech.wav", seconds)
            row = made | command(video, sound, Path(folder) / "out.mp4", arguments.model)
            rows.append(row)
            print(json.dumps(row), flush=True)
        costs = stages(video, sound, Path(folder) / "stages.mp4", arguments.model)
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| | " + " | ".join(f"{row['seconds']:g} s" for row in rows) + " |")
    print("| --- |" + " ---: |" * len(rows))
    for key in rows[0]:
        print(f"| {key} | " + " | ".join(str(row[key]) for row in rows) + " |")
    print("\n| stage | clock, ms a frame | processor, ms a frame |\n| --- | ---: | ---: |")
    for stage, (clock, processor) in costs.items():
        print(f"| {stage} | {clock:.1f} | {processor:.1f} |")
    if arguments.output:
        arguments.output.write_text(json.dumps({"runs": rows, "stages": costs}, indent=1))


def make_video(path: Path, source: Path | None, lines: int, seconds: float) -> dict[str, Any]:
    """A video at so many lines and 25 frames a second, and what is said of it."""
    import cv2

    from stillspeak.media.video_writer import write_video

    def frames() -> Iterator[Any]:
        for picture in itertools.islice(_pictures(source), round(25 * seconds)):
            width = round(picture.shape[1] * lines / picture.shape[0] / 2) * 2
            yield cv2.resize(picture, (width, lines), interpolation=cv2.INTER_AREA)

    count = write_video(path, frames(), crf=20, overwrite=True)
    first = next(frames())
    return {"seconds": seconds, "frames": count, "size": f"{first.shape[1]}x{first.shape[0]}"}


def _pictures(source: Path | None) -> Iterator[Any]:
    """Frames of a video back and forth, or of the astronaut, without an end."""
    if source is not None:
        from stillspeak.dub.frames import fitted
        from stillspeak.media.video_editor import scan_video

        yield from (one.rgb() for one in fitted(source, scan_video(source), 1e6, "loop"))
        return
    import numpy as np
    from skimage.data import astronaut

    import stillspeak
    from stillspeak.animate import Animator

    speech = Path(stillspeak.__file__).parent / "resources" / "speech.flac"
    with Animator() as animator:
        spoken = list(animator.animate(astronaut(), speech, size=512).frames())
    for picture in itertools.chain.from_iterable(itertools.repeat([*spoken, *spoken[::-1]])):
        wide = np.pad(picture, ((0, 0), (199, 199), (0, 0)), mode="reflect")
        yield wide


def make_sound(path: Path, seconds: float) -> Path:
    """The bundled sentence over and over."""
    import wave

    import numpy as np

    import stillspeak
    from stillspeak.constants import SAMPLE_RATE

    speech = Path(stillspeak.__file__).parent / "resources" / "speech.flac"
    said = np.resize(stillspeak.load_audio(speech), round(seconds * SAMPLE_RATE))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((said * 32767).astype("<i2").tobytes())
    return path


def command(video: Path, sound: Path, output: Path, model: str) -> dict[str, Any]:
    """The whole command in a process of its own."""
    code = (
        "import json, resource, sys, time\n"
        "from stillspeak.cli.app import main\n"
        "sys.argv = ['stillspeak', *json.loads(sys.argv[1])]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))\n"
    )
    words = ["dub", str(video), str(sound), "-o", str(output), "--overwrite", "--json", "-q"]
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([*words, "--model", model])],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    clock = time.perf_counter() - begin
    result, (processor, peak) = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    frames = result["frames"]
    return {
        "drawn": result["generated"],
        "command, s": round(clock, 2),
        "frames a second, all in": round(frames / clock, 1),
        "processor, ms a frame, all in": round(1000 * processor / frames, 1),
        "peak memory, MiB": round(peak),
    }


def stages(video: Path, sound: Path, output: Path, model: str) -> dict[str, tuple[float, float]]:
    """Milliseconds a frame of each stage by itself, by the clock and by the processor."""
    from stillspeak.dub.dubber import Dubber, DubFrame
    from stillspeak.dub.frames import sampled_bursts
    from stillspeak.dub.heard import model_place
    from stillspeak.dub.sound import heard_by_model, speech_track
    from stillspeak.dub.video import PRESET
    from stillspeak.media.video_editor import Rewriter, scan_video, timed_frames

    scan, track = scan_video(video), speech_track(sound)
    count = min(round(STAGE_SECONDS * 25), scan.frames)
    costs: dict[str, tuple[float, float]] = {}

    def timed(stage: str, work: Callable[[], Any], times: int = count) -> Any:
        clock, processor = time.perf_counter(), time.process_time()
        result = work()
        spent = time.perf_counter() - clock, time.process_time() - processor
        costs[stage] = tuple(1000 * one / times for one in spent)  # type: ignore[assignment]
        return result

    def first(items: Iterable[Any]) -> list[Any]:
        return list(itertools.islice(items, count))

    with Dubber(model) as dubber:
        looks = timed(
            "looking for the speaker, a frame sampled",
            lambda: dubber.appearance(sampled_bursts(video, scan)),
            min(scan.frames, 192),
        )
        decoded = timed("decoding", lambda: first(timed_frames(video)))
        pictures = timed("to RGB", lambda: [frame.rgb() for frame in decoded])
        given = [
            DubFrame(picture, model_place(frame.time - scan.start, 25, dubber.generator), frame)
            for frame, picture in zip(decoded, pictures, strict=True)
        ]
        heard = heard_by_model(track, dubber.generator.config.sample_rate)
        with closing(heard):  # type: ignore[type-var]
            drawn = timed(
                "tracking, hearing, drawing", lambda: first(dubber.draw(given, heard, looks))
            )

        def written() -> None:
            with Rewriter(video, output, scan, preset=PRESET, sound=track) as writer:
                writer.start(decoded[0])
                for frame, picture, box in drawn:
                    if picture is None:
                        writer.keep(frame.token)
                    else:
                        writer.change(frame.token, frame.picture, picture, box)

        timed("changing and encoding", written)
    return costs


if __name__ == "__main__":
    main()
