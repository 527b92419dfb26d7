"""The server as a process: many at once, and killed in the middle."""

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stillspeak.study.config import as_toml
from stillspeak.study.kinds import Study
from stillspeak.study.store import AnswerStore
from support.study import paper_study

pytestmark = pytest.mark.e2e

pytest.importorskip("fastapi", reason="fastapi is not installed (extra: serve)")
pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed (extra: study)")

HEADERS = {"Content-Type": "application/json", "X-Study": "1"}


def make(folder: Path, items: int = 30, **trials: int) -> None:
    config = paper_study(folder, "turing", items=items, catches=0, **trials).config
    config = replace(
        config,
        playback=replace(config.playback, must_watch=False),
        limits=replace(config.limits, starts_per_hour=0, requests_per_minute=0),
    )
    (folder / "study.toml").write_text(as_toml(config), "utf-8")


def launch(folder: Path, port: int = 0, *more: str) -> tuple[subprocess.Popen[str], int]:
    """Start a server; the port where it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stillspeak", "study", "serve", str(folder), "--port", str(port),
         *more],
        stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    if not address:
        process.kill()
        process.wait()
        raise AssertionError("the server did not start")
    return process, int(address.rstrip("/").rsplit(":", 1)[1])


@contextmanager
def serving(folder: Path, *more: str) -> Iterator[int]:
    process, port = launch(folder, 0, *more)
    try:
        yield port
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Rater:
    """A browser without a screen: keeps its cookie, sends again what got no reply."""

    def __init__(self, port: int, number: int) -> None:
        self.port = port
        self.key = f"{number:032x}"
        self.cookie = ""
        self.connection: http.client.HTTPConnection | None = None
        self.acknowledged: dict[int, str] = {}
        self.tries = 0

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            self.tries += 1
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                headers = HEADERS | ({"Cookie": self.cookie} if self.cookie else {})
                method = "GET" if body is None else "POST"
                data = None if body is None else json.dumps(body)
                self.connection.request(method, path, data, headers)
                reply = self.connection.getresponse()
                text = reply.read()
                if reply.status == 503:
                    continue
                assert reply.status == 200, (reply.status, text)
                if reply.getheader("set-cookie"):
                    self.cookie = reply.getheader("set-cookie", "").split(";")[0]
                told: dict[str, Any] = json.loads(text)
                return told
            except (OSError, http.client.HTTPException):
                if self.connection is not None:
                    self.connection.close()
                self.connection = None
                time.sleep(0.05)
        raise AssertionError("no reply for two minutes")

    def go(self, *, twice: bool = False, progress: threading.Semaphore | None = None) -> str:
        state = self.ask("/api/start", {"agreed": True, "key": self.key})
        chance = random.Random(self.key)
        while state["phase"] == "trial":
            position = state["trial"]["position"]
            value = chance.choice(("real", "fake"))
            body = {"position": position, "answers": {"real": value}, "responseMs": 7}
            told = self.ask("/api/answer", body)
            assert position not in self.acknowledged
            self.acknowledged[position] = value
            if twice:
                again = self.ask("/api/answer", body | {"answers": {"real": "real"}})
                assert again["again"] is True
            if progress is not None:
                progress.release()
            state = told["state"]
        if self.connection is not None:
            self.connection.close()
        return str(state["code"])


def check_all_there(folder: Path, raters: list[Rater], each: int, database: str | None) -> None:
    store = AnswerStore(Study.load(folder), database)
    answers, visitors = store.answers(), store.visitors()
    assert len(visitors) == len(raters)
    assert all(v.finished is not None and v.answers == each for v in visitors)
    assert len(answers) == len(raters) * each
    assert set(Counter((a.session, a.position) for a in answers).values()) == {1}
    for rater in raters:
        session = store.find(store.code_for(rater.key))
        assert session is not None
        mine = {a.position: a.values["real"] for a in store.answers(session)}
        assert mine == rater.acknowledged
    # Balance held too: what every visitor was shown differs little.
    shown = Counter(a.trial.first for a in answers)
    assert max(shown.values()) - min(shown.values()) <= max(4, len(answers) // 25)
    store.close()


def two_hundred(folder: Path, database: str | None) -> None:
    make(folder, count=3)
    with serving(folder, *(["--database", database] if database else [])) as port:
        raters = [Rater(port, number) for number in range(200)]
        with ThreadPoolExecutor(200) as pool:
            codes = list(pool.map(lambda r: r.go(twice=int(r.key, 16) % 4 == 0), raters))
    assert len(set(codes)) == 200
    check_all_there(folder, raters, 3, database)


def test_two_hundred_raters_at_once_lose_nothing(tmp_path: Path) -> None:
    two_hundred(tmp_path / "s", None)


@pytest.mark.e2e
def test_two_hundred_raters_on_postgresql(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres")
    two_hundred(tmp_path / "s", request.getfixturevalue("new_postgres_database")(url))


def killed_again_and_again(folder: Path, kills: int, raters: int, trials: int) -> None:
    """kill -9 loses no acknowledged answer, stores none twice, and everybody goes on."""
    make(folder, max(30, trials), count=trials)
    process, port = launch(folder)
    each = raters * trials // (kills + 1)  # answers between kills, so that all come in time
    try:
        people = [Rater(port, number) for number in range(raters)]
        progress = threading.Semaphore(0)
        with ThreadPoolExecutor(raters) as pool:
            running = [pool.submit(r.go, progress=progress) for r in people]
            chance = random.Random(0)
            for _ in range(kills):
                for _ in range(chance.randint(each // 4, each)):
                    assert progress.acquire(timeout=60)
                time.sleep(chance.random() * 0.01)
                process.send_signal(signal.SIGKILL)
                process.wait()
                process, _ = launch(folder, port)
            for one in running:
                one.result(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert sum(r.tries for r in people) > sum(1 + len(r.acknowledged) for r in people)
    check_all_there(folder, people, trials, None)


def test_killed_in_the_middle_again_and_again(tmp_path: Path) -> None:
    killed_again_and_again(tmp_path / "s", 3, 6, 20)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_killed_in_the_middle_forty_times(tmp_path: Path) -> None:
    begin = time.monotonic()
    killed_again_and_again(tmp_path / "s", 40, 12, 55)
    sys.stdout.write(f"\nstudy: 40 kills, 660 answers, {time.monotonic() - begin:.0f} s\n")


def test_two_servers_of_one_study(tmp_path: Path) -> None:
    """Two processes on one database, as behind a balancer, and a visitor who changes over."""
    folder = tmp_path / "s"
    make(folder, count=6)
    with serving(folder) as first, serving(folder) as second:
        raters = [Rater((first, second)[number % 2], number) for number in range(16)]
        with ThreadPoolExecutor(16) as pool:
            codes = list(pool.map(lambda r: r.go(twice=int(r.key, 16) % 4 == 0), raters))
        there = Rater(second, 0)  # the first one's key, at the other server
        assert there.ask("/api/start", {"agreed": True, "key": there.key})["code"] == codes[0]
    assert len(set(codes)) == 16
    check_all_there(folder, raters, 6, None)


def test_the_end_comes_by_a_signal_and_quietly(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    make(folder, count=3)
    process, port = launch(folder)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    connection.close()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert out == ""  # no log of requests
