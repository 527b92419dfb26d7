"""Whole studies in Debian's chromium: mouse and keyboard, reloads, phone, dark, axe."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from test_study_app import change

from stillspeak.study.kinds import Study
from stillspeak.study.store import AnswerStore
from stillspeak.study.videos import init_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
    pytest.mark.skipif(
        find_spec("playwright") is None, reason="playwright is not installed (extra: dev)"
    ),
]

WAIT = 60_000  # milliseconds


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    import uvicorn

    from stillspeak.study.app import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(folder), log_level="warning"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--mute-audio"]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page that must make no error and ask nobody but its own server."""
    opened: list[tuple[Any, list[str]]] = []

    def note(kind: str, text: str) -> None:
        # What the server refused or, at a test's end, is no more, the tests themselves see.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            opened[-1][1].append(text)

    def open_page(url: str, **settings: Any) -> Any:
        context = browser.new_context(**settings)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        trouble: list[str] = []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda m: note(m.type, m.text))
        page.on(
            "request",
            lambda r: None if r.url.startswith((url, "data:")) else trouble.append(r.url),
        )
        opened.append((context, trouble))
        page.goto(url)
        return page

    yield open_page
    for context, trouble in opened:
        context.close()
        assert trouble == []


def axe(page: Any) -> list[str]:
    """What axe-core finds, by WCAG 2.2 AA and its own best practice."""
    package = pytest.importorskip(
        "axe_playwright_python", reason="axe-playwright-python is not installed (extra: dev)"
    )
    source = Path(package.__file__).with_name("axe.min.js").read_text("utf-8")
    page.evaluate(source)
    found = page.evaluate(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa',"
        " 'best-practice']})"
    )
    return [f"{v['id']}: {v['nodes'][0]['html'][:120]}" for v in found["violations"]]


def begin(page: Any) -> None:
    page.check("#agree")
    page.click("#begin")
    page.wait_for_selector("#trial:not([hidden])")


def watch(page: Any) -> None:
    page.wait_for_selector("#play:not([disabled])")
    page.click("#play")
    page.wait_for_selector("#hint:text('Please answer')")


def at(page: Any, number: int, total: int) -> None:
    page.wait_for_selector(f"#trial-title:has-text('{number} of {total}')")


@pytest.fixture
def study(tmp_path: Path, videos: Path) -> Callable[..., Path]:
    """Makes a study of two or three trials."""

    def make(kind: str, *, systems: int = 2, **sections: dict[str, Any]) -> Path:
        folder = tmp_path / kind
        sources = [videos / "ours", videos / "theirs"][:systems]
        names = ["a", "b"] if kind == "preference" else None
        init_study(folder, kind, sources, names=names)
        change(folder, **sections)
        return folder

    return make


def answers_in(folder: Path) -> list[Any]:
    store = AnswerStore(Study.load(folder))
    try:
        return store.answers()
    finally:
        store.close()


def test_a_preference_survey_with_a_reload_in_the_middle(
    visit: Callable[..., Any], study: Callable[..., Path]
) -> None:
    folder = study("preference", trials={"count": 3, "catch": 0, "repeats": 0})
    with serving(folder) as url:
        page = visit(url, viewport={"width": 1000, "height": 800})
        assert axe(page) == []
        begin(page)
        at(page, 1, 3)
        assert page.locator("#videos video").count() == 2
        # Side by side, and only one of them heard.
        boxes = [page.locator("#videos video").nth(i).bounding_box() for i in (0, 1)]
        assert boxes[0]["y"] == boxes[1]["y"]
        assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]
        muted = page.evaluate("[...document.querySelectorAll('#videos video')].map(v => v.muted)")
        assert muted == [False, True]
        page.locator("#answers input").nth(0).check()
        assert page.locator("#next").is_disabled()  # not before both were seen
        page.wait_for_selector("#hint:text('Watch to the end')")
        page.wait_for_selector("#play:not([disabled])")
        page.click("#play")
        page.wait_for_selector("#next:not([disabled])")
        assert axe(page) == []
        page.dblclick("#next")
        at(page, 2, 3)
        page.reload()
        at(page, 2, 3)
        watch(page)
        page.reload()  # it was watched; that is remembered
        at(page, 2, 3)
        page.wait_for_selector("#hint:text('Please answer')")
        page.locator("#answers input").nth(1).check()
        page.click("#next")
        at(page, 3, 3)
        watch(page)
        page.locator("#answers input").nth(1).check()
        page.click("#next")
        page.wait_for_selector("#done:not([hidden])")
        assert axe(page) == []
        page.reload()
        page.wait_for_selector("#done:not([hidden])")
        assert "Thank you" in page.locator("#done").text_content()
    stored = answers_in(folder)
    assert [a.values["natural"] for a in stored] == ["first", "second", "second"]
    assert all(a.plays >= 1 and a.watched >= 1 and a.response_ms > 0 for a in stored)


def test_both_videos_play_in_step(
    visit: Callable[..., Any], study: Callable[..., Path], tmp_path: Path
) -> None:
    from support.study import write_clip

    for side in ("x", "y"):
        write_clip(tmp_path / side / "long.mp4", frames=60, seed=ord(side))
    folder = tmp_path / "long"
    init_study(folder, "preference", [tmp_path / "x", tmp_path / "y"])
    change(folder, trials={"catch": 0})
    with serving(folder) as url:
        page = visit(url)
        begin(page)
        page.wait_for_selector("#play:not([disabled])")
        page.click("#play")
        apart = []
        while "Playing" in page.locator("#play-label").text_content() and len(apart) < 400:
            times = page.evaluate(
                "[...document.querySelectorAll('#videos video')].map(v => v.currentTime)"
            )
            apart.append(abs(times[0] - times[1]))
        page.wait_for_selector("#hint:text('Please answer')")
        # A busy machine may let one slip for a moment; it is brought back.
        assert sorted(apart)[len(apart) // 2] < 0.15


def test_by_keyboard_alone(visit: Callable[..., Any], study: Callable[..., Path]) -> None:
    folder = study("preference", trials={"count": 2, "catch": 0, "repeats": 0})
    with serving(folder) as url:
        page = visit(url, reduced_motion="reduce")
        page.wait_for_selector("#consent:not([hidden])")
        for _ in range(10):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "agree":
                break
        page.keyboard.press("Space")
        page.keyboard.press("Enter")
        at(page, 1, 2)
        assert page.evaluate("document.activeElement.id") == "trial-title"
        page.wait_for_selector("#play:not([disabled])")
        page.keyboard.press("p")
        page.wait_for_selector("#hint:text('Please answer')")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("n")
        at(page, 2, 2)
        page.wait_for_selector("#play:not([disabled])")
        page.keyboard.press("p")
        page.wait_for_selector("#hint:text('Please answer')")
        page.keyboard.press("2")
        page.keyboard.press("1")
        page.keyboard.press("n")
        page.wait_for_selector("#done:not([hidden])")
        assert page.evaluate("document.activeElement.id") == "done-title"
    assert [a.values["natural"] for a in answers_in(folder)] == ["second", "first"]


def test_a_turing_test_on_a_phone_in_the_dark(
    visit: Callable[..., Any], study: Callable[..., Path]
) -> None:
    folder = study("turing", trials={"count": 3})
    with serving(folder) as url:
        page = visit(url, viewport={"width": 360, "height": 740}, color_scheme="dark")
        begin(page)
        for number in (1, 2, 3):
            at(page, number, 3)
            watch(page)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 360
            page.locator("#answers label").nth(number % 2).click()
            if number == 2:
                assert axe(page) == []
            page.click("#next")
        page.wait_for_selector("#done:not([hidden])")
        score = page.locator("#score").text_content()
    stored = answers_in(folder)
    right = sum(a.values["real"] == a.trial.expected for a in stored)
    assert score == f"You labelled {right} of 3 videos correctly."


def test_pairs_are_stacked_on_a_phone(
    visit: Callable[..., Any], study: Callable[..., Path]
) -> None:
    folder = study("preference", trials={"count": 2, "catch": 0, "repeats": 0})
    with serving(folder) as url:
        page = visit(url, viewport={"width": 360, "height": 740})
        begin(page)
        page.wait_for_selector("#play:not([disabled])")
        boxes = [page.locator("#videos video").nth(i).bounding_box() for i in (0, 1)]
        assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_ratings_with_a_limit_of_plays(
    visit: Callable[..., Any], study: Callable[..., Path]
) -> None:
    folder = study("mos", trials={"count": 2, "catch": 0, "repeats": 0}, playback={"max_plays": 1})
    with serving(folder) as url:
        page = visit(url)
        begin(page)
        watch(page)
        assert page.locator("#play").is_disabled()
        assert "0 of 1 plays left" in page.locator("#plays").text_content()
        page.reload()
        page.wait_for_selector("#hint:text('Please answer')")
        assert page.locator("#play").is_disabled()
        assert axe(page) == []
        page.get_by_label("4 Good").check()
        page.click("#next")
        at(page, 2, 2)
        watch(page)
        page.keyboard.press("5")
        page.click("#next")
        page.wait_for_selector("#done:not([hidden])")
    assert [a.values["quality"] for a in answers_in(folder)] == [4, 5]


def test_lip_reading_from_lists(visit: Callable[..., Any], study: Callable[..., Path]) -> None:
    folder = study("intelligibility", systems=1, trials={"count": 2, "catch": 0})
    with serving(folder) as url:
        page = visit(url)
        begin(page)
        for number in (1, 2):
            at(page, number, 2)
            assert page.evaluate("document.querySelector('#videos video').muted") is True
            watch(page)
            page.get_by_label("Command").select_option("place")
            page.get_by_label("Colour").select_option("red")
            page.get_by_label("Preposition").select_option("cannot tell")
            page.get_by_label("Letter").select_option("q")
            page.get_by_label("Digit").select_option("zero")
            assert page.locator("#next").is_disabled()
            page.get_by_label("Adverb").select_option("soon")
            if number == 1:
                assert axe(page) == []
            page.click("#next")
        page.wait_for_selector("#done:not([hidden])")
    assert [a.values["words"] for a in answers_in(folder)] == (
        [["place", "red", "", "q", "zero", "soon"]] * 2
    )


def test_lip_reading_typed_with_practice_and_feedback(
    visit: Callable[..., Any], tmp_path: Path, videos: Path
) -> None:
    folder = tmp_path / "typed"
    init_study(folder, "intelligibility", [videos / "ours"])
    # Keep one clip for practice, as a larger study would.
    import json

    truth = folder / "materials.json"
    table = json.loads(truth.read_text("utf-8"))
    table["videos"][0]["role"] = "training"
    truth.write_text(json.dumps(table), "utf-8")
    change(folder, trials={"count": 1, "catch": 0, "training": 1, "entry": "type"})
    with serving(folder) as url:
        page = visit(url)
        begin(page)
        page.wait_for_selector("#trial-title:has-text('Practice 1 of 2')")
        watch(page)
        page.fill("#words-typed", "Bin blue, at f 2 now 12pn")  # keys are no shortcuts here
        page.click("#next")
        page.wait_for_selector("#feedback:not([hidden])")
        assert "The words were: bin blue at f two now." in page.text_content("#feedback")
        assert axe(page) == []
        page.click("#go-on")
        at(page, 2, 2)
        watch(page)
        page.fill("#words-typed", "lay green")
        page.keyboard.press("Enter")
        page.wait_for_selector("#done:not([hidden])")
    assert [a.trial.role for a in answers_in(folder)] == ["training", "main"]


def test_going_on_elsewhere_and_deleting(
    visit: Callable[..., Any], study: Callable[..., Path]
) -> None:
    folder = study("mos", trials={"count": 2, "catch": 0, "repeats": 0})
    with serving(folder) as url:
        page = visit(url)
        begin(page)
        watch(page)
        page.get_by_label("2 Poor").check()
        page.click("#next")
        at(page, 2, 2)
        page.click("#mine summary")
        assert axe(page) == []
        code = page.text_content("#code-shown")
        other = visit(url)
        other.click("text=I have a code already")
        other.fill("#code", code.lower())
        other.click("#code-form button")
        at(other, 2, 2)
        other.click("#mine summary")
        other.check("#sure")
        other.click("#delete-form button")
        other.wait_for_selector("#deleted:not([hidden])")
        assert axe(other) == []
    assert answers_in(folder) == []


def test_answers_wait_for_a_server_that_is_away(
    visit: Callable[..., Any], study: Callable[..., Path]
) -> None:
    """The page sends again until it is answered, and stores once."""
    folder = study("mos", trials={"count": 2, "catch": 0, "repeats": 0})
    with serving(folder) as url:
        page = visit(url)
        begin(page)
        watch(page)
        lost: list[str] = []

        def lose(route: Any) -> None:
            if len(lost) < 2:
                lost.append("x")
                # Once the request is lost, once only the reply is.
                if len(lost) == 2:
                    route.fetch()
                route.fulfill(status=503, json={"message": "The server is busy."})
            else:
                route.continue_()

        page.route("**/api/answer", lose)
        page.get_by_label("2 Poor").check()
        page.click("#next")
        at(page, 2, 2)
        assert len(lost) == 2
        assert page.locator("#status").is_hidden()
    assert len(answers_in(folder)) == 1


def test_the_report_passes_axe(visit: Callable[..., Any], tmp_path: Path, browser: Any) -> None:
    from stillspeak.study.report import write_report
    from stillspeak.study.simulate import Truth, simulate
    from support.study import paper_study

    folder = tmp_path / "s"
    study = paper_study(folder, "turing", items=12, count=10)
    store = AnswerStore(study, durable=False)
    simulate(study, store, raters=20, truth=Truth(share=0.63))
    store.close()
    report = write_report(folder, tmp_path / "report")
    for scheme in ("light", "dark"):
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": 390, "height": 800}, bypass_csp=True
        )
        page = context.new_page()
        page.goto(report.page.as_uri())
        assert axe(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        context.close()
