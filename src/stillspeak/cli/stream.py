"""``stillspeak stream``: a picture that talks while the sound is still coming in."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from stillspeak.cli.common import (
    Certificate,
    Device,
    Key,
    LabelText,
    Model,
    NoMark,
    Overwrite,
    Quiet,
    WithLabel,
    mark_choices,
    say_unmarked,
    say_warnings,
    with_options,
)
from stillspeak.errors import InputError, MissingDependencyError, OutputError
from stillspeak.options import AnimateOptions

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from stillspeak.media.marks.marking import Marking
    from stillspeak.media.marks.provenance import Marks
    from stillspeak.media.video_recorder import Recorder
    from stillspeak.realtime.session import Beat, LiveTalk

RATE = 48_000
"""Samples a second of the sound that goes out."""

HOLD = 1.0
"""Seconds of a file that are read ahead."""

STDIN_BYTES = 4096
FORMATS = ("mkv", "mjpeg", "rgb24")


@with_options
def stream(
    photo: Annotated[str, typer.Argument(help="The picture.")],
    mic: Annotated[bool, typer.Option("--mic", help="Take the sound of a microphone.")] = False,
    mic_device: Annotated[
        str | None, typer.Option(help="Which one: its number or a part of its name.")
    ] = None,
    sound: Annotated[
        str | None,
        typer.Option("--input", help="A sound file, in real time; - is raw 16-bit PCM on stdin."),
    ] = None,
    rate: Annotated[
        int, typer.Option(min=1000, max=1_000_000, help="Samples a second of the PCM.")
    ] = 16_000,
    channels: Annotated[int, typer.Option(min=1, max=32, help="Channels of the PCM.")] = 1,
    live: Annotated[
        bool, typer.Option("--live", help="The PCM comes from a microphone: keep the delay small.")
    ] = False,
    record: Annotated[Path | None, typer.Option(help="Write an MP4.")] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="- writes to stdout, for a player.")
    ] = None,
    form: Annotated[
        str,
        typer.Option("--format", help="What -o - writes: mkv with sound, mjpeg or rgb24 without."),
    ] = "mkv",
    seconds: Annotated[float | None, typer.Option(min=0.04, help="Stop after so long.")] = None,
    model: Model = "default",
    device: Device = "auto",
    *,
    options: AnimateOptions,
    no_mark: NoMark = False,
    label: WithLabel = False,
    label_text: LabelText = None,
    certificate: Certificate = None,
    key: Key = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Let a picture talk live: PHOTO --mic, or PHOTO --input FILE; Ctrl-C ends it.

    stillspeak stream photo.jpg --mic -o - | ffplay -
    """
    if mic == (sound is not None):
        raise typer.BadParameter("give --mic, or --input FILE")
    if output not in (None, "-"):
        raise typer.BadParameter("-o takes -, which is stdout; --record OUT.mp4 writes a file")
    if record is None and output is None:
        raise typer.BadParameter("give --record OUT.mp4 or -o -; stillspeak serve has a live page")
    if form not in FORMATS:
        raise typer.BadParameter(f"--format is one of {', '.join(FORMATS)}")
    if mic_device is not None and not mic:
        raise typer.BadParameter("--mic-device goes with --mic")
    if output is not None and sys.stdout is None:
        raise OutputError("standard output: is closed; use --record")
    from stillspeak.realtime.session import LiveTalk
    from stillspeak.stream import StreamSession

    choices = mark_choices(no_mark, label, label_text, certificate, key)
    with _outputs(record, output, form, overwrite) as outputs:
        if mic:
            devices = _sound_devices()
        session = StreamSession(photo, options, model=model, device=device)
        say_warnings(session.warnings, photo, quiet)
        outputs.mark(choices.applied(session.video_settings["marks"]))
        patient = not mic and not live

        async def work() -> dict[str, Any]:
            talk = LiveTalk(session, rate=RATE, live=not patient, hold=HOLD if patient else None)
            if mic:
                source = _microphone(talk, devices, mic_device)
            elif sound == "-":
                source = _stdin(talk, rate, channels)
            else:
                assert sound is not None
                source = _file(talk, sound)
            return await _run(talk, source, outputs.writers, seconds)

        stats = asyncio.run(work())
    say_unmarked(choices, quiet)
    if not quiet:
        shown, dropped = stats["pictures"]["shown"], stats["pictures"]["dropped"]
        where = f"{record}: " if record is not None else ""
        lost = stats["sound"]["dropped"] / RATE
        print(
            f"{where}{stats['beats'] / session.fps:.2f} s, {shown} pictures, {dropped} left out, "
            f"{lost:.2f} s of sound lost",
            file=sys.stderr,
        )


@dataclass
class _Outputs:
    """Everything that takes beats."""

    writers: list[Callable[[Beat], None]] = field(default_factory=list)
    films: list[Recorder] = field(default_factory=list)
    marking: Marking | None = None
    """Of what is written as bare pictures."""

    def mark(self, marks: Marks) -> None:
        """Before the first beat: what is left in all of them."""
        from stillspeak.media.marks.marking import Marking

        for film in self.films:
            film.marks = marks
        self.marking = Marking(marks, "")


@contextmanager
def _outputs(
    record: Path | None, output: str | None, form: str, overwrite: bool
) -> Iterator[_Outputs]:
    """Everything that takes beats; files are whole when it is left, however that comes."""
    from contextlib import ExitStack

    from stillspeak.animation import COMMENT
    from stillspeak.constants import VIDEO_FPS
    from stillspeak.media.video_recorder import Recorder

    comment = {"comment": COMMENT}
    with ExitStack() as stack:
        outputs = _Outputs()
        if record is not None:
            film = stack.enter_context(
                Recorder(record, fps=VIDEO_FPS, rate=RATE, overwrite=overwrite, metadata=comment)
            )
            outputs.films.append(film)
            outputs.writers.append(lambda beat: film.add(beat.picture, beat.sound))
        if output is not None:
            out = stack.enter_context(_stdout())
            if form == "mkv":
                # A reader that has gone away is no failure; what is recorded goes on.
                shown = Recorder(out, fps=VIDEO_FPS, rate=RATE, metadata=comment)
                stack.callback(_closed, shown.close)
                outputs.films.append(shown)
                outputs.writers.append(lambda beat: shown.add(beat.picture, beat.sound))
            else:
                outputs.writers.append(_pictures(out, form, outputs))
        yield outputs


def _closed(close: Callable[[], None]) -> None:
    with suppress(BrokenPipeError):
        close()


@contextmanager
def _stdout() -> Iterator[BinaryIO]:
    """Standard output of its own, so that nothing else comes between."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0) as file:
        yield file


def _pictures(out: BinaryIO, form: str, outputs: _Outputs) -> Callable[[Beat], None]:
    """Writes pictures one after another, the last one again where one is missing."""
    last = b""

    def write(beat: Beat) -> None:
        nonlocal last
        if beat.picture is not None:
            assert outputs.marking is not None
            picture = outputs.marking.frame(beat.picture)
            if form == "rgb24":
                last = picture.tobytes()
            else:
                import io

                import PIL.Image

                file = io.BytesIO()
                PIL.Image.fromarray(picture).save(file, "JPEG", quality=90)
                last = file.getvalue()
        rest = memoryview(last)
        while rest:
            rest = rest[out.write(rest) :]

    return write


async def _run(
    talk: LiveTalk, source: Any, outputs: list[Callable[[Beat], None]], seconds: float | None
) -> dict[str, Any]:
    """Bring beats to the outputs until the sound, the time or the user's patience ends."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows; other threads
            loop.add_signal_handler(number, stopped.set)
    beats = 0
    with ThreadPoolExecutor(1) as thread:
        async with talk, source:
            async for beat in talk:
                if stopped.is_set():
                    break
                try:
                    for write in outputs:
                        await loop.run_in_executor(thread, write, beat)
                except BrokenPipeError:
                    break  # the player was closed
                beats += 1
                if seconds is not None and beats >= seconds * talk.fps:
                    break
            stats = talk.stats()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.remove_signal_handler(number)
    return {**stats, "beats": beats}


@asynccontextmanager
async def _file(talk: LiveTalk, path: str) -> AsyncIterator[None]:
    """A file's sound, read as it is played.

    Raises:
        AudioError: it cannot be read.
    """
    from stillspeak.media.audio import read_track

    pieces = read_track(path, sample_rate=RATE)
    # Before anything is shown: most mistakes show in the first piece.
    first = await asyncio.to_thread(next, pieces)

    async def read() -> None:
        piece: Any = first
        while piece is not None:
            for begin in range(0, len(piece[0]), RATE // 4):
                if not await talk.feed(piece[0][begin : begin + RATE // 4], RATE):
                    return
            piece = await asyncio.to_thread(next, pieces, None)

    async with _reading(talk, read):
        yield


@asynccontextmanager
async def _stdin(talk: LiveTalk, rate: int, channels: int) -> AsyncIterator[None]:
    """Raw PCM on standard input: little-endian 16-bit integers, channels side by side."""
    import numpy as np

    if sys.stdin is None:
        raise InputError("standard input: is closed; give a file")
    loop = asyncio.get_running_loop()
    file = sys.stdin.fileno()
    pieces: asyncio.Queue[bytes] = asyncio.Queue(1)
    gone = threading.Event()

    def read() -> None:
        # A thread that nobody waits for: it may be inside a read that never ends.
        while not gone.is_set():
            try:
                piece = os.read(file, STDIN_BYTES)
            except OSError:
                piece = b""
            try:
                asyncio.run_coroutine_threadsafe(pieces.put(piece), loop).result()
            except (RuntimeError, asyncio.CancelledError):
                return  # all is over
            if not piece:
                return

    async def pass_on() -> None:
        width = 2 * channels
        rest = b""
        while piece := await pieces.get():
            rest += piece
            whole = len(rest) // width * width
            samples = np.frombuffer(rest[:whole], "<i2").reshape(-1, channels)
            rest = rest[whole:]
            if talk.queue.live:
                talk.push(samples, rate)
            elif not await talk.feed(samples, rate):
                return

    threading.Thread(target=read, daemon=True).start()
    try:
        async with _reading(talk, pass_on):
            yield
    finally:
        gone.set()


@asynccontextmanager
async def _reading(talk: LiveTalk, read: Callable[[], Any]) -> AsyncIterator[None]:
    """Runs a task that feeds the talk; what it raises ends the talk and is raised here."""

    async def whole() -> None:
        try:
            await read()
        finally:
            talk.finish()

    task = asyncio.create_task(whole())
    try:
        yield
        if task.done():
            task.result()
    finally:
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _sound_devices() -> Any:
    """The module that talks to sound devices.

    Raises:
        MissingDependencyError: it, or the library that it needs, is not installed.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise MissingDependencyError(
            "--mic needs sounddevice: pip install 'stillspeak[mic]'"
        ) from error
    except OSError as error:
        raise MissingDependencyError(
            "--mic needs the PortAudio library; on Debian and Ubuntu: "
            "sudo apt-get install libportaudio2"
        ) from error
    return sounddevice


@asynccontextmanager
async def _microphone(talk: LiveTalk, devices: Any, wanted: str | None) -> AsyncIterator[None]:
    """A microphone's sound at its own rate.

    Raises:
        InputError: there is none, or it cannot be opened.
    """
    loop = asyncio.get_running_loop()
    which: Any = int(wanted) if wanted is not None and wanted.isdecimal() else wanted

    def heard(samples: npt.NDArray[np.float32], *_: object) -> None:
        # Called in the sound system's own thread, with an array that it uses again.
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(talk.push, samples.copy(), rate)

    try:
        rate = int(devices.query_devices(which, "input")["default_samplerate"])
        microphone = devices.InputStream(
            samplerate=rate,
            device=which,
            channels=1,
            dtype="float32",
            blocksize=rate // 50,
            callback=heard,
        )
    except (ValueError, devices.PortAudioError) as error:
        raise InputError(
            f"no microphone can be opened ({' '.join(str(error).split())}); plug one in, choose "
            "one with --mic-device, or use --input"
        ) from error
    with microphone:
        yield
