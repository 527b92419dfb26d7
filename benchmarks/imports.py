"""What it costs to import stillspeak, and to ask its command line something small.

    python benchmarks/imports.py [--repeats 11]

Each repetition is a process of its own, the files being in the system's cache by then. The clock
counts everything, the machine's other work too; the CPU column does not.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time

INSIDE = """
import time
clock, cpu = time.perf_counter(), time.process_time()
import {module}
print(time.perf_counter() - clock, time.process_time() - cpu)
"""

WHOLE = (["--version"], ["--help"], ["animate", "--help"], ["weights"])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| | clock, s | CPU, s |\n| --- | ---: | ---: |")
    for module in ("stillspeak", "stillspeak.cli.app", "stillspeak.animate"):
        row(f"`import {module}`", [inside(module) for _ in range(repeats)])
    for arguments in WHOLE:
        name = " ".join(["stillspeak", *arguments])
        row(f"`{name}`, the whole process", [whole(arguments) for _ in range(repeats)])


def row(name: str, measured: list[tuple[float, float]]) -> None:
    """Print the medians."""
    clock, cpu = (statistics.median(values) for values in zip(*measured, strict=True))
    print(f"| {name} | {clock:.3f} | {cpu:.3f} |", flush=True)


def inside(module: str) -> tuple[float, float]:
    """Seconds of clock and CPU that the import alone takes, in a new process."""
    command = [sys.executable, "-c", INSIDE.format(module=module)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    clock, cpu = map(float, done.stdout.split())
    return clock, cpu


def whole(arguments: list[str]) -> tuple[float, float]:
    """Seconds of clock and CPU of a command, the interpreter's start included."""
    command = [sys.executable, "-m", "stillspeak", *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return took, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
