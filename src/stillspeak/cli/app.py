"""The command line. It assembles the commands; what each does stands in its own file."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from typing import Annotated

import typer

from stillspeak import __version__
from stillspeak.cli.animate import animate
from stillspeak.cli.common import fail, with_options
from stillspeak.cli.conceal import conceal
from stillspeak.cli.demo import demo
from stillspeak.cli.dub import dub
from stillspeak.cli.evaluate import evaluate
from stillspeak.cli.export import export
from stillspeak.cli.inspect import inspect
from stillspeak.cli.poses import poses
from stillspeak.cli.prepare import prepare
from stillspeak.cli.report import report
from stillspeak.cli.serve import serve
from stillspeak.cli.stream import stream
from stillspeak.cli.study import app as study_app
from stillspeak.cli.train import train
from stillspeak.cli.weights import weights
from stillspeak.errors import StillspeakError, causes, out_of_files, out_of_memory

app = typer.Typer(
    name="stillspeak",
    help="One face image and one speech clip become a talking-face video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 1."""
    # Idle OpenMP threads spin by default and take the cores from decoding, detection and
    # encoding; set before torch is imported, unless you chose otherwise.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # NumPy's matrices are small here: a second thread of OpenBLAS would only spin beside the first.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not sys.warnoptions:  # libraries warn of what an error or nothing at all comes of
        warnings.simplefilter("ignore")
    try:
        app(prog_name="stillspeak")
    except StillspeakError as error:
        # Without memory anything goes wrong, and files are blamed that are as good as ever.
        fail(NO_MEMORY if any(map(out_of_memory, causes(error))) else str(error))
    except OSError as error:  # what no function of ours foresaw, such as a full standard output
        _drop_stdout()
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{(error.strerror or str(error)).lower()}")
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except (MemoryError, RuntimeError, ImportError) as error:
        if out_of_memory(error):
            fail(NO_MEMORY)
        if out_of_files(error):
            fail("too many open files; allow more of them (ulimit -n)")
        raise


NO_MEMORY = (
    "not enough memory; give a smaller picture, a shorter sound or fewer --workers, or close other "
    "programs"
)


def _drop_stdout() -> None:
    """Let what could not be written go, or Python would try again, and complain, at its exit."""
    with suppress(OSError):  # where not one more file can be opened, say
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, sys.stdout.fileno())
        finally:
            os.close(nowhere)


def _show_version(value: bool) -> None:
    if value:
        print(f"stillspeak {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


for command in (
    *(animate, demo, weights, prepare, train, evaluate, report, serve, inspect, stream),
    *(export, conceal, dub, poses),
):
    app.command()(with_options(command))
app.add_typer(study_app, name="study")
