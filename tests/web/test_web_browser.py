"""The studio page in Debian's chromium, as people use it: mouse, keyboard, phone, dark."""

import io
import re
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

from stillspeak.animate import Animation
from stillspeak.media.video import probe_video
from stillspeak.web.app import create_app
from stillspeak.web.settings import ServeSettings
from support.animate import portrait, shared_detector, speech, write_picture, write_wav
from support.web import serving

CHROMIUM = which("chromium")
PLAYWRIGHT = find_spec("playwright") is not None

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not PLAYWRIGHT, reason="playwright is not installed (the dev extra)"),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]

WAIT = 60_000  # milliseconds


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    # One face at one place for the fake camera, which repeats the file.
    wide = np.full((480, 640, 3), 90, np.uint8)
    wide[100:356, 192:448] = portrait()
    file = io.BytesIO()
    PIL.Image.fromarray(wide).save(file, "JPEG", quality=95)
    (folder / "camera.mjpeg").write_bytes(5 * file.getvalue())
    two = np.full((256, 600, 3), 90, np.uint8)
    two[:, :256] = portrait()
    two[30:230, 380:580] = np.asarray(PIL.Image.fromarray(portrait()).resize((200, 200)))
    return {
        "camera": folder / "camera.mjpeg",
        "picture": write_picture(folder / "my photo.png", portrait()),
        "two": write_picture(folder / "two.png", two),
        "wall": write_picture(folder / "wall.png", np.full((200, 200, 3), 128, np.uint8)),
        "sound": write_wav(folder / "hello.wav", speech(1)),
        "long": write_wav(folder / "long.wav", speech(12)),
    }


@pytest.fixture(scope="module")
def url(weights_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = ServeSettings(
        models=(str(weights_file),),
        folder=tmp_path_factory.mktemp("kept"),
        preload=False,
        live_sessions=0,
        max_seconds=30,
        queue_per_client=100,
    )
    with serving(create_app(settings, detector=shared_detector())) as url:
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
                f"--use-file-for-fake-audio-capture={files['long']}",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, url: str) -> Callable[..., Any]:
    """Opens the page in a fresh profile; nothing may go wrong in it or go elsewhere."""

    @contextmanager
    def visit(**options: Any) -> Iterator[Any]:
        context = browser.new_context(**options)
        context.set_default_timeout(WAIT)
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        # The server's refusals are shown in the console too, and are no mistakes of the page.
        page.on(
            "console",
            lambda m: (
                wrong.append(m.text)
                if m.type in ("error", "warning") and "Failed to load resource" not in m.text
                else None
            ),
        )
        page.on(
            "request",
            lambda r: wrong.append(r.url) if not r.url.startswith((url, "blob:")) else None,
        )
        page.goto(url)
        page.wait_for_selector("html[data-ready]")
        yield page
        assert wrong == []
        context.close()

    return visit


def until(page: Any, script: str) -> None:
    """Waits for an expression; the page's own policy does not let Playwright wait inside it."""
    for _ in range(WAIT // 50):
        if page.evaluate(script):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {script}")


def prepare(page: Any, files: dict[str, Path], picture: str = "picture", sound: str = "sound"):
    page.set_input_files("#picture-file", files[picture])
    page.set_input_files("#sound-file", files[sound])
    page.wait_for_selector("#portrait-found", state="visible")
    page.wait_for_selector("#sound", state="visible")


def make(page: Any) -> None:
    page.click("#go")
    page.wait_for_selector("#result", state="visible")


def violations(page: Any) -> list[str]:
    """What axe-core finds."""
    import axe_playwright_python

    source = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text("utf-8")
    page.evaluate(source)
    found = page.evaluate(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa',"
        " 'best-practice']})"
    )
    assert len(found["passes"]) > 15  # it did look
    return [
        f"{v['id']}: {v['help']}: {[n['html'][:100] for n in v['nodes']]}"
        for v in found["violations"]
    ]


def test_upload_make_play_download(visit: Any, files: dict[str, Path], tmp_path: Path):
    with visit(viewport={"width": 1280, "height": 900}) as page:
        prepare(page, files)
        assert page.locator("#photo-faces polygon").count() == 1
        assert page.locator("#crop-image").evaluate("e => e.naturalWidth") == 192
        assert "M0 " in page.get_attribute("#wave-all", "d")
        make(page)
        # It plays, with picture and sound.
        until(page, "document.getElementById('video').currentTime > 0.2")
        video = page.locator("#video").evaluate(
            "v => [v.videoWidth, v.videoHeight, v.duration, v.muted, v.webkitAudioDecodedByteCount]"
        )
        assert video[:2] == [256, 256]
        assert video[2] == pytest.approx(1, abs=0.1)
        assert video[3] is False and video[4] > 0
        # Still and video are of one size, side by side.
        still, moving = (page.locator(name).bounding_box() for name in ("#still", "#video"))
        assert still["x"] + still["width"] < moving["x"]
        for name in ("y", "width", "height"):
            assert still[name] == pytest.approx(moving[name], abs=1)
        with page.expect_download() as download:
            page.click("#download")
        assert download.value.suggested_filename == "my photo-speaks.mp4"
        target = tmp_path / "video.mp4"
        download.value.save_as(target)
        info = probe_video(target)
        assert (info.width, info.height, info.has_audio) == (256, 256, True)
        assert page.text_content("#command-text") == (
            "stillspeak animate 'my photo.png' hello.wav --model lively.safetensors -o video.mp4"
        )


def test_takes_with_other_seeds_and_deleting_all(visit: Any, files: dict[str, Path], url: str):
    with visit() as page:
        before = page.request.get(f"{url}/api/health").json()["items"]
        prepare(page, files)
        make(page)
        first = page.get_attribute("#video", "src")
        page.click("#again")
        until(page, "document.querySelectorAll('#takes-list li').length == 2")
        assert "--seed 1" in page.text_content("#command-text")
        second = page.get_attribute("#video", "src")
        assert second != first
        page.click("#takes-list li:first-child button")
        assert page.get_attribute("#video", "src") == first
        assert page.get_attribute("#takes-list li:first-child button", "aria-pressed") == "true"
        page.click("#delete")
        page.wait_for_selector("#nothing", state="visible")
        for path in (first, second):
            assert page.request.get(url + path).status == 404
        assert page.request.get(f"{url}/api/health").json()["items"] == before


def test_the_samples_speak_at_one_press(visit: Any, monkeypatch: pytest.MonkeyPatch):
    drawn = Animation.__iter__

    def slowly(self: Animation) -> Iterator[Any]:
        for frame in drawn(self):
            time.sleep(0.1)  # a small model would be done before anybody presses a button
            yield frame

    monkeypatch.setattr(Animation, "__iter__", slowly)
    with visit() as page:
        page.click("#try")
        page.wait_for_selector("#busy", state="visible")
        page.click("#cancel")
        page.wait_for_selector("#busy", state="hidden")
        assert page.is_hidden("#stage-error") and page.is_hidden("#result")
        assert page.is_enabled("#go")


def test_mistakes_are_told_and_mended(visit: Any, files: dict[str, Path]):
    with visit() as page:
        page.click("#go")
        assert "choose a portrait first" in page.text_content("#portrait-error")
        assert page.evaluate("document.activeElement.id") == "picture-button"
        page.set_input_files("#picture-file", files["wall"])
        page.wait_for_selector("#portrait-error", state="visible")
        until(page, "document.getElementById('portrait-error').textContent.includes('no face')")
        assert page.text_content("#portrait-error").startswith("wall.png: no face found")
        assert page.get_attribute("#portrait-error", "role") == "alert"
        page.set_input_files("#picture-file", files["picture"])
        page.wait_for_selector("#portrait-found", state="visible")
        assert page.is_hidden("#portrait-error")
        page.click("#go")
        assert "choose what it says first" in page.text_content("#speech-error")
        page.set_input_files("#sound-file", files["wall"])
        until(page, "document.getElementById('speech-error').textContent.startsWith('wall.png')")
        page.click("#options summary")
        page.fill("#seed", "-3")
        page.set_input_files("#sound-file", files["sound"])
        page.wait_for_selector("#sound", state="visible")
        page.click("#go")
        assert page.evaluate("document.activeElement.id") == "seed"
        assert page.is_hidden("#busy")


def test_one_of_two_faces(visit: Any, files: dict[str, Path]):
    with visit() as page:
        prepare(page, files, picture="two")
        assert page.locator("#faces label").count() == 2
        crop = page.get_attribute("#crop-image", "src")
        page.locator("#faces input").nth(1).check()
        assert page.get_attribute("#crop-image", "src") != crop
        assert (
            page.locator("#photo-faces polygon").nth(1).get_attribute("class").startswith("chosen")
        )
        make(page)
        assert "--face 1" in page.text_content("#command-text")


def test_a_mood_is_chosen(visit: Any, files: dict[str, Path]):
    with visit() as page:
        prepare(page, files)
        page.click("#options summary")
        assert page.is_disabled("#strength")
        page.get_by_label("Mood", exact=True).select_option(label="Happy")
        page.get_by_label("Strength of the mood").fill("0.5")
        assert page.text_content("#strength-value") == "× 0.5"
        assert page.text_content("#head-motion-value") == "as people do"
        make(page)
        assert "--mood happy:0.5 " in page.text_content("#command-text")
        page.click("#usual")
        assert page.input_value("#mood") == "neutral" and page.is_disabled("#strength")


def test_dropped_files_find_their_place(visit: Any, files: dict[str, Path]):
    with visit() as page:
        for kind, mime in (("picture", "image/png"), ("sound", "audio/wav")):
            data = list(files[kind].read_bytes())
            page.evaluate(
                """([bytes, name, type]) => {
                    const data = new DataTransfer();
                    data.items.add(new File([new Uint8Array(bytes)], name, {type}));
                    for (const kind of ["dragover", "drop"])
                        document.body.dispatchEvent(new DragEvent(kind,
                            {dataTransfer: data, bubbles: true, cancelable: true}));
                }""",
                [data, files[kind].name, mime],
            )
        page.wait_for_selector("#portrait-found", state="visible")
        page.wait_for_selector("#sound", state="visible")


def test_camera_and_microphone(visit: Any):
    with visit(permissions=["camera", "microphone"]) as page:
        page.click("#camera-button")
        until(page, "document.getElementById('camera-view').videoWidth > 0")
        page.click("#camera-take")
        page.wait_for_selector("#portrait-found", state="visible")
        assert page.evaluate("document.getElementById('camera-view').srcObject") is None
        page.check("input[name=way][value=record]")
        page.click("#record-button")
        until(page, "document.getElementById('record-clock').textContent >= '0:01'")
        until(page, "document.getElementById('record-level').value > 0")
        page.click("#record-button")
        page.wait_for_selector("#sound", state="visible")
        assert page.text_content("#sound-name") == "recording.webm"
        make(page)
        assert page.is_visible("#save-picture") or page.locator("#save-picture").count() == 1
        page.click("#command summary")
        assert page.is_visible("#save-picture") and page.is_visible("#save-sound")


@pytest.mark.skipif(which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_typed_text(visit: Any):
    with visit() as page:
        page.check("input[name=way][value=text]")
        page.click("#speak")
        assert "type what shall be said" in page.text_content("#speech-error")
        page.fill("#text", "Hello, it's me.")
        page.click("#speak")
        page.wait_for_selector("#sound", state="visible")
        assert page.text_content("#sound-name") == "“Hello, it's me.”"
        page.click("#sound-play")
        until(page, "document.getElementById('wave-past-box').getAttribute('width') > 0")


def press_to(page: Any, wanted: str) -> None:
    """Presses Tab until an element has the focus."""
    for _ in range(40):
        page.keyboard.press("Tab")
        here = page.evaluate(
            "[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]"
        )
        if here[0] == wanted:
            assert here[1] != "none", f"the focus does not show on {wanted}"
            return
    raise AssertionError(f"{wanted} is not reached by Tab")


def test_everything_goes_without_a_mouse(visit: Any, files: dict[str, Path]):
    with visit() as page:
        # Listened for from the start: the browser is told to, and that takes its time.
        choosers: list[Any] = []
        page.on("filechooser", lambda chooser: choosers.append(chooser))
        for button, file, there in (
            ("picture-button", "picture", "#portrait-found"),
            ("sound-button", "sound", "#sound"),
        ):
            press_to(page, button)
            page.keyboard.press("Enter")
            for _ in range(WAIT // 50):
                if choosers:
                    break
                page.wait_for_timeout(50)
            choosers.pop().set_files(files[file])
            page.wait_for_selector(there, state="visible")
        press_to(page, "go")
        page.keyboard.press("Enter")
        page.wait_for_selector("#result", state="visible")
        assert page.text_content("#say") == "The video is ready."
        press_to(page, "download")
        with page.expect_download() as download:
            page.keyboard.press("Enter")
        assert download.value.suggested_filename.endswith(".mp4")


def test_the_skip_link_comes_first(visit: Any):
    with visit() as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "stage"


@pytest.mark.skipif(
    find_spec("axe_playwright_python") is None, reason="axe-playwright-python is not installed"
)
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing(visit: Any, files: dict[str, Path], scheme: str, width: int):
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with visit(**options, reduced_motion="reduce") as page:
        page.click("#go")  # an error
        page.check("input[name=way][value=record]")
        assert violations(page) == []
        page.check("input[name=way][value=file]")
        prepare(page, files, picture="two")
        page.click("#options summary")
        make(page)
        page.click("#command summary")
        assert violations(page) == []
        page.click("#sound-again")
        if page.is_visible("#way-text"):
            page.check("input[name=way][value=text]")
            assert violations(page) == []


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_shows_all_without_scrolling_sideways(
    visit: Any, files: dict[str, Path], width: int
):
    phone = {"viewport": {"width": width, "height": 700}, "is_mobile": True, "has_touch": True}
    with visit(**phone) as page:

        def check() -> None:
            overflow = page.evaluate(
                "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            )
            assert overflow[0] <= overflow[1]
            small = page.evaluate(
                """[...document.querySelectorAll("button, .button, select, summary")]
                    .filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 24)
                    .map((e) => e.outerHTML)"""
            )
            assert small == []

        check()
        prepare(page, files, picture="two")
        page.tap("#options summary")
        make(page)
        page.tap("#command summary")
        check()
        # The video is in view without a search for it.
        top = page.locator("#screen").bounding_box()["y"]
        assert top < 700


def test_dark_where_the_system_is_dark(visit: Any):
    lightness = {}
    for scheme in ("light", "dark"):
        with visit(color_scheme=scheme) as page:
            color = page.evaluate("getComputedStyle(document.body).backgroundColor")
            lightness[scheme] = sum(map(int, re.findall(r"\d+", color)[:3])) / 3
    assert lightness["light"] > 220
    assert lightness["dark"] < 40


def test_nothing_moves_for_those_who_want_that(visit: Any, files: dict[str, Path]):
    with visit(reduced_motion="reduce") as page:
        prepare(page, files)
        make(page)
        page.wait_for_timeout(300)
        assert page.evaluate("document.getElementById('video').paused") is True


def test_a_server_that_stopped_is_told(visit: Any, files: dict[str, Path]):
    with visit() as page:
        page.route("**/api/pictures*", lambda route: route.abort())
        page.set_input_files("#picture-file", files["picture"])
        page.wait_for_selector("#portrait-error", state="visible")
        assert "does not answer" in page.text_content("#portrait-error")
        page.unroute("**/api/pictures*")


def test_a_foreign_page_cannot_drive_the_server(browser: Any, url: str):
    """A page of another origin sends what browsers let it send: nothing of it is done."""
    page = browser.new_context().new_page()
    page.route("http://evil.example/", lambda r: r.fulfill(body="<p>", content_type="text/html"))
    page.goto("http://evil.example/")
    outcome = page.evaluate(
        """async (url) => {
            const tries = [
                fetch(url + "/api/samples/sentence", {method: "POST", mode: "no-cors"}),
                fetch(url + "/api/sounds", {method: "POST", mode: "no-cors", body: "RIFF"}),
                fetch(url + "/api/jobs", {method: "POST", body: "{}",
                    headers: {"content-type": "application/json"}}),
                fetch(url + "/api/info"),
            ];
            return (await Promise.allSettled(tries)).map((t) => t.value?.status ?? t.status);
        }""",
        url,
    )
    assert outcome == ["rejected", "rejected", "rejected", "rejected"] or set(outcome) <= {
        0,
        "rejected",
    }
    assert page.request.get(f"{url}/api/health").json()["uploads"] == 0
    page.context.close()
