"""The live page of the real application in Debian's chromium, with a fake microphone."""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import PIL.Image
import pytest

from support.animate import portrait, shared_detector, speech, write_picture, write_wav

CHROMIUM = which("chromium")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
    pytest.mark.skipif(
        find_spec("playwright") is None, reason="playwright is not installed (the dev extra)"
    ),
    pytest.mark.skipif(find_spec("aiortc") is None, reason="the serve extra is not installed"),
]

WAIT = 60_000  # milliseconds

PLAYED = "() => document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames"


def _has_a_network() -> bool:
    """WebRTC finds its way over the addresses of a machine other than loopback's."""
    import aioice.ice

    return bool(aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    # One face at one place for the fake camera, which repeats the file.
    wide = np.full((480, 640, 3), 90, np.uint8)
    wide[100:356, 192:448] = portrait()
    file = io.BytesIO()
    PIL.Image.fromarray(wide).save(file, "JPEG", quality=95)
    (folder / "camera.mjpeg").write_bytes(5 * file.getvalue())
    return {
        "camera": folder / "camera.mjpeg",
        "picture": write_picture(folder / "photo.png", portrait()),
        "wall": write_picture(folder / "wall.png", np.full((200, 200, 3), 128, np.uint8)),
        "sound": write_wav(folder / "hello.wav", speech(20)),
        "microphone": write_wav(folder / "microphone.wav", speech(6), 16_000),
    }


@pytest.fixture(scope="module")
def server(weights_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with _serving(weights_file, tmp_path_factory.mktemp("kept")) as url:
        yield url


@contextmanager
def _serving(weights: Path, folder: Path) -> Iterator[str]:
    """The application with one model, for browsers that have a network."""
    from stillspeak.web.app import create_app
    from stillspeak.web.settings import ServeSettings
    from support.web import serving

    if not _has_a_network():
        pytest.skip("no network interface but loopback: a browser uses none for WebRTC")
    settings = ServeSettings(
        models=(str(weights),),
        folder=folder,
        preload=False,
        live_sessions=1,
    )
    app = create_app(settings, detector=shared_detector())
    with serving(app) as url:
        yield url


@pytest.fixture(scope="module")
def browser(files: dict[str, Path]) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--autoplay-policy=no-user-gesture-required",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-video-capture={files['camera']}",
                f"--use-file-for-fake-audio-capture={files['microphone']}",
            ],
        )
        yield browser
        browser.close()


@contextmanager
def page_of(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """The live page, which must say nothing on its console and ask nobody else."""
    context = browser.new_context(viewport={"width": 1000, "height": 760}, **options)
    page = context.new_page()
    page.set_default_timeout(WAIT)
    troubles: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{url}/live/")
    try:
        yield page
        # What a status of 4xx or 5xx writes there is asked for by the tests below.
        assert not [text for text in troubles if "status of" not in text], troubles
        assert all(place.startswith((url, "data:", "blob:")) for place in asked), asked
    finally:
        context.close()


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT / 1000
    while not condition():
        assert time.monotonic() < end, f"waited for: {what}"
        time.sleep(0.1)


def plays(page: Any, frames: int = 10) -> None:
    """Wait until so many more frames have been shown."""
    before = page.evaluate(PLAYED)
    page.wait_for_function(f"() => ({PLAYED})() >= {before + frames}")


def picture(page: Any) -> np.ndarray:
    """(H, W, 3) uint8: what the video element shows."""
    shot = page.locator("#video").screenshot()
    return np.asarray(PIL.Image.open(io.BytesIO(shot)).convert("RGB"))


def test_the_microphone_speaks_and_the_picture_moves(browser, server):
    with page_of(browser, server) as page:
        page.click("#start")
        page.wait_for_function("() => document.getElementById('state').textContent == 'Speaking'")
        plays(page)
        shown = picture(page).astype(int)
        assert 60 < shown.mean() < 200 and shown.std() > 30  # a photo, neither black nor one grey
        begun = page.evaluate("() => video.currentTime")
        plays(page)
        assert page.evaluate("() => video.currentTime") > begun
        assert (
            page.evaluate(
                "() => video.srcObject.getTracks().map((t) => t.kind + t.readyState).sort().join()"
            )
            == "audiolive,videolive"
        )
        # The sound came along: what the browser heard is not silence.
        page.wait_for_function(
            """async () => [...(await live.peer.getStats()).values()].some(
                (s) => s.type === 'inbound-rtp' && s.kind === 'audio' && s.totalAudioEnergy > 0)"""
        )
        page.wait_for_function("() => document.getElementById('step').textContent.includes('ms')")
        page.click("#interrupt")
        plays(page, 3)
        page.click("#stop")
        assert page.text_content("#state") == "Not connected"
        assert page.is_enabled("#start") and page.is_disabled("#stop")
        assert page.text_content("#message") == ""


def test_mood_and_head_are_chosen_and_the_mood_changed(browser, server):
    with page_of(browser, server) as page:
        assert page.is_disabled("#strength")  # nothing to strengthen
        page.select_option("#mood", label="Sad")
        page.fill("#head-motion", "0.5")
        with page.expect_request("**/live/offer") as offer:
            page.click("#start")
        asked = offer.value.post_data_json
        assert (asked["mood"], asked["head_motion"]) == ("sad:1", 0.5)
        plays(page, 3)
        assert page.is_disabled("#head-motion")
        page.evaluate(
            "live.channel.addEventListener('message', (event) => {"
            "const told = JSON.parse(event.data); if (told.type === 'mood') live.told = told.mood})"
        )
        page.get_by_label("Mood").select_option("happy")
        page.wait_for_function("() => live.told === 'happy:1'")
        page.get_by_label("Strength").fill("0.5")
        page.wait_for_function("() => live.told === 'happy:0.5'")
        assert page.text_content("#strength-value") == "× 0.5"
        plays(page, 3)
        assert page.text_content("#message") == ""
        page.click("#stop")


def test_a_sound_file_and_a_picture_of_ones_own(browser, server, files):
    with page_of(browser, server) as page:
        page.check("input[value=own]")
        page.set_input_files("#picture-file", str(files["picture"]))
        page.check("input[value=file]")
        page.set_input_files("#sound-file", str(files["sound"]))
        page.click("#start")
        page.wait_for_function("() => document.getElementById('state').textContent == 'Speaking'")
        plays(page)
        assert page.evaluate("() => [video.videoWidth, video.videoHeight]") == [256, 256]
        page.click("#interrupt")  # a file speaks no further
        page.wait_for_function("() => document.getElementById('state').textContent != 'Speaking'")
        plays(page, 3)


def test_the_cameras_own_face_speaks(browser, tmp_path):
    from support.animate import save_lively

    weights = save_lively(tmp_path / "posing.safetensors", "layers")
    kept = tmp_path / "kept"
    kept.mkdir()
    with _serving(weights, kept) as url, page_of(browser, url) as page:
        assert page.is_hidden("#preview") and page.is_hidden("#camera-hint")
        page.check("input[value=camera]")
        assert page.is_visible("#camera-hint") and page.is_hidden("#mood")
        with page.expect_request("**/live/offer") as offer:
            page.click("#start")
        asked = offer.value.post_data_json
        assert asked["camera"] is True and "mood" not in asked and "picture" not in asked
        plays(page, 3)
        page.wait_for_function("() => document.getElementById('preview').videoWidth > 0")
        page.evaluate(
            "live.channel.addEventListener('message', (event) => {"
            "const told = JSON.parse(event.data); if (told.camera) live.told = told.camera})"
        )
        page.wait_for_function("() => live.told && live.told.drawn > 5")
        shown = picture(page).astype(int)
        assert 60 < shown.mean() < 200 and shown.std() > 30
        assert page.text_content("#message") == ""
        page.click("#stop")
        assert page.is_hidden("#preview")
        assert page.evaluate("() => document.getElementById('preview').srcObject") is None


def test_what_cannot_be_is_said(browser, server, files):
    with page_of(browser, server) as page:

        def message(words: str) -> None:
            page.click("#start")
            page.wait_for_function(
                f"() => document.getElementById('message').textContent.includes('{words}')"
            )
            assert page.is_enabled("#start")

        page.check("input[value=own]")
        message("Choose a picture")
        page.set_input_files("#picture-file", str(files["wall"]))
        message("no face")
        page.check("input[value=sample]")
        page.check("input[value=file]")
        message("Choose a sound")
        page.set_input_files("#sound-file", str(files["wall"]))
        message("cannot decode")
        page.check("input[value=microphone]")
        page.check("input[value=camera]")
        message("cannot move lips that a camera shows")  # this model paints


def test_a_full_server_says_so_and_a_closed_page_makes_room(browser, server):
    with page_of(browser, server) as first, page_of(browser, server) as second:
        until(lambda: _sessions(first) == 0, "the sessions before to end")
        first.click("#start")
        plays(first, 1)
        second.click("#start")
        second.wait_for_function(
            "() => document.getElementById('message').textContent.includes('taken')"
        )
        first.close()
        until(lambda: _sessions(second) == 0, "the closed page's session to end")


def _sessions(page: Any) -> int:
    return page.evaluate("async () => (await (await fetch('config')).json()).sessions")
