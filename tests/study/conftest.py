"""A folder of little videos, a database of each sort, a server in a thread."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.study import GRID_NAMES, write_clip


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``ours`` and ``theirs`` with six little videos each, named as GRID names them."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(GRID_NAMES[:6]):
        write_clip(folder / "ours" / f"{name}.mp4", seed=number, title="ours, synthetic")
        write_clip(folder / "theirs" / f"{name}.mp4", seed=number + 7, title="theirs")
    return folder


def _postgres_program(name: str) -> str | None:
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(places[-1]) if places else None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server: STILLSPEAK_TEST_POSTGRES, or one started here on a socket."""
    given = os.environ.get("STILLSPEAK_TEST_POSTGRES")
    if given:
        yield given
        return
    initdb, server = _postgres_program("initdb"), _postgres_program("postgres")
    if initdb is None or server is None:
        pytest.skip("no PostgreSQL: set STILLSPEAK_TEST_POSTGRES or install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra: postgres)")
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = next((name for name in ("postgres", "nobody") if name in names), None)
        if user is None:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")
    with ExitStack() as stack:
        # A path short enough for a socket, which pytest's own need not be.
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg")))
        if user:
            shutil.chown(place, user)
        made = subprocess.run(
            [initdb, "-D", str(place / "data"), "-U", "study", "-A", "trust", "--no-sync"],
            capture_output=True, text=True, user=user, cwd=place, check=False,
        )  # fmt: skip
        if made.returncode:
            pytest.skip(f"initdb does not run here: {made.stderr.strip()[-200:]}")
        process = subprocess.Popen(
            [server, "-D", str(place / "data"), "-k", str(place), "-c", "listen_addresses="],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, cwd=place,
        )  # fmt: skip
        try:
            import psycopg

            for _ in range(200):
                try:
                    psycopg.connect(host=str(place), user="study", dbname="postgres").close()
                    break
                except psycopg.OperationalError:
                    if process.poll() is not None:
                        pytest.skip("the PostgreSQL server does not start here")
                    time.sleep(0.1)
            yield f"postgresql://study@/postgres?host={place}"
        finally:
            process.send_signal(2)  # a fast shutdown
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'some.db'}"
        return
    url: str = request.getfixturevalue("postgres")
    make: Callable[[str], str] = request.getfixturevalue("new_postgres_database")
    yield make(url)


@pytest.fixture
def new_postgres_database() -> Iterator[Callable[[str], str]]:
    """Makes a database of its own on a server, and removes it again."""
    made: list[tuple[str, str]] = []

    def run(url: str, statement: str) -> None:
        from sqlalchemy import create_engine, make_url, text

        parsed = make_url(url).set(drivername="postgresql+psycopg")
        engine = create_engine(parsed, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def make(url: str) -> str:
        from sqlalchemy import make_url

        name = f"study_{os.getpid()}_{time.monotonic_ns()}"
        run(url, f"CREATE DATABASE {name}")
        made.append((url, name))
        return make_url(url).set(database=name).render_as_string(hide_password=False)

    yield make
    for url, name in made:
        run(url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
