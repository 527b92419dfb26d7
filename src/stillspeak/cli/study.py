"""``stillspeak study``: studies with people on any set of videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from stillspeak.cli.common import Overwrite, Quiet, listed, progress_bar, tell, usage, with_options
from stillspeak.study.records import RaterOptions, Truth, VideoOptions

app = typer.Typer(
    help="Ask people which videos look natural, real, good, or can be lip-read; report on it.",
    no_args_is_help=True,
)

Study = Annotated[Path, typer.Argument(metavar="DIR", help="The study's folder.")]
Database = Annotated[str | None, "SQLAlchemy URL of the answers; DIR/answers.db by default."]


@app.command("init")
@with_options
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The new study's folder.")],
    folders: Annotated[list[Path], typer.Argument(metavar="VIDEOS...", help="Folders of videos.")],
    pairs: Annotated[bool, "Preference: A/ B/ [C/ ...], partners by file name."] = False,
    turing: Annotated[bool, "Real or fake: REAL/ FAKE/."] = False,
    mos: Annotated[bool, "Ratings from 1 to 5 of one or more."] = False,
    intelligibility: Annotated[bool, "Lip reading of silent clips."] = False,
    kind: Annotated[str | None, "Any kind, by its name in study.toml."] = None,
    names: Annotated[
        str | None, "The systems' names, separated by commas; the folders' by default."
    ] = None,
    questions: Annotated[
        str | None,
        "natural, sync, realism (pairs) or quality, sync, ... (mos), separated by commas.",
    ] = None,
    seed: Annotated[int, Field(ge=0), "Decides order and sides."] = 0,
    *,
    options: VideoOptions,
    quiet: Quiet = False,
) -> None:
    """Make a study: DIR first, then the folders of videos."""
    from stillspeak.study.videos import init_study

    given = {"preference": pairs, "turing": turing, "mos": mos, "intelligibility": intelligibility}
    chosen = [name for name, yes in given.items() if yes] + ([kind] if kind else [])
    usage(
        {"one of --pairs, --turing, --mos, --intelligibility or --kind is needed": len(chosen) != 1}
    )
    with progress_bar("checking videos", None, quiet) as advance:
        study, notes = init_study(
            directory,
            chosen[0],
            folders,
            options,
            names=listed(names),
            questions=listed(questions) or (),
            seed=seed,
            progress=lambda done, total: advance(done, f"of {total}"),
        )
    for note in notes:
        tell(f"note: {note}")
    if not quiet:
        videos, systems = study.materials.videos, study.materials.systems
        items = {video.item for video in videos if video.role != "catch"}
        print(
            f"{study.folder}: {study.kind.name}, {len(videos)} videos of {len(items)} names, "
            f"{', '.join(systems)}; {study.config.trials.count} for each visitor"
        )
        print(f"Edit {study.folder / 'study.toml'}, then: stillspeak study serve {study.folder}")


@app.command("serve")
@with_options
def serve(
    directory: Study,
    host: Annotated[str, "Address to listen on."] = "127.0.0.1",
    port: Annotated[int, Field(ge=0, le=65535), "0: any free one."] = 8000,
    database: Database = None,
    trusted_proxies: Annotated[
        str | None, "Addresses whose X-Forwarded headers are trusted, separated by commas."
    ] = None,
    root_path: Annotated[str, "Where a proxy mounts the study."] = "",
    quiet: Quiet = False,
) -> None:
    """Put a study on the web until Ctrl-C. No address is logged or stored."""
    from stillspeak.study.app import serve as serve_study
    from stillspeak.study.kinds import PLACEHOLDER, load_config

    if PLACEHOLDER in load_config(directory).texts.consent:
        where = f"{directory / 'study.toml'}: texts.consent"
        tell(f"note: {where} does not say yet who runs the study and why")
    serve_study(
        directory,
        host=host,
        port=port,
        database=database,
        trusted_proxies=trusted_proxies,
        root_path=root_path,
        ready=lambda address: None if quiet else print(address, flush=True),
    )


@app.command("report")
@with_options
def report(
    directory: Study,
    output: Annotated[
        Path | None, "-o", "--output", "The report's folder; DIR/report by default."
    ] = None,
    database: Database = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Make a page, Markdown and JSON of a study's answers."""
    from stillspeak.study.report import write_report

    target = output or directory / "report"
    written = write_report(directory, target, database=database, overwrite=overwrite)
    if not quiet:
        print(*(written.headline or ("no answers that count yet",)), written.page, sep="\n")


@app.command("export")
@with_options
def export(
    directory: Study,
    to_csv: Annotated[Path | None, "--csv", "Where to write CSV; - is standard output."] = None,
    to_json: Annotated[Path | None, "--json", "Where to write JSON; - is standard output."] = None,
    database: Database = None,
    overwrite: Overwrite = False,
) -> None:
    """Write all answers as CSV or JSON, one row a trial and question."""
    from stillspeak.errors import OutputError, OutputExistsError
    from stillspeak.study.export import as_csv, as_json
    from stillspeak.study.kinds import Study
    from stillspeak.study.store import AnswerStore
    from stillspeak.system.atomic import whole_file

    usage({"--csv FILE or --json FILE is needed": to_csv is None and to_json is None})
    study = Study.load(directory)
    with AnswerStore(study, database, create=False) as store:
        data = store.read()
    for path, make in ((to_csv, as_csv), (to_json, as_json)):
        if path is None:
            continue
        text = make(study, data)
        if str(path) == "-":
            print(text, end="")
            continue
        if path.exists() and not overwrite:
            raise OutputExistsError(f"{path}: is there already; give another name, or --overwrite")
        try:
            with whole_file(path) as partial:
                partial.write_text(text, "utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


@app.command("simulate")
@with_options
def simulate(
    directory: Study,
    raters: Annotated[int, Field(ge=1, le=100_000), "How many."] = 30,
    strengths: Annotated[
        str | None, "Pairs: Bradley-Terry strengths of the systems, separated by commas."
    ] = None,
    means: Annotated[str | None, "Ratings: means of the systems, separated by commas."] = None,
    seed: Annotated[int, Field(ge=0), "Decides what raters answer."] = 0,
    database: Annotated[str | None, "SQLAlchemy URL; DIR/simulated.db by default."] = None,
    *,
    options: RaterOptions,
    quiet: Quiet = False,
) -> None:
    """Let raters of known truth take part, to try a study and its report before people do."""
    from stillspeak.study.kinds import Study
    from stillspeak.study.plan import check_plan
    from stillspeak.study.simulate import check_truth
    from stillspeak.study.simulate import simulate as run
    from stillspeak.study.store import AnswerStore, sqlite_url

    study = Study.load(directory)
    check_plan(study)
    truth = Truth(**vars(options), strengths=_numbers(strengths), means=_numbers(means))
    check_truth(study, truth)
    url = database or sqlite_url(directory / "simulated.db")
    with AnswerStore(study, url, durable=False) as store:
        stored = run(study, store, raters=raters, truth=truth, seed=seed)
    if not quiet:
        print(f"{stored} answers of {raters} simulated raters")
        print(f"stillspeak study report {directory} --database {store.name}")


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in listed(text) or ())
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: numbers separated by commas are needed") from error
