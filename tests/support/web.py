"""The web application with a small model, in the process of the tests."""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

import httpx
import PIL.Image
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from stillspeak.web.app import create_app
from stillspeak.web.settings import ServeSettings
from support.animate import portrait, save_lively, shared_detector, speech, write_wav

URL = "http://127.0.0.1"


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lively(tmp_path_factory.mktemp("weights") / "lively.safetensors")


@pytest.fixture(scope="session")
def picture_bytes() -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(portrait()).save(file, "JPEG", quality=92)
    return file.getvalue()


@pytest.fixture(scope="session")
def sound_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_wav(tmp_path_factory.mktemp("sound") / "speech.wav", speech(1)).read_bytes()


@pytest.fixture
def make_app(tmp_path: Path, weights_file: Path) -> Callable[..., FastAPI]:
    """Makes the application with a small model, keeping its files below ``tmp_path``."""

    def make(**changes: Any) -> FastAPI:
        folder = tmp_path / "kept"
        folder.mkdir(exist_ok=True)
        values: dict[str, Any] = {
            "models": (str(weights_file),),
            "folder": folder,
            "preload": False,
            "device": "cpu",
            "live_sessions": 0,
        }
        return create_app(ServeSettings(**(values | changes)), detector=shared_detector())

    return make


@pytest.fixture
def client(make_app: Callable[..., FastAPI]) -> Iterator[TestClient]:
    with TestClient(make_app(), base_url=URL, raise_server_exceptions=False) as client:
        yield client


def kept(app: Any) -> list[str]:
    """Files below the server's folder."""
    folder = app.state.studio.storage.folder
    assert folder is not None
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def finished(client: Any, job: str, seconds: float = 60) -> dict[str, Any]:
    """Polls a job until it is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = client.get(f"/api/jobs/{job}").json()
        if answer["state"] not in ("waiting", "running"):
            return answer
        time.sleep(0.02)
    raise AssertionError(f"the job is still {answer['state']}")


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The application behind a real socket, in a thread; its URL without a slash at the end."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        for _ in range(600):
            if server.started:
                break
            time.sleep(0.05)
        assert httpx.get(f"{url}/api/health").status_code == 200
        yield url
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
        assert not thread.is_alive()
