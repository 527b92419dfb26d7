"""Where files lie, and that they go."""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from stillspeak.web.settings import ServeSettings
from stillspeak.web.studio.jobs import file_argument
from stillspeak.web.studio.storage import GoneError, Item, Storage, StorageFullError
from stillspeak.web.studio.uploads import MAX_NAME, shown_name

KIB = 1024


def make(root: Path, **changes: float) -> Storage:
    values = {"max_items": 4, "max_upload_bytes": KIB, "max_stored_bytes": 1024 * KIB}
    storage = Storage(ServeSettings(folder=root, **(values | changes)))  # type: ignore[arg-type]
    storage.open()
    return storage


def put(storage: Storage, content: bytes = b"x") -> Item:
    with storage.new_folder(len(content)) as (name, folder):
        (folder / "source").write_bytes(content)
        return storage.add(Item(name, folder))


def test_items_are_private_and_their_names_cannot_be_guessed(tmp_path: Path):
    storage = make(tmp_path)
    items = [put(storage) for _ in range(3)]
    assert len({item.id for item in items}) == 3
    assert all(len(item.id) == 24 for item in items)
    for folder in (storage.folder, items[0].folder):
        assert folder is not None
        assert folder.stat().st_mode & 0o777 == 0o700
    storage.close()
    assert list(tmp_path.iterdir()) == []


def test_an_item_goes_when_its_time_is_up(tmp_path: Path):
    storage = make(tmp_path)
    item, other = put(storage), put(storage)
    item.expires = time.monotonic() - 1
    with pytest.raises(GoneError):
        storage.get(Item, item.id)
    storage.sweep()
    assert not item.folder.exists()
    assert storage.get(Item, other.id) is other
    assert len(storage) == 1
    storage.close()


def test_what_a_job_needs_stays_until_the_job_is_over(tmp_path: Path):
    class Busy(Item):
        needs = ()

    storage = make(tmp_path)
    item, dropped = put(storage), put(storage)
    with storage.new_folder() as (name, folder):
        busy = storage.add(Busy(name, folder))
    busy.needs = (item, dropped)
    item.expires = 0
    storage.remove(dropped)
    storage.sweep()
    assert storage.get(Item, item.id) is item
    with pytest.raises(GoneError, match="this file is not there"):
        storage.get(Item, dropped.id)  # nobody else gets it any more
    assert item.folder.exists() and dropped.folder.exists()
    busy.needs = ()
    storage.sweep()
    assert not item.folder.exists() and not dropped.folder.exists()
    storage.close()


def test_items_and_bytes_are_bounded(tmp_path: Path):
    storage = make(tmp_path)
    put(storage, bytes(600 * KIB))
    with pytest.raises(StorageFullError), storage.new_folder(500 * KIB):
        pass
    for _ in range(3):
        put(storage)
    with pytest.raises(StorageFullError), storage.new_folder():
        pass
    storage.close()
    with pytest.raises(StorageFullError, match="stopping"), storage.new_folder():
        pass


def test_room_that_was_given_back_can_be_used(tmp_path: Path):
    storage = make(tmp_path)
    with pytest.raises(RuntimeError), storage.new_folder(1024 * KIB) as (_, folder):
        with pytest.raises(StorageFullError), storage.new_folder(1):
            pass
        raise RuntimeError
    assert not folder.exists()
    put(storage, bytes(1000 * KIB))
    storage.close()


def test_another_kind_is_not_found(tmp_path: Path):
    class Other(Item):
        pass

    storage = make(tmp_path)
    with pytest.raises(GoneError):
        storage.get(Other, put(storage).id)
    storage.close()


def test_a_new_server_removes_what_a_dead_one_left_and_nothing_else(tmp_path: Path):
    alive = make(tmp_path)
    mine = put(alive)
    dead = tmp_path / ".stillspeak.dead.partial"
    dead.mkdir()
    (dead / "photo").write_bytes(b"x")
    target = tmp_path / "else"
    target.mkdir()
    (target / "photo").write_bytes(b"x")
    link = tmp_path / ".stillspeak.link.partial"
    link.symlink_to(target)
    other = make(tmp_path)
    assert not dead.exists()
    assert mine.folder.exists() and link.is_symlink() and (target / "photo").exists()
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


@pytest.mark.e2e
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
    assert shlex.join([file_argument(name)]) == word
