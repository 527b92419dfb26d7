"""The interface that the page talks to: what it takes, refuses, tells and keeps to itself."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stillspeak.study.config import Limits, as_toml
from stillspeak.study.kinds import Study, load_config
from stillspeak.study.materials import load_materials
from stillspeak.study.records import VideoOptions
from stillspeak.study.videos import init_study
from support.study import GRID_NAMES

pytest.importorskip("fastapi", reason="fastapi is not installed (extra: serve)")
pytest.importorskip("httpx", reason="httpx is not installed (extra: dev)")

from fastapi.testclient import TestClient

from stillspeak.study.app import MAX_BODY, create_app
from stillspeak.study.store import AnswerStore

OURS = {"X-Study": "1"}
KEY = "0123456789abcdef" * 2


def change(folder: Path, **sections: dict[str, Any]) -> None:
    """Edit study.toml."""
    config = load_config(folder)
    for name, values in sections.items():
        config = replace(config, **{name: replace(getattr(config, name), **values)})
    (folder / "study.toml").write_text(as_toml(config), "utf-8")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    folder = tmp_path_factory.mktemp("made") / "study"
    both = [videos / "ours", videos / "theirs"]
    names = ["systemone", "systemtwo"]
    init_study(folder, "preference", both, VideoOptions(link=True), names=names)
    change(folder, trials={"count": 3, "catch": 1, "repeats": 0}, playback={"must_watch": False})
    return folder


@pytest.fixture
def pairs(tmp_path: Path, made: Path) -> Path:
    """A study of its own for each test: three pairs and a catch trial."""
    return Path(shutil.copytree(made, tmp_path / "study"))


@pytest.fixture
def client(pairs: Path) -> Iterator[TestClient]:
    with TestClient(create_app(pairs), headers=OURS) as client:
        yield client


def begin(client: TestClient, key: str = KEY) -> dict[str, Any]:
    reply = client.post("/api/start", json={"agreed": True, "key": key})
    assert reply.status_code == 200, reply.text
    return reply.json()  # type: ignore[no-any-return]


def send(client: TestClient, position: int, value: str = "first", **more: Any) -> Any:
    body = {"position": position, "answers": {"natural": value}, "responseMs": 1200} | more
    return client.post("/api/answer", json=body)


def test_a_whole_study(client: TestClient, pairs: Path) -> None:
    assert client.get("/api/state").json() == {"phase": "consent"}
    state = begin(client)
    for position in (1, 2, 3, 4):
        assert state["phase"] == "trial"
        assert state["trial"]["position"] == position
        assert client.get("/api/state").json() == state  # a reload
        for video in state["trial"]["videos"]:
            reply = client.get(f"/{video['url']}")
            assert (reply.status_code, reply.headers["content-type"]) == (200, "video/mp4")
        reply = send(client, position)
        assert reply.json()["stored"] is True
        state = reply.json()["state"]
    assert state["phase"] == "done"
    assert state["score"] is None
    store = AnswerStore(Study.load(pairs))
    assert len(store.answers()) == 4
    assert store.visitors()[0].finished is not None
    store.close()


def test_the_truth_stays_on_the_server(client: TestClient, pairs: Path) -> None:
    """Nothing a browser is sent differs between systems, but the videos' own bytes."""
    told = client.get("/").text
    told += json.dumps(begin(client))
    names: dict[str, set[str]] = {}
    for position in (1, 2, 3, 4):
        state = client.get("/api/state").json()
        for video in state["trial"]["videos"]:
            reply = client.get(f"/{video['url']}")
            told += repr({k: v for k, v in reply.headers.items() if k != "content-length"})
        told += send(client, position).text
        names.setdefault("seen", set()).update(v["url"] for v in state["trial"]["videos"])
    truth = load_materials(pairs)
    secrets = {*GRID_NAMES, "systemone", "systemtwo", "catch", "expected", "last-modified"}
    secrets |= {v.id for v in truth.videos} | {v.source for v in truth.videos}
    for secret in secrets:
        assert secret not in told.lower(), secret
    assert len(names["seen"]) == 8


def test_names_of_videos_hold_for_one_session(pairs: Path) -> None:
    with TestClient(create_app(pairs), headers=OURS) as one:
        first = begin(one)["trial"]["videos"][0]["url"]
        later = one.get("/api/state").json()["next"]
        assert one.get(f"/{later[0]}").status_code == 200
        one.cookies.clear()
        assert one.get(f"/{first}").status_code == 401
        other = begin(one, "f" * 32)["trial"]["videos"][0]["url"]
        assert one.get(f"/{first}").status_code == 404
        assert one.get(f"/{other}").status_code == 200
        for path in ("video/" + "0" * 24, "video/..%2fstudy.toml", "static/..%2fapp.py"):
            assert one.get(f"/{path}").status_code == 404


def test_a_video_in_pieces(client: TestClient) -> None:
    url = "/" + begin(client)["trial"]["videos"][0]["url"]
    whole = client.get(url)
    assert whole.headers["accept-ranges"] == "bytes"
    size = len(whole.content)
    for asked, begins, ends in (
        ("bytes=0-", 0, size),
        ("bytes=0-9", 0, 10),
        ("bytes=10-99999999", 10, size),
        ("bytes=-5", size - 5, size),
    ):
        part = client.get(url, headers={"Range": asked})
        assert part.status_code == 206
        assert part.content == whole.content[begins:ends]
        assert part.headers["content-range"] == f"bytes {begins}-{ends - 1}/{size}"
    assert client.get(url, headers={"Range": f"bytes={size}-"}).status_code == 416
    for odd in ("bytes=-", "items=0-1", "bytes=a-b", "bytes=0-1,3-4"):
        assert client.get(url, headers={"Range": odd}).content == whole.content


def test_the_cookie_is_the_sessions_and_no_more(client: TestClient) -> None:
    assert "set-cookie" not in client.get("/").headers
    assert "set-cookie" not in client.get("/api/state").headers
    reply = client.post("/api/start", json={"agreed": True, "key": KEY})
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith("study_session=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "expires" not in cookie.lower()
    assert "max-age" not in cookie.lower()
    assert "Secure" not in cookie
    client.cookies.clear()
    client.base_url = "https://testserver"
    reply = client.post("/api/start", json={"agreed": True, "key": "e" * 32})
    assert "Secure" in reply.headers["set-cookie"]


def test_headers_keep_others_out(client: TestClient) -> None:
    for path in ("/", "/static/study.css", "/api/state", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
    assert "http" not in client.get("/").text.replace("https://", "").lower().split("<body")[0]


def test_other_sites_cannot_change_anything(client: TestClient) -> None:
    body = {"agreed": True, "key": KEY}
    for headers in (
        {"X-Study": ""},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert client.post("/api/start", json=body, headers=headers).status_code == 403
    form = client.post("/api/start", data={"agreed": "true"})
    assert form.status_code == 415
    assert client.options("/api/start", headers={"Origin": "https://evil.example"}).status_code == (
        405
    )
    ok = {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/start", json=body, headers=ok).status_code == 200


def test_starting_needs_consent_and_happens_once(client: TestClient, pairs: Path) -> None:
    for body in ({"key": KEY}, {"agreed": "yes", "key": KEY}, {"agreed": True}, {"agreed": True,
                 "key": "short"}):  # fmt: skip
        assert client.post("/api/start", json=body).status_code == 422
    first = begin(client)
    assert begin(client)["code"] == first["code"]  # a double click
    client.cookies.clear()
    assert begin(client)["code"] == first["code"]  # a retry whose reply was lost
    store = AnswerStore(Study.load(pairs))
    assert len(store.visitors()) == 1
    store.close()


def test_two_tabs_and_a_double_click_store_one_answer(client: TestClient, pairs: Path) -> None:
    begin(client)
    first, again = send(client, 1, "first"), send(client, 1, "second")
    assert (first.json()["again"], again.json()["again"]) == (False, True)
    assert again.json()["state"]["trial"]["position"] == 2
    store = AnswerStore(Study.load(pairs))
    assert [a.values for a in store.answers()] == [{"natural": "first"}]
    store.close()


def test_trials_are_answered_in_order(client: TestClient) -> None:
    begin(client)
    assert send(client, 2).status_code == 409
    for position in (0, 99, -1, "1", None, True, 1.0):
        assert send(client, position).status_code == 422  # type: ignore[arg-type]
    assert send(client, 1, "third").status_code == 422
    assert send(client, 1, responseMs=-1).status_code == 422
    assert send(client, 1, responseMs="soon").status_code == 422
    assert send(client, 1).status_code == 200


def test_no_body_is_too_odd(client: TestClient) -> None:
    begin(client)
    headers = {"Content-Type": "application/json"}
    odd = (
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 9000, b'{"position": 1e999}', b'"x"',
        b'{"position": 1, "answers": {"natural": {"a": []}}, "responseMs": 1}',
        b'{"code": "\\u0000\\ud800", "agreed": true, "key": "\\ud800"}',
    )  # fmt: skip
    for data in odd:
        for path in ("answer", "watched", "delete", "resume", "start"):
            if path == "start":
                cookies = dict(client.cookies)
                client.cookies.clear()
            reply = client.post(f"/api/{path}", content=data, headers=headers)
            if path == "start":
                client.cookies.update(cookies)
            assert 400 <= reply.status_code < 500, (path, data)
            assert reply.json()["message"]


def test_a_long_body_is_refused(client: TestClient) -> None:
    begin(client)
    headers = {"Content-Type": "application/json"}
    long = b'{"position": 1, "x": "' + b"x" * MAX_BODY + b'"}'
    assert client.post("/api/answer", content=long, headers=headers).status_code == 413


def test_without_a_session_nothing_is_stored(client: TestClient) -> None:
    assert send(client, 1).status_code == 401
    client.cookies.set("study_session", "A" * 20)
    assert send(client, 1).status_code == 401
    assert client.get("/api/state").json() == {"phase": "consent"}
    client.cookies.set("study_session", "nonsense\x7f;")
    assert client.get("/api/state").status_code == 200


def test_videos_must_be_watched(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(pairs, playback={"must_watch": True, "max_plays": 2})
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    with TestClient(create_app(pairs), headers=OURS) as client:
        begin(client)
        here = {"position": 1}
        assert send(client, 1).status_code == 409
        assert client.post("/api/watched", json=here).status_code == 409  # never begun
        assert client.post("/api/played", json=here).json() == {"plays": 1}
        assert client.post("/api/watched", json=here).status_code == 409  # too soon
        assert send(client, 1).status_code == 409
        # A reload in the middle does not use up the plays while nothing was seen whole.
        for plays in (2, 3):
            assert client.post("/api/played", json=here).json() == {"plays": plays}
        now[0] += 0.4
        assert client.post("/api/watched", json=here).json() == {"watched": True}
        assert client.get("/api/state").json()["trial"]["watched"] is True
        assert client.post("/api/played", json=here).status_code == 409
        assert send(client, 1).status_code == 200
    store = AnswerStore(Study.load(pairs))
    (answer,) = store.answers()
    assert (answer.plays, answer.watched) == (3, 1)
    store.close()


def test_going_on_with_a_code(client: TestClient) -> None:
    state = begin(client)
    send(client, 1)
    client.cookies.clear()
    assert client.get("/api/state").json() == {"phase": "consent"}
    assert client.post("/api/resume", json={"code": "AAAA-" * 5}).status_code == 404
    assert client.post("/api/resume", json={"code": 5}).status_code == 404
    reply = client.post("/api/resume", json={"code": f" {state['code'].lower()} "})
    assert reply.json()["trial"]["position"] == 2
    assert client.get("/api/state").json()["trial"]["position"] == 2
    replies = [client.post("/api/resume", json={"code": "x"}).status_code for _ in range(40)]
    assert replies[-1] == 429  # guessing is slow


def test_deleting_ones_answers(client: TestClient, pairs: Path) -> None:
    begin(client)
    send(client, 1)
    assert client.post("/api/delete", json={}).status_code == 422
    reply = client.post("/api/delete", json={"confirmed": True})
    assert reply.json() == {"phase": "deleted"}
    assert 'study_session=""' in reply.headers["set-cookie"]
    assert client.get("/api/state").json() == {"phase": "consent"}
    store = AnswerStore(Study.load(pairs))
    assert (store.answers(), store.visitors(), store.deleted()) == ([], [], 1)
    store.close()


def test_limits(pairs: Path) -> None:
    change(pairs, limits={"visitors": 2, "starts_per_hour": 3})
    with TestClient(create_app(pairs), headers=OURS) as client:
        replies = []
        for number in range(5):
            client.cookies.clear()
            body = {"agreed": True, "key": f"{number:032x}"}
            replies.append(client.post("/api/start", json=body).status_code)
        assert replies == [200, 200, 403, 429, 429]
    change(pairs, limits={"requests_per_minute": 5})
    with TestClient(create_app(pairs), headers=OURS) as client:
        replies = [client.get("/").status_code for _ in range(8)]
        assert replies[:5] == [200] * 5
        assert replies[-1] == 429
        assert client.get("/").headers["retry-after"] == "60"


def test_texts_are_shown_not_run(pairs: Path) -> None:
    change(
        pairs,
        texts={
            "title": "<script>alert(1)</script>",
            "intro": "<img src=x onerror=alert(2)> **bold** [go](javascript:alert(3))",
            "thanks": '"><svg onload=alert(4)>',
        },
    )
    config = load_config(pairs)
    question = replace(config.questions[0], text="'\"><b>?", labels=("<i>1", "'2"))
    text = as_toml(replace(config, questions=(question,)))
    (pairs / "study.toml").write_text(text, "utf-8")
    with TestClient(create_app(pairs), headers=OURS) as client:
        page = client.get("/").text
    for bad in ("<script>alert", "<img", "<svg", "<b>", "<i>", 'href="javascript'):
        assert bad not in page
    assert "<strong>bold</strong>" in page


def test_turing_tells_the_score(tmp_path: Path, videos: Path) -> None:
    folder = tmp_path / "t"
    init_study(folder, "turing", [videos / "ours", videos / "theirs"], VideoOptions(link=True))
    change(folder, playback={"must_watch": False}, trials={"count": 5})
    with TestClient(create_app(folder), headers=OURS) as client:
        state = begin(client)
        while state["phase"] == "trial":
            body = {
                "position": state["trial"]["position"],
                "answers": {"real": "real"},
                "responseMs": 1,
            }
            reply = client.post("/api/answer", json=body).json()
            assert reply["feedback"] == ""
            state = reply["state"]
        store = AnswerStore(Study.load(folder))
        reals = sum(a.trial.expected == "real" for a in store.answers())
        store.close()
        assert state["score"] == {"right": reals, "of": 5}


def test_lip_reading_over_the_interface(tmp_path: Path, videos: Path) -> None:
    folder = tmp_path / "l"
    init_study(folder, "intelligibility", [videos / "ours"])
    change(folder, playback={"must_watch": False}, trials={"count": 3, "catch": 1})
    with TestClient(create_app(folder), headers=OURS) as client:
        page = client.get("/").text
        assert "zero" in page
        state = begin(client)
        told = 0
        while state["phase"] == "trial":
            words = state["trial"].get("instead", "bin blue at a one now")
            told += "instead" in state["trial"]
            body = {
                "position": state["trial"]["position"],
                "answers": {"words": words.split()},
                "responseMs": 1,
            }
            state = client.post("/api/answer", json=body).json()["state"]
        assert told == 1


def test_a_database_that_goes_away_is_no_500(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(client)
    study = client.app.state.study  # type: ignore[attr-defined]
    from stillspeak.errors import StudyError

    def refuse(*_: object, **__: object) -> None:
        raise StudyError("gone")

    monkeypatch.setattr(study.store, "answer", refuse)
    reply = send(client, 1)
    assert reply.status_code == 503
    assert "try again" in reply.json()["message"]


def test_health(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_defaults_of_limits_let_a_class_take_part() -> None:
    assert Limits().starts_per_hour >= 30
