"""``stillspeak study``: studies with people on any set of videos."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from stillspeak.commands.common import Overwrite, Quiet, Seed, listed, progress_bar

if TYPE_CHECKING:
    from stillspeak.study.config import Kind

app = typer.Typer(
    help="Ask people which videos look natural, real, good, or can be lip-read; report on it.",
    no_args_is_help=True,
)

Study = Annotated[Path, typer.Argument(metavar="DIR", help="The study's folder.")]
Database = Annotated[
    str | None,
    typer.Option(help="SQLAlchemy URL of the answers; DIR/answers.db by default."),
]


@app.command("init")
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to be made.")],
    folders: Annotated[
        list[Path], typer.Argument(metavar="VIDEOS...", help="Folders of videos.")
    ],
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Preference: A/ B/ [C/ ...], partners by file name.")
    ] = False,
    turing: Annotated[bool, typer.Option("--turing", help="Real or fake: REAL/ FAKE/.")] = False,
    mos: Annotated[bool, typer.Option("--mos", help="Ratings from 1 to 5 of one or more.")] = False,
    intelligibility: Annotated[
        bool, typer.Option("--intelligibility", help="Lip reading of silent clips.")
    ] = False,
    names: Annotated[
        str | None, typer.Option(help="Names of the systems, by commas; the folders' without.")
    ] = None,
    words: Annotated[
        Path | None,
        typer.Option(help="Lip reading: CSV with the columns file and words; GRID names without."),
    ] = None,
    questions: Annotated[
        str | None,
        typer.Option(help="By commas: natural, sync, realism (pairs); quality, sync, ... (mos)."),
    ] = None,
    catch: Annotated[
        Path | None, typer.Option(help="Folder of obviously bad videos; made without.")
    ] = None,
    seed: Seed = 0,
    link: Annotated[bool, typer.Option("--link", help="Hard links in place of copies.")] = False,
    convert: Annotated[
        bool, typer.Option("--convert", help="Make MP4 of what browsers do not play.")
    ] = False,
    skip_unpaired: Annotated[
        bool, typer.Option("--skip-unpaired", help="Leave out names that not all folders have.")
    ] = False,
    length_tolerance: Annotated[
        float, typer.Option(min=0, help="Seconds by which partners' lengths may differ.")
    ] = 0.5,
    quiet: Quiet = False,
) -> None:
    """Make a study: DIR first, then the folders of videos."""
    from stillspeak.study.materials import init_study

    chosen = [
        kind
        for kind, given in (
            ("preference", pairs),
            ("turing", turing),
            ("mos", mos),
            ("intelligibility", intelligibility),
        )
        if given
    ]
    if len(chosen) != 1:
        raise typer.BadParameter("one of --pairs, --turing, --mos, --intelligibility is needed")
    with progress_bar("checking videos", None, quiet) as advance:
        made = init_study(
            directory,
            cast("Kind", chosen[0]),
            folders,
            names=listed(names),
            words=words,
            catch=catch,
            questions=listed(questions) or (),
            seed=seed,
            link=link,
            convert=convert,
            skip_unpaired=skip_unpaired,
            length_tolerance=length_tolerance,
            progress=lambda done, total: advance(done, f"of {total}"),
        )
    for note in made.notes:
        print(f"stillspeak: note: {note}", file=sys.stderr)
    if not quiet:
        print(
            f"{made.folder}: {made.kind}, {made.videos} videos of {made.items} names, "
            f"{', '.join(made.systems)}; {made.trials} for each visitor"
        )
        print(f"Edit {made.folder / 'study.toml'}, then: stillspeak study serve {made.folder}")


@app.command("serve")
def serve(
    directory: Study,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    database: Database = None,
    trusted_proxies: Annotated[
        str | None,
        typer.Option(help="Addresses, by commas, whose X-Forwarded headers are believed."),
    ] = None,
    root_path: Annotated[str, typer.Option(help="Where a proxy mounts the study.")] = "",
    quiet: Quiet = False,
) -> None:
    """Put a study on the web until Ctrl-C. No address is logged or stored."""
    from stillspeak.study.app import serve as serve_study

    def ready(address: str) -> None:
        if not quiet:
            print(address, flush=True)

    serve_study(
        directory,
        host=host,
        port=port,
        database=database,
        trusted_proxies=trusted_proxies,
        root_path=root_path,
        ready=ready,
    )
