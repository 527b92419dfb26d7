"""Where files lie, and that they go."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from stillspeak.web.names import MAX_NAME, file_argument, shown_name
from stillspeak.web.studio import storage as files
from stillspeak.web.studio.storage import FullError, Item, Store


def make(root: Path, **changes: float) -> Store:
    values = {"keep_seconds": 60.0, "max_items": 3, "max_bytes": 1000}
    store = Store(root, **(values | changes))  # type: ignore[arg-type]
    store.open()
    return store


def put(store: Store, content: bytes = b"x") -> Item:
    name, folder = store.new_folder(len(content))
    (folder / "source").write_bytes(content)
    return store.add(Item(name, folder, store.expiry()))


def test_items_are_private_and_their_names_cannot_be_guessed(tmp_path: Path):
    store = make(tmp_path)
    items = [put(store) for _ in range(3)]
    assert len({item.id for item in items}) == 3
    assert all(len(item.id) == 24 for item in items)
    for folder in (store.folder, items[0].folder):
        assert folder is not None
        assert folder.stat().st_mode & 0o777 == 0o700
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_an_item_goes_when_its_time_is_up(tmp_path: Path):
    store = make(tmp_path)
    item, other = put(store), put(store)
    item.expires = time.monotonic() - 1
    assert store.get(Item, item.id) is None
    store.sweep()
    assert not item.folder.exists()
    assert store.get(Item, other.id) is other
    assert len(store) == 1
    store.close()


def test_what_a_job_needs_stays_until_it_is_released(tmp_path: Path):
    store = make(tmp_path)
    item, dropped = put(store), put(store)
    store.use(item, dropped)
    item.expires = 0
    store.remove(dropped)
    store.sweep()
    assert store.get(Item, item.id) is item
    assert store.get(Item, dropped.id) is None  # nobody else gets it any more
    assert item.folder.exists() and dropped.folder.exists()
    store.release(item, dropped)
    assert not item.folder.exists() and not dropped.folder.exists()
    store.close()


def test_items_and_bytes_are_bounded(tmp_path: Path):
    store = make(tmp_path)
    put(store, b"x" * 600)
    with pytest.raises(FullError):
        store.new_folder(500)
    put(store)
    put(store)
    with pytest.raises(FullError):
        store.new_folder()
    store.close()
    with pytest.raises(FullError, match="stopping"):
        store.new_folder()


def test_room_that_was_given_back_can_be_used(tmp_path: Path):
    store = make(tmp_path, max_items=1)
    name, folder = store.new_folder(1000)
    with pytest.raises(FullError):
        store.new_folder()
    store.drop_folder(name, folder)
    assert not folder.exists()
    put(store)
    store.close()


def test_another_kind_is_not_found(tmp_path: Path):
    class Other(Item):
        pass

    store = make(tmp_path)
    assert store.get(Other, put(store).id) is None
    store.close()


def test_a_new_server_removes_what_a_dead_one_left_and_nothing_else(tmp_path: Path):
    alive = make(tmp_path)
    mine = put(alive)
    dead = tmp_path / f"{files.PREFIX}dead"
    dead.mkdir()
    (dead / "lock").write_bytes(b"")
    (dead / "photo").write_bytes(b"x")
    newborn = tmp_path / f"{files.PREFIX}newborn"
    newborn.mkdir()
    old = tmp_path / f"{files.PREFIX}old"
    old.mkdir()
    os.utime(old, (0, 0))
    target = tmp_path / "else"
    target.mkdir()
    (target / "lock").write_bytes(b"")
    link = tmp_path / f"{files.PREFIX}link"
    link.symlink_to(target)
    other = make(tmp_path)
    assert not dead.exists() and not old.exists()
    assert mine.folder.exists() and newborn.exists() and link.is_symlink()
    assert (target / "lock").exists()
    alive.close()
    other.close()


@pytest.fixture
def config(tmp_path: Path, weights_file: Path) -> Path:
    folder = tmp_path / "kept"
    folder.mkdir()
    path = tmp_path / "serve.toml"
    path.write_text(
        f'folder = "{folder}"\nport = 0\npreload = false\nmodels = ["{weights_file}"]\n'
        "live_sessions = 0\n"
    )
    return path


def start(config: Path) -> tuple[subprocess.Popen[str], str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "stillspeak", "serve", "--config", str(config)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    return server, server.stdout.readline().split()[0]


def test_files_go_when_the_server_stops_and_when_one_starts_after_a_kill(
    config: Path, sound_bytes: bytes
):
    folder = config.parent / "kept"
    server, url = start(config)
    try:
        assert httpx.post(f"{url}api/sounds", content=sound_bytes, timeout=60).status_code == 201
        assert len(list(folder.rglob("source"))) == 1
    finally:
        server.kill()
        server.wait(30)
    assert len(list(folder.rglob("source"))) == 1
    server, url = start(config)
    try:
        assert len(list(folder.iterdir())) == 1  # its own
        assert not list(folder.rglob("source"))
        assert httpx.post(f"{url}api/sounds", content=sound_bytes, timeout=60).status_code == 201
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        assert list(folder.iterdir()) == []
    finally:
        server.kill()
        server.wait(30)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\photo.jpg", "photo.jpg"),
        ("a\0b\r\nSet-Cookie: x.jpg", "abSet-Cookie: x.jpg"),
        ("\u202egpj.exe", "gpj.exe"),
        ("  two   spaces .png ", "two spaces .png"),
        ("Straße 漢字.png", "Straße 漢字.png"),
        ("\ud800.png", ".png"),
        ("..", "thing"),
        ("/", "thing"),
        ("", "thing"),
        (None, "thing"),
    ],
)
def test_names_are_shown_as_one_harmless_line(given: str | None, shown: str):
    assert shown_name(given, "thing") == shown


def test_long_names_are_cut_before_their_suffix():
    shown = shown_name("x" * 500 + ".jpg", "thing")
    assert len(shown) == MAX_NAME
    assert shown.endswith("x….jpg")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("a.png", "a.png"),
        ("my photo.png", "'my photo.png'"),
        ("-", "./-"),
        ("--help.png", "./--help.png"),
        ("$(rm x);'.png", "'$(rm x);'\"'\"'.png'"),
    ],
)
def test_names_are_quoted_for_a_shell(name: str, word: str):
    assert file_argument(name) == word
