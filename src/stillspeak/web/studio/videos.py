"""Routes of jobs: ask for a video, follow its making, take it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse

from stillspeak.options import AnimateOptions
from stillspeak.web.errors import ApiError
from stillspeak.web.studio.common import Current, file_response, finder
from stillspeak.web.studio.jobs import Job, command_lines
from stillspeak.web.studio.model_cache import ModelCache
from stillspeak.web.studio.schemas import JobIn, JobOut
from stillspeak.web.studio.uploads import PictureItem, SoundItem

router = APIRouter()

Found = Annotated[Job, Depends(finder(Job))]


@router.post("/jobs", status_code=202, response_model=JobOut)
async def add_job(asked: JobIn, request: Request, studio: Current) -> Job:
    """Ask for a video; poll it with GET until its state is done, failed or cancelled."""
    picture = studio.storage.get(PictureItem, asked.picture)
    sound = studio.storage.get(SoundItem, asked.sound)
    others = {
        face: None if sound is None else studio.storage.get(SoundItem, sound)
        for face, sound in asked.others.items()
    }
    for face in (asked.options.face or 0, *others):
        _check_face(picture, face)
    options = _drawable(asked.options, picture, studio.settings.max_size)
    models = await asyncio.to_thread(studio.models.offered)
    model = next(iter(models)) if asked.model is None else asked.model
    if model not in models:
        message = f"there is no model {model!r}; choose from {', '.join(models)}"
        raise ApiError(422, "bad_input", message)
    argument = await asyncio.to_thread(_model_argument, studio.models, model)
    command = command_lines(picture, sound, others, options, argument, studio.settings.choices)
    client = request.client.host if request.client else ""
    studio.queue.check(client)
    with studio.storage.new_folder(studio.settings.max_upload_bytes) as (id, folder):
        job = Job(
            id,
            folder,
            picture=picture,
            sound=sound,
            others=others,
            model=model,
            options=options,
            client=client,
            command=command,
            queue=studio.queue,
        )
        studio.queue.submit(job)
    return job


def _check_face(picture: PictureItem, face: int) -> None:
    """ApiError if there is no such face, or none that can be animated."""
    if not 0 <= face < len(picture.faces):
        raise ApiError(422, "bad_input", f"{picture.name}: has no face number {face}")
    if problem := picture.faces[face].problem:
        raise ApiError(422, "bad_input", f"{picture.name}: {problem}")


def _drawable(options: AnimateOptions, picture: PictureItem, max_size: int) -> AnimateOptions:
    """The options, no larger than the server draws."""
    size = options.size
    if size is not None and size > max_size:
        message = f"size {size} is more than this server draws; give at most {max_size}"
        raise ApiError(422, "bad_input", message)
    if size is None and not options.crop and picture.height > max_size:
        return replace(options, size=max_size)
    return options


def _model_argument(models: ModelCache, model: str) -> str | None:
    """What ``--model`` says, or None where nothing need be said."""
    from stillspeak.weights import DEFAULT_MODEL, catalogue

    source, known = models.offered()[model].source, catalogue()
    if source == known[DEFAULT_MODEL].name:
        return None
    # Visitors are not told where a file is on this machine.
    return source if source in known else Path(source).name


@router.get("/jobs/{name}", response_model=JobOut)
async def get_job(job: Found) -> Job:
    """How far a video is."""
    return job


@router.get("/jobs/{name}/video", response_class=FileResponse)
async def get_video(job: Found, download: bool = False) -> FileResponse:
    """The finished video as MP4; ``download=true`` gives it a name to be saved under."""
    if job.state != "done":
        raise ApiError(409, "not_ready", "this video is not finished")
    stem = Path(job.picture.name).stem or "video"
    return file_response(job.file, "video/mp4", f"{stem}-speaks.mp4" if download else None)


@router.delete("/jobs/{name}", status_code=204)
async def remove_job(job: Found, studio: Current) -> None:
    """Cancel a video that is not finished, and remove one that is."""
    if job.over:
        await asyncio.to_thread(studio.storage.remove, job)
    else:
        studio.queue.cancel(job)
