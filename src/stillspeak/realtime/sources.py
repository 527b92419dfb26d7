"""Where live sound comes from: a file, standard input or a microphone.

Each is an async context manager that feeds a :class:`~stillspeak.realtime.session.RealtimeSession`
until it is left.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.errors import InputError, MissingDependencyError
from stillspeak.media.audio import read_track
from stillspeak.realtime.session import RealtimeSession

_READ_BYTES = 4096


@asynccontextmanager
async def file_source(session: RealtimeSession, path: str) -> AsyncIterator[None]:
    """A file's sound, read as it is played.

    Raises:
        AudioError: it cannot be read.
    """
    rate = session.buffer.rate
    pieces = read_track(path, sample_rate=rate)
    # Before anything is shown: most mistakes appear in the first piece.
    first = await asyncio.to_thread(next, pieces)

    async def read() -> None:
        piece: Any = first
        while piece is not None:
            for begin in range(0, len(piece[0]), rate // 4):
                if not await session.feed(piece[0][begin : begin + rate // 4], rate):
                    return
            piece = await asyncio.to_thread(next, pieces, None)

    async with _reading(session, read):
        yield


@asynccontextmanager
async def stdin_source(session: RealtimeSession, rate: int, channels: int) -> AsyncIterator[None]:
    """Raw PCM on standard input: little-endian 16-bit integers, channels interleaved.

    Raises:
        InputError: standard input is closed.
    """
    if sys.stdin is None:
        raise InputError("standard input: is closed; give a file")
    loop = asyncio.get_running_loop()
    file = sys.stdin.fileno()
    pieces: asyncio.Queue[bytes] = asyncio.Queue(1)
    left = threading.Event()

    def read() -> None:
        # A daemon thread, since nothing can end a read that waits for ever.
        while not left.is_set():
            try:
                piece = os.read(file, _READ_BYTES)
            except OSError:
                piece = b""
            try:
                asyncio.run_coroutine_threadsafe(pieces.put(piece), loop).result()
            except (RuntimeError, asyncio.CancelledError):
                return  # the loop has ended
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
            if session.buffer.live:
                session.push(samples, rate)
            elif not await session.feed(samples, rate):
                return

    threading.Thread(target=read, daemon=True).start()
    try:
        async with _reading(session, pass_on):
            yield
    finally:
        left.set()


@asynccontextmanager
async def _reading(
    session: RealtimeSession, read: Callable[[], Awaitable[None]]
) -> AsyncIterator[None]:
    """Runs a task that feeds the session; its errors end the session and are raised here."""

    async def whole() -> None:
        try:
            await read()
        finally:
            session.finish()

    task = asyncio.create_task(whole())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait([task])


def sound_devices() -> Any:
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
async def microphone_source(
    session: RealtimeSession, devices: Any, wanted: str | None
) -> AsyncIterator[None]:
    """A microphone's sound at its own rate.

    Args:
        session: hears it.
        devices: what :func:`sound_devices` returns.
        wanted: number or part of the name of the microphone; the system's default if None.

    Raises:
        InputError: there is none, or it cannot be opened.
    """
    loop = asyncio.get_running_loop()
    which: Any = int(wanted) if wanted is not None and wanted.isdecimal() else wanted

    def heard(samples: npt.NDArray[np.float32], *_: object) -> None:
        # Called in the sound system's own thread, with an array that it uses again.
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(session.push, samples.copy(), rate)

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
