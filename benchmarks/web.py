"""From `stillspeak serve` to a playing video in the browser, timed by a script that clicks.

    python benchmarks/web.py [--runs 3] [--cold] [--output results.json]

Each run starts the server in a process of its own and Debian's chromium (headless, through
playwright) in a fresh profile, opens the page, presses "Try it with the samples" and waits until
the video's time advances. Times are seconds since the server's process was started:

- `listening`: its address is printed; the browser opens it then
- `page`: the page can be used
- `looked`: the portrait's face is found and the sound decoded; the model was loaded meanwhile
- `made`: the video is finished
- `playing`: it plays

and `again` is a second video on the same page, from the press to the play; `server_cpu` is the
server's CPU time from its start to its end, both videos included. The portrait is skimage's
astronaut (512 x 512 pixels), the sound the bundled sentence (7.1 s). `--cold` drops the files of
the system's page cache before each run, where the system lets it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 180.0
"""Seconds after which a run is given up."""


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="drop the page cache before each run")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("web: chromium is not installed; apt-get install chromium")
    rows = []
    for _ in range(arguments.runs):
        if arguments.cold:
            drop_page_cache()
        rows.append(run(chromium))
        print(json.dumps(rows[-1]), flush=True)
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| | median | least | most |\n| --- | --- | --- | --- |")
    for name in rows[0]:
        values = [row[name] for row in rows]
        median = statistics.median(values)
        print(f"| {name} | {median:.1f} s | {min(values):.1f} s | {max(values):.1f} s |")
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1))


def drop_page_cache() -> None:
    """Let the system forget the files that it has read."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as error:
        sys.exit(f"web: the page cache cannot be dropped ({error.strerror}); run as root")


def run(chromium: str) -> dict[str, float]:
    """One server, one browser, two videos; seconds by name."""
    from playwright.sync_api import sync_playwright

    times: dict[str, float] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(1000 * PATIENCE)
        began = time.perf_counter()
        server = subprocess.Popen(
            [sys.executable, "-m", "stillspeak", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )

        def note(name: str, since: float = began) -> None:
            times[name] = round(time.perf_counter() - since, 2)

        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[0]
            note("listening")
            page.goto(url)
            page.wait_for_selector("html[data-ready]")
            note("page")
            page.click("#try")
            page.wait_for_selector("#portrait.ready")
            page.wait_for_selector("#speech.ready")
            note("looked")
            page.wait_for_selector("#result", state="visible")
            note("made")
            wait(page, playing)
            note("playing")
            pressed = time.perf_counter()
            page.click("#again")
            page.wait_for_selector("#result", state="hidden")
            page.wait_for_selector("#result", state="visible")
            wait(page, playing)
            note("again", pressed)
        finally:
            server.terminate()
            _, _, used = os.wait4(server.pid, 0)
            browser.close()
    return times | {"server_cpu": round(used.ru_utime + used.ru_stime, 2)}


def playing(page: Any) -> bool:
    """Whether the video's time advances."""
    script = "(v => !v.paused && v.currentTime > 0)(document.getElementById('video'))"
    return bool(page.evaluate(script))


def wait(page: Any, condition: Callable[[Any], bool]) -> None:
    """Wait for a condition, looked at 50 times a second."""
    end = time.perf_counter() + PATIENCE
    while not condition(page):
        if time.perf_counter() > end:
            sys.exit("web: the video did not play in time")
        page.wait_for_timeout(20)


if __name__ == "__main__":
    main()
