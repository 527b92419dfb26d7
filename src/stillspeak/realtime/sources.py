"""Where live sound comes from: a file, standard input or a microphone.

Each is a generator of samples, as :meth:`RealtimeSession.push` takes them, and their rate.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.errors import InputError, MissingDependencyError
from stillspeak.media.audio import read_track
from stillspeak.realtime.session import RealtimeSession

Chunks = AsyncGenerator[tuple[npt.NDArray[Any], int], None]

_READ_BYTES = 4096


@asynccontextmanager
async def feeding(
    session: RealtimeSession, chunks: Chunks, *, wait: bool = True
) -> AsyncIterator[None]:
    """Feed a session until this is left or the source ends; its errors are raised here.

    For a session that is not live, no more is read than it has room for. ``wait`` is for the first
    chunk: most mistakes appear in it, before anything is shown.
    """
    first = [await anext(chunks)] if wait else []

    async def hear(samples: npt.NDArray[Any], rate: int) -> bool:
        if not session.buffer.live:
            return await session.feed(samples, rate)
        session.push(samples, rate)
        return True

    async def feed() -> None:
        try:
            async with aclosing(chunks):
                for chunk in first:
                    await hear(*chunk)
                async for chunk in chunks:
                    if not await hear(*chunk):
                        return
        finally:
            session.finish()

    task = asyncio.create_task(feed())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def file_chunks(path: str, rate: int) -> Chunks:
    """A file's sound at ``rate`` samples a second, a quarter of a second at a time."""
    pieces = read_track(path, sample_rate=rate)
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        sound, _ = piece
        for begin in range(0, len(sound), rate // 4):
            yield sound[begin : begin + rate // 4], rate


async def stdin_chunks(rate: int, channels: int) -> Chunks:
    """Raw PCM on standard input: little-endian 16-bit integers, channels interleaved."""
    loop = asyncio.get_running_loop()
    file = sys.stdin.fileno()
    pieces: asyncio.Queue[bytes] = asyncio.Queue(1)
    left = threading.Event()

    def read() -> None:
        # In a daemon thread, since nothing can end a read that waits for ever.
        while not left.is_set():
            piece = b""
            with suppress(OSError):
                piece = os.read(file, _READ_BYTES)
            try:
                asyncio.run_coroutine_threadsafe(pieces.put(piece), loop).result()
            except (RuntimeError, asyncio.CancelledError):
                return  # the loop has ended
            if not piece:
                return

    threading.Thread(target=read, daemon=True).start()
    width = 2 * channels
    rest = b""
    try:
        while piece := await pieces.get():
            rest += piece
            whole = len(rest) // width * width
            yield np.frombuffer(rest[:whole], "<i2").reshape(-1, channels), rate
            rest = rest[whole:]
    finally:
        left.set()


def sound_devices() -> Any:
    """The module that talks to sound devices."""
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


async def microphone_chunks(devices: Any, wanted: str | None) -> Chunks:
    """A microphone's sound at its own rate.

    ``wanted`` is its number or part of its name; None is the system's default.
    """
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[npt.NDArray[np.float32]] = asyncio.Queue()
    which: Any = int(wanted) if wanted is not None and wanted.isdecimal() else wanted

    def hear(samples: npt.NDArray[np.float32], *_: object) -> None:
        # Called in the sound system's own thread, with an array that it uses again.
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(heard.put_nowait, samples.copy())

    try:
        rate = int(devices.query_devices(which, "input")["default_samplerate"])
        form = {"channels": 1, "dtype": "float32", "blocksize": rate // 50}
        microphone = devices.InputStream(samplerate=rate, device=which, callback=hear, **form)
    except (ValueError, devices.PortAudioError) as error:
        raise InputError(
            f"no microphone can be opened ({' '.join(str(error).split())}); plug one in, choose "
            "one with --mic-device, or use --input"
        ) from error
    with microphone:
        while True:
            yield await heard.get(), rate
