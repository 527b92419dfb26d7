"""``stillspeak stream``: a picture that talks while the sound is still coming in."""

from __future__ import annotations

import asyncio
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

from stillspeak.cli.common import (
    Device,
    MarkOptions,
    Model,
    Overwrite,
    Quiet,
    tell_unmarked,
    tell_warnings,
    usage,
)
from stillspeak.constants import VIDEO_FPS
from stillspeak.errors import InputError, OutputError
from stillspeak.options import AnimateOptions

if TYPE_CHECKING:
    from stillspeak.media.video_recorder import Recorder
    from stillspeak.realtime.session import RealtimeSession
    from stillspeak.realtime.sinks import PictureWriter

RATE = 48_000
"""Samples a second of the sound that goes out."""

READ_AHEAD = 1.0
"""Seconds of a file that are read ahead."""

FORMATS = ("mkv", "mjpeg", "rgb24")


def stream(
    photo: Annotated[str, typer.Argument(help="The picture.")],
    mic: Annotated[bool, "Take the sound of a microphone."] = False,
    mic_device: Annotated[str | None, "Its number, or a part of its name."] = None,
    sound: Annotated[
        str | None, "--input", "A sound file, in real time; - is raw 16-bit PCM on stdin."
    ] = None,
    rate: Annotated[int, Field(ge=1000, le=1_000_000), "Samples a second of the PCM."] = 16_000,
    channels: Annotated[int, Field(ge=1, le=32), "Channels of the PCM."] = 1,
    live: Annotated[bool, "The PCM comes from a microphone: keep the delay small."] = False,
    record: Annotated[Path | None, "Write an MP4."] = None,
    output: Annotated[str | None, "-o", "--output", "- writes to stdout, for a player."] = None,
    form: Annotated[
        str, "--format", "What -o - writes: mkv with sound, mjpeg or rgb24 without."
    ] = "mkv",
    seconds: Annotated[float | None, Field(ge=0.04), "Stop after this many seconds."] = None,
    model: Model = "default",
    device: Device = "auto",
    *,
    options: AnimateOptions,
    marks: MarkOptions,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Let a picture talk live: PHOTO --mic, or PHOTO --input FILE; Ctrl-C ends it.

    stillspeak stream photo.jpg --mic -o - | ffplay -
    """
    fps = options.fps or VIDEO_FPS
    misnamed, nowhere = output not in (None, "-"), record is None and output is None
    usage(
        {
            "give --mic, or --input FILE": mic == (sound is not None),
            "-o takes -, which is stdout; --record OUT.mp4 writes a file": misnamed,
            "give --record OUT.mp4 or -o -; stillspeak serve has a live page": nowhere,
            f"--format is one of {', '.join(FORMATS)}": form not in FORMATS,
            "--mic-device goes with --mic": mic_device is not None and not mic,
            "--fps takes a whole number here": not float(fps).is_integer(),
        }
    )
    if output is not None and sys.stdout is None:
        raise OutputError("standard output: is closed; use --record")
    if sound == "-" and sys.stdin is None:
        raise InputError("standard input: is closed; give a file")
    from stillspeak.realtime import sources
    from stillspeak.realtime.session import RealtimeSession
    from stillspeak.realtime.sinks import open_sinks
    from stillspeak.stream import StreamSession

    choices = marks.choices()
    shown = form if output is not None else None
    with open_sinks(record, shown, fps=int(fps), rate=RATE, overwrite=overwrite) as sinks:
        devices = sources.sound_devices() if mic else None
        face = StreamSession(photo, options, model=model, device=device)
        tell_warnings(face.warnings, photo, quiet)
        for sink in sinks:
            sink.marks = choices.applied(face.video_settings["marks"])

        if sound is None:
            chunks = sources.microphone_chunks(devices, mic_device)
        elif sound == "-":
            chunks = sources.stdin_chunks(rate, channels)
        else:
            chunks = sources.file_chunks(sound, RATE)

        async def work() -> dict[str, Any]:
            in_time = mic or live
            session = RealtimeSession(
                face, rate=RATE, live=in_time, max_buffer=None if in_time else READ_AHEAD
            )
            async with session, sources.feeding(session, chunks, wait=sound != "-"):
                return await _play(session, sinks, seconds)

        stats = asyncio.run(work())
    tell_unmarked(choices, quiet)
    if not quiet:
        where = f"{record}: " if record is not None else ""
        pictures, lost = stats["pictures"], stats["sound"]["dropped"] / RATE
        print(
            f"{where}{stats['frames'] / face.fps:.2f} s, {pictures['shown']} pictures, "
            f"{pictures['dropped']} left out, {lost:.2f} s of sound lost",
            file=sys.stderr,
        )


async def _play(
    session: RealtimeSession, sinks: list[Recorder | PictureWriter], seconds: float | None
) -> dict[str, Any]:
    """Bring frames to the sinks until the sound or the time ends, or Ctrl-C is pressed."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows; other threads
            loop.add_signal_handler(number, stopped.set)
    frames = 0
    with ThreadPoolExecutor(1) as thread, suppress(BrokenPipeError):  # the player was closed
        async for frame in session:
            if stopped.is_set():
                break
            for sink in sinks:
                await loop.run_in_executor(thread, sink.add, frame.picture, frame.sound)
            frames += 1
            if seconds is not None and frames >= seconds * session.fps:
                break
    return {**session.stats(), "frames": frames}
