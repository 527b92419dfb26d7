"""The API from an upload to a video, and all that can go otherwise."""

import io
import re
import shlex
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from typer.testing import CliRunner

from stillspeak.cli import app as cli
from stillspeak.media.marks.inspection import inspect_file
from stillspeak.media.video import iter_frames, probe_video
from stillspeak.web.settings import ServeSettings
from stillspeak.web.studio import uploads
from stillspeak.web.studio.model_cache import ModelCache
from stillspeak.web.studio.uploads import PictureItem, SoundItem
from support.animate import (
    masked_portrait,
    portrait,
    save_lively,
    speech,
    use_shared_detector,
    write_picture,
    write_wav,
)
from support.web import URL, finished, kept

ESPEAK = shutil.which("espeak-ng")


def picture(client: TestClient, content: bytes, name: str = "me.jpg") -> dict[str, Any]:
    answer = client.post("/api/pictures", params={"name": name}, content=content)
    assert answer.status_code == 201, answer.text
    return answer.json()


def sound(client: TestClient, content: bytes, name: str = "hello.wav") -> dict[str, Any]:
    answer = client.post("/api/sounds", params={"name": name}, content=content)
    assert answer.status_code == 201, answer.text
    return answer.json()


def refused(answer: Any, status: int, said: str) -> str:
    """Checks an error's form and returns its message."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"code", "message"}
    assert said in error["message"]
    assert "\n" not in error["message"] and ".partial" not in error["message"]
    return error["message"]


def uploaded(client: TestClient, picture_bytes: bytes, sound_bytes: bytes) -> dict[str, str]:
    return {
        "picture": picture(client, picture_bytes)["id"],
        "sound": sound(client, sound_bytes)["id"],
    }


@pytest.fixture
def both(client: TestClient, picture_bytes: bytes, sound_bytes: bytes) -> dict[str, str]:
    return uploaded(client, picture_bytes, sound_bytes)


@pytest.fixture
def gate(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Jobs do not go on before it is set."""
    models = client.app.state.studio.models  # type: ignore[attr-defined]
    opened, load = threading.Event(), models.animator

    def wait(name: str) -> Any:
        assert opened.wait(60)
        return load(name)

    monkeypatch.setattr(models, "animator", wait)
    return opened


def test_a_covered_mouth_is_warned_of_at_the_upload_and_by_the_job(
    client: TestClient, sound_bytes: bytes
):
    file = io.BytesIO()
    PIL.Image.fromarray(masked_portrait()).save(file, "PNG")
    still = picture(client, file.getvalue())
    (warning,) = still["faces"][0]["warnings"]
    assert warning["code"] == "mouth_covered" and "covered" in warning["message"]
    speech = sound(client, sound_bytes)
    asked = client.post("/api/jobs", json={"picture": still["id"], "sound": speech["id"]})
    job = finished(client, asked.json()["id"])
    assert job["state"] == "done" and job["warnings"] == [warning]


def test_a_picture_and_a_sound_become_a_video(
    client: TestClient, picture_bytes: bytes, sound_bytes: bytes, tmp_path: Path
):
    still = picture(client, picture_bytes)
    assert (still["width"], still["height"], still["name"]) == (256, 256, "me.jpg")
    (face,) = still["faces"]
    left, top, width, height = face["box"]
    assert 0 < left < left + width < 1 and 0 < top < top + height < 1
    assert len(face["crop"]) == 4 and face["problem"] is None and face["warnings"] == []
    for url in (still["preview_url"], face["crop_url"]):
        answer = client.get(url)
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["cache-control"] == "private, no-store"
        assert answer.content.startswith(b"\xff\xd8\xff")
    original = client.get(still["original_url"])
    assert original.content == picture_bytes
    assert original.headers["content-type"] == "application/octet-stream"
    assert original.headers["content-disposition"] == 'attachment; filename="me.jpg"'
    speech = sound(client, sound_bytes)
    assert speech["seconds"] == 1.0 and max(speech["peaks"]) == 1.0
    assert client.get(speech["audio_url"]).content[:4] == b"RIFF"
    assert client.get(f"/api/sounds/{speech['id']}").json()["peaks"] == speech["peaks"]
    assert client.get(f"/api/pictures/{still['id']}").json()["faces"] == still["faces"]

    asked = client.post("/api/jobs", json={"picture": still["id"], "sound": speech["id"]})
    assert asked.status_code == 202
    job = finished(client, asked.json()["id"])
    assert job["state"] == "done" and job["error"] is None
    assert (job["done"], job["total"]) == (25, 25)
    made = job["video"]
    assert (made["frames"], made["fps"], made["width"], made["height"]) == (25, 25, 256, 256)

    video = client.get(made["url"])
    assert video.headers["content-type"] == "video/mp4"
    assert len(video.content) == made["bytes"]
    part = client.get(made["url"], headers={"range": "bytes=4-7"})
    assert part.status_code == 206 and part.content == video.content[4:8] == b"ftyp"
    saved = client.get(made["url"], params={"download": True})
    assert saved.headers["content-disposition"] == 'attachment; filename="me-speaks.mp4"'
    file = tmp_path / "video.mp4"
    file.write_bytes(video.content)
    info = probe_video(file)
    assert (info.width, info.height, info.fps, info.has_audio) == (256, 256, 25.0, True)

    for kind, name in (("jobs", job["id"]), ("pictures", still["id"]), ("sounds", speech["id"])):
        assert client.delete(f"/api/{kind}/{name}").status_code == 204
        refused(client.get(f"/api/{kind}/{name}"), 404, "not there")
    assert kept(client.app) == []


def test_the_command_line_makes_the_same_video(
    make_app: Callable[..., FastAPI],
    picture_bytes: bytes,
    sound_bytes: bytes,
    weights_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    wish = {"crop": True, "size": 192, "seed": 7, "blink": 2.5, "expression": 0, "head_motion": 1.3}
    wish["mood"] = "happy:0.5, sad@0.6"
    # Without marks: the watermark's identifier depends on the bytes of the picture's file.
    with TestClient(make_app(mark=False), base_url=URL) as client:
        both = uploaded(client, picture_bytes, sound_bytes)
        job = finished(client, client.post("/api/jobs", json=both | wish).json()["id"])
        assert job["state"] == "done"
        (tmp_path / "served.mp4").write_bytes(client.get(job["video"]["url"]).content)
    # The visitor has these files, and the operator's weights under their own name.
    (tmp_path / "me.jpg").write_bytes(picture_bytes)
    (tmp_path / "hello.wav").write_bytes(sound_bytes)
    shutil.copy(weights_file, tmp_path / weights_file.name)
    monkeypatch.chdir(tmp_path)
    use_shared_detector(monkeypatch)
    program, *words = shlex.split(job["command"])
    assert program == "stillspeak"
    outcome = CliRunner().invoke(cli.app, words)
    assert outcome.exit_code == 0, outcome.output
    served, drawn = (np.stack(list(iter_frames(name))) for name in ("served.mp4", "video.mp4"))
    assert served.shape == drawn.shape == (25, 192, 144, 3)
    # The small random model makes more of bfloat16's last place than a trained one.
    assert np.abs(served.astype(int) - drawn).mean() < 3


def test_two_faces_of_a_picture_speak(
    make_app: Callable[..., FastAPI], sound_bytes: bytes, tmp_path: Path
):
    model = save_lively(tmp_path / "layers.safetensors", "layers")
    couple = np.concatenate((portrait(), portrait()[:, ::-1]), axis=1)
    seen = write_picture(tmp_path / "couple.png", couple).read_bytes()
    longer = write_wav(tmp_path / "longer.wav", speech(1.4)).read_bytes()
    with TestClient(make_app(models=(str(model),)), base_url=URL) as client:
        both = uploaded(client, seen, sound_bytes)
        other = client.post("/api/sounds?name=longer.wav", content=longer).json()["id"]
        asked = both | {"face": 1, "others": {"0": other}, "size": 128}
        job = finished(client, client.post("/api/jobs", json=asked).json()["id"])
        assert job["state"] == "done", job["error"]
        assert job["video"]["frames"] == 35
        assert " --face 1,0 --speech-for 0=longer.wav " in job["command"]
        listens = client.post("/api/jobs", json=asked | {"others": {"0": None}}).json()
        assert " --face 1,0 --" in listens["command"] and "--speech-for" not in listens["command"]
        assert finished(client, listens["id"])["video"]["frames"] == 25
        twice = client.post("/api/jobs", json=asked | {"others": {"1": other}}).json()
        assert finished(client, twice["id"])["error"] == "face 1 is named twice"


@pytest.mark.e2e
def test_videos_are_marked_unless_the_operator_says_otherwise(
    make_app: Callable[..., FastAPI], picture_bytes: bytes, sound_bytes: bytes, tmp_path: Path
):
    found = {}
    for name, settings in (
        ("marked", {}),
        ("labelled", {"label": "AI-generated"}),
        ("bare", {"mark": False}),
    ):
        with TestClient(make_app(**settings), base_url=URL) as client:
            both = uploaded(client, picture_bytes, sound_bytes)
            job = finished(client, client.post("/api/jobs", json=both).json()["id"])
            path = tmp_path / f"{name}.mp4"
            path.write_bytes(client.get(job["video"]["url"]).content)
        found[name] = inspect_file(path)
        assert ("--no-mark" in job["command"]) == (name == "bare")
        assert ("--label-text AI-generated" in job["command"]) == (name == "labelled")
    assert {name: one.verdict for name, one in found.items()} == {
        "marked": "intact",
        "labelled": "intact",
        "bare": "unmarked",
    }
    marked = found["marked"]
    assert marked.credentials is not None
    assert marked.watermark.identifier == marked.credentials.watermark is not None
    assert marked.credentials.model == "lively"


def test_a_plain_wish_has_a_plain_command(client: TestClient, both: dict[str, str]):
    job = client.post("/api/jobs", json=both).json()
    assert job["command"] == (
        "stillspeak animate me.jpg hello.wav --model lively.safetensors -o video.mp4"
    )


def test_names_cannot_break_out_of_the_command_or_the_headers(
    client: TestClient, picture_bytes: bytes, sound_bytes: bytes
):
    nasty = "../-x$(touch y)`z`'\";\r\nX-Evil: 1\n.jpg"
    still = picture(client, picture_bytes, nasty)
    speech = sound(client, sound_bytes, "-o")
    asked = client.post("/api/jobs", json={"picture": still["id"], "sound": speech["id"]}).json()
    words = shlex.split(asked["command"])
    assert words[:2] == ["stillspeak", "animate"]
    assert words[2] == "./" + still["name"] and words[3] == "./-o"
    assert "\n" not in asked["command"]
    finished(client, asked["id"])
    for url in (still["original_url"], f"/api/jobs/{asked['id']}/video?download=true"):
        answer = client.get(url)
        assert answer.status_code == 200
        assert "x-evil" not in answer.headers
        assert answer.headers["content-disposition"].startswith("attachment;")


def test_a_larger_picture_than_the_server_draws_is_made_smaller(
    make_app: Callable[..., Any], picture_bytes: bytes, sound_bytes: bytes
):
    with TestClient(make_app(max_size=128), base_url=URL) as client:
        wish = {
            "picture": picture(client, picture_bytes)["id"],
            "sound": sound(client, sound_bytes)["id"],
        }
        refused(client.post("/api/jobs", json=wish | {"size": 256}), 422, "at most 128")
        job = finished(client, client.post("/api/jobs", json=wish).json()["id"])
        assert "--size 128" in job["command"]
        assert job["video"]["height"] == 128


def test_which_of_several_faces(client: TestClient, sound_bytes: bytes, picture_bytes: bytes):
    import io

    import PIL.Image

    from support.animate import portrait

    one = PIL.Image.fromarray(portrait())
    group = PIL.Image.new("RGB", (600, 256), (90, 90, 90))
    group.paste(one, (0, 0))
    group.paste(one.resize((200, 200)), (380, 30))
    file = io.BytesIO()
    group.save(file, "PNG")
    still = picture(client, file.getvalue(), "two.png")
    assert [face["index"] for face in still["faces"]] == [0, 1]
    first, second = (face["box"][0] for face in still["faces"])
    assert first < 0.5 < second
    wish = {"picture": still["id"], "sound": sound(client, sound_bytes)["id"]}
    assert "--face 1" in client.post("/api/jobs", json=wish | {"face": 1}).json()["command"]
    refused(client.post("/api/jobs", json=wish | {"face": 2}), 422, "no face number 2")
    refused(client.get(f"/api/pictures/{still['id']}/faces/2"), 404, "no face number 2")
    refused(client.get(f"/api/pictures/{still['id']}/faces/-1"), 404, "no face number -1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": "x"}, "seed"),
        ({"blink": 3.1}, "blink"),
        ({"expression": -0.1}, "expression"),
        ({"head_motion": "Infinity"}, "head_motion"),
        ({"mood": "sadly"}, "sadly"),
        ({"size": 63}, "size"),
        ({"size": 2000}, "size 2000 is more"),
        ({"size": 100_000}, "size"),
        ({"face": 1}, "no face number 1"),
        ({"others": {"1": None}}, "no face number 1"),
        ({"others": {"-1": None}}, "no face number -1"),
        ({"others": {"a": None}}, "others"),
        ({"model": "other"}, "choose from lively"),
        ({"model": "../../etc/passwd"}, "choose from lively"),
        ({"model": "\ud800"}, ""),
        ({"faces": 1}, "faces"),
        ({"\ud800": 1}, ""),
        ({"picture": "x" * 200}, "picture"),
        ({"picture": None}, "picture"),
    ],
)
def test_wishes_that_cannot_be_met(client: TestClient, both: dict[str, str], change: dict, said):
    import json

    body = json.dumps(both | change).encode()
    answer = client.post("/api/jobs", content=body, headers={"content-type": "application/json"})
    refused(answer, 422, said)
    assert client.get("/api/health").json()["items"] == 2


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a":' * 5000, b"NaN"])
@pytest.mark.parametrize("path", ["/api/jobs", "/api/speech"])
def test_bodies_that_are_no_wish(client: TestClient, body: bytes, path: str):
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert set(answer.json()["error"]) == {"code", "message"}


def test_json_that_says_it_is_a_form_is_not_read(client: TestClient, both: dict[str, str]):
    import json

    answer = client.post(
        "/api/jobs", content=json.dumps(both), headers={"content-type": "text/plain"}
    )
    assert answer.status_code == 422


@pytest.mark.parametrize("kind", ["pictures", "sounds", "jobs"])
@pytest.mark.parametrize(
    "name", ["x", "lock", "..%2f..%2fetc%2fpasswd", "%2e%2e", "A" * 24, "%00", "*"]
)
def test_only_who_knows_an_id_gets_anything(client: TestClient, kind: str, name: str):
    for tail in ("", "/preview", "/original", "/audio", "/video", "/faces/0"):
        assert client.get(f"/api/{kind}/{name}{tail}").status_code == 404
    assert client.delete(f"/api/{kind}/{name}").status_code in (404, 405)


def test_an_id_of_one_kind_is_none_of_another(client: TestClient, both: dict[str, str]):
    refused(client.get(f"/api/sounds/{both['picture']}"), 404, "this sound is not there")
    swapped = {"picture": both["sound"], "sound": both["picture"]}
    refused(client.post("/api/jobs", json=swapped), 404, "this picture is not there")


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapi.py"]
)
def test_only_static_files_are_served(client: TestClient, path: str):
    assert client.get(f"/static/{path}").status_code == 404


def test_jobs_wait_in_a_bounded_queue(
    make_app: Callable[..., Any],
    picture_bytes: bytes,
    sound_bytes: bytes,
    monkeypatch: pytest.MonkeyPatch,
):
    app = make_app(queue_length=2, queue_per_client=10)
    models = app.state.studio.models
    opened, load = threading.Event(), models.animator
    monkeypatch.setattr(models, "animator", lambda name: opened.wait(60) and load(name))
    with TestClient(app, base_url=URL) as client:
        wish = {
            "picture": picture(client, picture_bytes)["id"],
            "sound": sound(client, sound_bytes)["id"],
        }
        first = client.post("/api/jobs", json=wish).json()["id"]
        while client.get(f"/api/jobs/{first}").json()["state"] != "running":
            time.sleep(0.01)
        second, third = (client.post("/api/jobs", json=wish).json() for _ in range(2))
        assert (second["position"], third["position"]) == (1, 2)
        full = client.post("/api/jobs", json=wish)
        refused(full, 503, "2 videos are waiting already")
        assert int(full.headers["retry-after"]) > 0
        health = client.get("/api/health").json()
        assert health["queue"] == {"running": 1, "waiting": 2, "length": 2}
        assert health["items"] == 5  # nothing is left of the one that was refused
        refused(client.get(f"/api/jobs/{second['id']}/video"), 409, "not finished")
        # One that waits is cancelled at once; the next one moves up.
        assert client.delete(f"/api/jobs/{second['id']}").status_code == 204
        assert client.get(f"/api/jobs/{second['id']}").json()["state"] == "cancelled"
        assert client.get(f"/api/jobs/{third['id']}").json()["position"] == 1
        # What a job needs is not taken from it.
        for kind in ("picture", "sound"):
            assert client.delete(f"/api/{kind}s/{wish[kind]}").status_code == 204
        opened.set()
        assert finished(client, first)["state"] == "done"
        assert finished(client, third["id"])["state"] == "done"
        assert not [name for name in kept(app) if name.endswith("source")]


def test_one_client_does_not_fill_the_queue(
    client: TestClient, both: dict[str, str], gate: threading.Event
):
    answers = [client.post("/api/jobs", json=both) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [202] * 4 + [429]
    refused(answers[-1], 429, "4 of your videos are being made")
    gate.set()


def test_a_running_job_is_cancelled(client: TestClient, both: dict[str, str], gate: Any):
    job = client.post("/api/jobs", json=both).json()["id"]
    while client.get(f"/api/jobs/{job}").json()["state"] != "running":
        time.sleep(0.01)
    assert client.delete(f"/api/jobs/{job}").status_code == 204
    gate.set()
    answer = finished(client, job)
    assert answer["state"] == "cancelled" and answer["video"] is None
    refused(client.get(f"/api/jobs/{job}/video"), 409, "not finished")
    assert not [name for name in kept(client.app) if "video" in name or "part" in name]


def test_a_job_that_takes_too_long_is_stopped(
    make_app: Callable[..., Any], picture_bytes: bytes, sound_bytes: bytes, monkeypatch: Any
):
    app = make_app(job_seconds=1)
    models = app.state.studio.models
    load = models.animator
    monkeypatch.setattr(models, "animator", lambda name: time.sleep(1.1) or load(name))
    with TestClient(app, base_url=URL) as client:
        wish = {
            "picture": picture(client, picture_bytes)["id"],
            "sound": sound(client, sound_bytes)["id"],
        }
        job = finished(client, client.post("/api/jobs", json=wish).json()["id"])
        assert job["state"] == "failed"
        assert "longer than 1 s" in job["error"]


def test_a_failure_inside_is_told_without_its_insides(
    client: TestClient, both: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    def fail(name: str) -> Any:
        raise RuntimeError("secret /etc/path")

    monkeypatch.setattr(client.app.state.studio.models, "animator", fail)  # type: ignore[attr-defined]
    job = finished(client, client.post("/api/jobs", json=both).json()["id"])
    assert job["state"] == "failed"
    assert "secret" not in job["error"] and "inside the server" in job["error"]
    # The queue goes on.
    monkeypatch.undo()
    assert finished(client, client.post("/api/jobs", json=both).json()["id"])["state"] == "done"


def test_uploads_go_when_their_time_is_up(client: TestClient, both: dict[str, str]):
    store = client.app.state.studio.storage  # type: ignore[attr-defined]
    for kind, name in ((PictureItem, both["picture"]), (SoundItem, both["sound"])):
        store.get(kind, name).expires = 0.0
    refused(client.get(f"/api/pictures/{both['picture']}"), 404, "not there")
    refused(client.post("/api/jobs", json=both), 404, "not there")
    store.sweep()
    assert kept(client.app) == []


def test_the_server_sweeps_by_itself(make_app: Callable[..., Any], sound_bytes: bytes):
    with TestClient(make_app(keep_seconds=1), base_url=URL) as client:
        client.post("/api/sounds", content=sound_bytes)
        end = time.monotonic() + 30
        while kept(client.app):
            assert time.monotonic() < end
            time.sleep(0.05)


def test_the_samples_can_be_used_at_once(client: TestClient):
    info = client.get("/api/info").json()
    assert {sample["kind"] for sample in info["samples"]} == {"picture", "sound"}
    for sample in info["samples"]:
        answer = client.post(f"/api/samples/{sample['id']}")
        assert answer.status_code == 201
        if sample["kind"] == "picture":
            assert len(answer.json()["faces"]) == 1
            assert client.get(f"/static/samples/{sample['id']}.jpg").status_code == 200
        else:
            assert answer.json()["seconds"] > 1
    refused(client.post("/api/samples/none"), 404, "no such sample")


def test_what_a_page_needs_to_know(client: TestClient):
    info = client.get("/api/info").json()
    assert info["models"] == [{"name": "lively", "summary": "a weights file of this server"}]
    assert str(client.app.state.settings.folder) not in client.get("/api/info").text  # type: ignore[attr-defined]
    assert info["limits"]["seconds"] == 60
    assert client.get("/api/health").json()["status"] == "ok"


def test_released_models_are_offered_the_default_first():
    assert next(iter(ModelCache(ServeSettings()).offered())) == "layers"
    assert list(ModelCache(ServeSettings(models=("default",))).offered()) == ["layers"]


def test_few_models_stay_loaded(weights_file: Path, tmp_path: Path):
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for file in files:
        shutil.copy(weights_file, file)
    models = ModelCache(
        ServeSettings(models=tuple(map(str, files)), device="cpu", models_in_memory=2)
    )
    first = models.animator("a")
    assert models.animator("b") is not first
    assert models.animator("a") is first
    models.animator("c")
    assert models.loaded == ["a", "c"]
    assert models.animator("a") is first


def test_models_of_one_name_are_refused(weights_file: Path, tmp_path: Path):
    from stillspeak.errors import ConfigError

    other = tmp_path / "lively.safetensors"
    shutil.copy(weights_file, other)
    with pytest.raises(ConfigError, match="two models are called lively"):
        ModelCache(ServeSettings(models=(str(weights_file), str(other)))).offered()


def test_a_model_that_does_not_load_shows_in_the_health(
    make_app: Callable[..., Any], tmp_path: Path
):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    with TestClient(make_app(models=(str(broken),), preload=True), base_url=URL) as client:
        assert client.app.state.studio.ready.wait(60)  # type: ignore[attr-defined]
        answer = client.get("/api/health")
        assert answer.status_code == 503
        assert answer.json()["status"] == "failing"
        assert "broken.safetensors" in answer.json()["problem"]


def test_the_api_describes_itself_without_pages_from_elsewhere(client: TestClient):
    described = client.get("/api/openapi.json").json()
    assert {"/api/pictures", "/api/sounds", "/api/jobs", "/api/health"} <= set(described["paths"])
    body = described["paths"]["/api/pictures"]["post"]["requestBody"]["content"]
    assert list(body) == ["application/octet-stream"]
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_the_page_asks_nobody_else():
    from stillspeak.web.app import STATIC

    for file in (*STATIC.glob("*.*"), *(STATIC / "studio").iterdir()):
        text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//[\w-]+\.\w|@import", text), file.name
    page = (STATIC / "index.html").read_text("utf-8")
    # What the content security policy would not let pass.
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)


# --- text ---------------------------------------------------------------------------------------


@pytest.mark.skipif(ESPEAK is None, reason="espeak-ng is not installed")
def test_text_is_spoken(client: TestClient):
    info = client.get("/api/info").json()
    assert info["voices"][0]["id"] == "en-gb" and len(info["voices"]) > 50
    text = "--help; $(touch x) `y`\n it's me"
    answer = client.post("/api/speech", json={"text": text, "voice": "de", "speed": 200})
    assert answer.status_code == 201, answer.text
    spoken = answer.json()
    assert spoken["text"] == "--help; $(touch x) `y` it's me"
    assert spoken["seconds"] > 1
    still = client.post("/api/samples/collins-close").json()
    job = client.post("/api/jobs", json={"picture": still["id"], "sound": spoken["id"]}).json()
    first, second = job["command"].splitlines()
    assert shlex.split(first) == [
        *("espeak-ng", "-v", "de", "-s", "200", "-w", "speech.wav", "--", spoken["text"])
    ]
    assert shlex.split(second)[2:4] == ["collins-close.png", "speech.wav"]


@pytest.mark.skipif(ESPEAK is None, reason="espeak-ng is not installed")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": ""}, "nothing to speak"),
        ({"text": " ... "}, "nothing to speak"),
        ({"text": "x" * 601}, "601 characters"),
        ({"text": "\0"}, "nothing to speak"),
        ({"text": "99 " * 199, "speed": 80}, "longer than 60 s; cut it"),
        ({"voice": "xx-none"}, "no voice"),
        ({"voice": "../../etc/passwd"}, "no voice"),
        ({"voice": "--stdout"}, "no voice"),
        ({"speed": 79}, "speed"),
        ({"speed": 10_000}, "speed"),
        ({"file": "x"}, "file"),
    ],
)
def test_text_that_is_not_spoken(client: TestClient, change: dict, said: str):
    refused(client.post("/api/speech", json={"text": "hello"} | change), 422, said)
    assert kept(client.app) == []


def test_without_espeak_the_page_offers_no_text(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(uploads, "speaker", lambda: None)
    assert client.get("/api/info").json()["voices"] == []
    refused(client.post("/api/speech", json={"text": "hello"}), 503, "not installed")
    assert kept(client.app) == []
