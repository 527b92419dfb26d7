"""The JSON API. ``docs/web.md`` describes it; routes and fields stay as they are."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, create_model
from starlette.requests import ClientDisconnect

from stillspeak import __version__
from stillspeak.errors import InputError, MissingDependencyError, StillspeakError
from stillspeak.options import OPTIONS, AnimateOptions
from stillspeak.web.names import shown_name
from stillspeak.web.studio import uploads as intake
from stillspeak.web.studio.jobs import BusyError, Job, command_lines
from stillspeak.web.studio.storage import FullError, Item, Kept
from stillspeak.web.studio.studio import Studio
from stillspeak.web.studio.uploads import SAMPLES, PictureItem, SoundItem, Spoken

if TYPE_CHECKING:
    from collections.abc import Callable

    from stillspeak.rendering.check import StillWarning

_PIECE = 2**20

# Only the caller may keep it, and only as long as it wants.
_PRIVATE = {"cache-control": "private, no-store"}
_BINARY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}

FileName = Annotated[str | None, Query(max_length=1000, description="The file's name.")]


class WarningOut(BaseModel):
    """Something about a face that makes its video worse."""

    code: str = Field(description="stays as it is, for programs")
    message: str


class FaceOut(BaseModel):
    """A face; places are shares of the picture's width and height."""

    index: int
    box: tuple[float, float, float, float] = Field(description="left, top, width, height")
    crop: list[tuple[float, float]] = Field(description="corners of what the model sees")
    eye_distance: float = Field(description="pixels between the eyes")
    yaw: float = Field(description="degrees; positive: the nose points to the picture's right")
    problem: str | None = Field(description="why it cannot be animated, if so")
    warnings: list[WarningOut]
    crop_url: str


class PictureOut(BaseModel):
    id: str
    name: str
    width: int
    height: int
    faces: list[FaceOut]
    preview_url: str
    original_url: str
    expires_in: float = Field(description="seconds until it is removed")


class SoundOut(BaseModel):
    id: str
    name: str
    seconds: float
    peaks: list[float] = Field(description="its outline, the loudest part being 1")
    text: str | None
    audio_url: str
    original_url: str
    expires_in: float


class VideoOut(BaseModel):
    url: str
    frames: int
    fps: int
    width: int
    height: int
    seconds: float
    took: float = Field(description="seconds of work")
    bytes: int


class JobOut(BaseModel):
    id: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    stage: str = Field(description="the state, or loading, looking or drawing while it runs")
    position: int = Field(description="jobs before this one")
    done: int = Field(description="frames drawn")
    total: int = Field(description="frames to draw; 0 while that is not known")
    error: str | None
    warnings: list[WarningOut] = Field(description="about the face, once it was looked at")
    video: VideoOut | None
    command: str = Field(description="command lines that make the same video")
    expires_in: float


class SpeechIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str
    voice: str = Field("en-gb", max_length=40)
    speed: int = Field(160, ge=intake.SLOWEST, le=intake.FASTEST, description="words a minute")


class _JobIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    picture: str = Field(max_length=100, description="id of a picture")
    sound: str = Field(max_length=100, description="id of a sound")
    model: str | None = Field(None, max_length=200, description="the first one if left out")

    @property
    def options(self) -> AnimateOptions:
        return AnimateOptions(**{name: getattr(self, name) for name in OPTIONS})


if TYPE_CHECKING:  # a type made of a table is none for a type checker
    JobIn = _JobIn
else:
    JobIn = create_model(
        "JobIn",
        __base__=_JobIn,
        **{
            name: (
                option.annotation,
                Field(
                    option.default,
                    ge=option.least,
                    le=option.most,
                    allow_inf_nan=False if option.kind is float else None,
                    description=option.help,
                ),
            )
            for name, option in OPTIONS.items()
        },
    )


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, code: str, message: str, *, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after = retry_after


def error_answer(
    status: int, code: str, message: str, *, retry_after: int | None = None
) -> Response:
    """An error as the API says it: ``{"error": {"code", "message"}}``."""
    headers = dict(_PRIVATE)
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    # One line of characters that can be sent: half a surrogate pair cannot.
    line = " ".join(message.encode("utf-8", "replace").decode().split())
    content = {"error": {"code": code, "message": line}}
    return JSONResponse(content, status, headers)


def error_of(problem: Exception) -> Response:
    """The answer to what the code below, or anything that it calls, raised."""
    if isinstance(problem, ApiError):
        return error_answer(
            problem.status, problem.code, str(problem), retry_after=problem.retry_after
        )
    if isinstance(problem, BusyError):
        status, code = (429, "too_many") if problem.mine else (503, "busy")
        return error_answer(status, code, str(problem), retry_after=15)
    if isinstance(problem, FullError):
        return error_answer(503, "full", str(problem), retry_after=5)
    if isinstance(problem, MissingDependencyError):
        return error_answer(503, "unavailable", str(problem))
    if isinstance(problem, InputError):
        return error_answer(422, "bad_input", str(problem))
    assert isinstance(problem, StillspeakError)
    return error_answer(422, "refused", str(problem))


def api_router(studio: Studio) -> APIRouter:
    """The routes below ``/api`` of one studio."""
    router = APIRouter(prefix="/api")
    settings = studio.settings
    store, queue, shelf = studio.store, studio.queue, studio.shelf

    # --- what there is --------------------------------------------------------------------------

    @router.get("/health")
    async def health(response: Response) -> dict[str, Any]:
        """Whether videos can be made; 503 if not."""
        problem = studio.problem or (None if queue.alive else "the queue has stopped")
        if problem:
            response.status_code = 503
        return {
            "status": "failing" if problem else "ok" if studio.ready.is_set() else "starting",
            "problem": problem,
            "version": __version__,
            "uptime_seconds": round(time.monotonic() - studio.began, 1),
            "models_loaded": shelf.loaded,
            "queue": {
                "running": int(queue.running),
                "waiting": queue.waiting,
                "length": settings.queue_length,
            },
            "uploads": studio.uploads,
            "items": len(store),
            "bytes": store.bytes,
        }

    @router.get("/info")
    async def info() -> dict[str, Any]:
        """Models, samples, voices and limits: what a page needs to know first."""
        models = await asyncio.to_thread(shelf.models)
        program = intake.speaker() if studio.can_speak else None
        spoken = await asyncio.to_thread(intake.voices, program) if program else ()
        return {
            "version": __version__,
            "models": [{"name": m.name, "summary": m.summary} for m in models.values()],
            "samples": [
                {k: v for k, v in asdict(sample).items() if k != "file_name"}
                for sample in SAMPLES.values()
            ],
            "voices": [asdict(voice) for voice in spoken],
            "speed": {"min": intake.SLOWEST, "max": intake.FASTEST},
            "live": studio.live,
            "limits": {
                "upload_bytes": settings.max_upload_bytes,
                "pixels": settings.max_pixels,
                "seconds": settings.max_seconds,
                "size": settings.max_size,
                "text": settings.max_text,
                "keep_seconds": settings.keep_seconds,
            },
        }

    # --- pictures and sounds --------------------------------------------------------------------

    async def take(
        fill: Callable[[Path], None] | Request,
        look: Callable[[str, Path], Kept],
        room: int,
    ) -> Kept:
        """Make an item: its file comes from a request or a function, then it is looked at."""
        studio.begin_upload()
        try:
            name, folder = store.new_folder(room)
            try:
                if isinstance(fill, Request):
                    await _receive(fill, folder / intake.SOURCE)
                else:
                    await studio.work(partial(fill, folder))
                item = await studio.work(partial(look, name, folder))
                return store.add(item)
            except BaseException:
                # Also when the server stops meanwhile.
                await asyncio.shield(asyncio.to_thread(store.drop_folder, name, folder))
                raise
        finally:
            studio.end_upload()

    def picture_of(shown: str, name: str, folder: Path) -> PictureItem:
        width, height, faces = intake.look_at_picture(
            folder, name=shown, max_pixels=settings.max_pixels, detector=shelf.detector
        )
        return PictureItem(
            name, folder, store.expiry(), name=shown, width=width, height=height, faces=faces
        )

    def sound_of(shown: str, spoken: Spoken | None, name: str, folder: Path) -> SoundItem:
        seconds, peaks = intake.listen_to_sound(
            folder, name=shown, max_seconds=settings.max_seconds
        )
        return SoundItem(
            name, folder, store.expiry(), name=shown, seconds=seconds, peaks=peaks, spoken=spoken
        )

    @router.post("/pictures", status_code=201, openapi_extra=_BINARY)
    async def add_picture(request: Request, name: FileName = None) -> PictureOut:
        """Upload a picture: the file is the request's body."""
        shown = shown_name(name, "picture")
        item = await take(request, partial(picture_of, shown), settings.max_upload_bytes)
        return _picture_out(item)

    @router.post("/sounds", status_code=201, openapi_extra=_BINARY)
    async def add_sound(request: Request, name: FileName = None) -> SoundOut:
        """Upload a sound: the file is the request's body."""
        shown = shown_name(name, "sound")
        item = await take(request, partial(sound_of, shown, None), settings.max_upload_bytes)
        return _sound_out(item)

    @router.post("/samples/{sample}", status_code=201)
    async def add_sample(sample: str) -> PictureOut | SoundOut:
        """Use a bundled picture or sound, as if it had been uploaded."""
        found = SAMPLES.get(sample)
        if found is None:
            raise ApiError(404, "not_found", "there is no such sample")
        fill = partial(intake.write_sample, sample=found)
        if found.kind == "picture":
            return _picture_out(await take(fill, partial(picture_of, found.file_name), _PIECE))
        return _sound_out(await take(fill, partial(sound_of, found.file_name, None), _PIECE))

    @router.post("/speech", status_code=201)
    async def add_speech(wish: SpeechIn) -> SoundOut:
        """Speak a text with eSpeak NG; 503 where that is not installed."""
        text = " ".join(wish.text.split())
        if len(text) > settings.max_text:
            raise ApiError(
                422,
                "bad_input",
                f"the text has {len(text)} characters and at most {settings.max_text} are "
                "spoken; shorten it",
            )
        spoken = Spoken(text, wish.voice, wish.speed)
        item = await take(
            partial(intake.speak, spoken=spoken),
            partial(sound_of, "speech.wav", spoken),
            settings.max_upload_bytes,
        )
        return _sound_out(item)

    def picture(name: str) -> PictureItem:
        return _found(store.get(PictureItem, name), "picture")

    def sound(name: str) -> SoundItem:
        return _found(store.get(SoundItem, name), "sound")

    def job(name: str) -> Job:
        return _found(store.get(Job, name), "video")

    @router.get("/pictures/{name}")
    async def get_picture(name: str) -> PictureOut:
        """What was found in a picture."""
        return _picture_out(picture(name))

    @router.get("/pictures/{name}/preview", response_class=FileResponse)
    async def get_preview(name: str) -> FileResponse:
        """The picture, upright and no larger than a screen, as JPEG."""
        return _file(picture(name).preview, "image/jpeg")

    @router.get("/pictures/{name}/faces/{index}", response_class=FileResponse)
    async def get_face(name: str, index: int) -> FileResponse:
        """What the model sees of a face, twice as large, as JPEG."""
        item = picture(name)
        if not 0 <= index < len(item.faces):
            raise ApiError(404, "not_found", f"{item.name}: has no face number {index}")
        return _file(item.crop(index), "image/jpeg")

    @router.get("/pictures/{name}/original", response_class=FileResponse)
    async def get_picture_file(name: str) -> FileResponse:
        """The file as it was uploaded, to be saved."""
        return _saved(picture(name))

    @router.get("/sounds/{name}")
    async def get_sound(name: str) -> SoundOut:
        """Length and outline of a sound."""
        return _sound_out(sound(name))

    @router.get("/sounds/{name}/audio", response_class=FileResponse)
    async def get_audio(name: str) -> FileResponse:
        """The sound as the model hears it, as WAV."""
        return _file(sound(name).wave, "audio/wav")

    @router.get("/sounds/{name}/original", response_class=FileResponse)
    async def get_sound_file(name: str) -> FileResponse:
        """The file as it was uploaded, to be saved."""
        return _saved(sound(name))

    @router.delete("/pictures/{name}", status_code=204)
    async def remove_picture(name: str) -> None:
        """Remove a picture now."""
        await asyncio.to_thread(store.remove, picture(name))

    @router.delete("/sounds/{name}", status_code=204)
    async def remove_sound(name: str) -> None:
        """Remove a sound now."""
        await asyncio.to_thread(store.remove, sound(name))

    # --- videos ---------------------------------------------------------------------------------

    @router.post("/jobs", status_code=202)
    async def add_job(wish: JobIn, request: Request) -> JobOut:
        """Ask for a video; poll it with GET until its state is done, failed or cancelled."""
        source, speech = picture(wish.picture), sound(wish.sound)
        options = wish.options
        face = options.face or 0
        if face >= len(source.faces):
            raise ApiError(422, "bad_input", f"{source.name}: has no face number {face}")
        if problem := source.faces[face].problem:
            raise ApiError(422, "bad_input", f"{source.name}: {problem}")
        if options.size is not None and options.size > settings.max_size:
            raise ApiError(
                422,
                "bad_input",
                f"size {options.size} is more than this server draws; give at most "
                f"{settings.max_size}",
            )
        models = await asyncio.to_thread(shelf.models)
        default = next(iter(models))
        model = default if wish.model is None else wish.model
        if model not in models:
            raise ApiError(
                422, "bad_input", f"there is no model {model!r}; choose from {', '.join(models)}"
            )
        if options.size is None and not options.crop and source.height > settings.max_size:
            options = replace(options, size=settings.max_size)
        client = request.client.host if request.client else ""
        queue.check(client)
        name, folder = store.new_folder(settings.max_upload_bytes)
        new = Job(
            name,
            folder,
            store.expiry(),
            picture=source,
            sound=speech,
            model=model,
            options=options,
            client=client,
            command=command_lines(
                source, speech, options, await _model_argument(model), settings.choices
            ),
        )
        store.add(new)
        try:
            queue.submit(new)
        except BusyError:
            store.remove(new)
            raise
        return job_out(new)

    async def _model_argument(model: str) -> str | None:
        """What ``--model`` says, or None where nothing need be said."""
        from stillspeak.weights import DEFAULT_MODEL, catalogue

        source = (await asyncio.to_thread(shelf.models))[model].source
        if source == catalogue()[DEFAULT_MODEL].name:
            return None
        # A file's place on this machine is nobody's business.
        return source if source in catalogue() else Path(source).name

    def job_out(item: Job) -> JobOut:
        made = item.made
        return JobOut(
            id=item.id,
            state=item.state,
            stage=item.stage,
            position=queue.position(item),
            done=item.done,
            total=item.total,
            error=item.error,
            warnings=_warnings_out(item.warnings),
            video=None
            if made is None or item.state != "done"
            else VideoOut(url=f"/api/jobs/{item.id}/video", **asdict(made)),
            command=item.command,
            expires_in=_left(item),
        )

    @router.get("/jobs/{name}")
    async def get_job(name: str) -> JobOut:
        """How far a video is."""
        return job_out(job(name))

    @router.get("/jobs/{name}/video", response_class=FileResponse)
    async def get_video(name: str, download: bool = False) -> FileResponse:
        """The finished video as MP4; ``download=true`` gives it a name to be saved under."""
        item = job(name)
        if item.state != "done":
            raise ApiError(409, "not_ready", "this video is not finished")
        stem = Path(item.picture.name).stem or "video"
        return _file(item.video, "video/mp4", f"{stem}-speaks.mp4" if download else None)

    @router.delete("/jobs/{name}", status_code=204)
    async def remove_job(name: str) -> None:
        """Cancel a video that is not finished, and remove one that is."""
        item = job(name)
        if item.over:
            await asyncio.to_thread(store.remove, item)
        else:
            queue.cancel(item)

    return router


async def _receive(request: Request, target: Path) -> None:
    """Write a request's body to a file; its size and time are bounded by the guard.

    Raises:
        ApiError: an empty body, or the client went away.
    """
    buffer = bytearray()
    size = 0
    with target.open("wb") as file:
        try:
            async for piece in request.stream():
                buffer += piece
                size += len(piece)
                if len(buffer) >= _PIECE:
                    await asyncio.to_thread(file.write, bytes(buffer))
                    buffer.clear()
        except ClientDisconnect:
            raise ApiError(400, "gone", "the upload was broken off; try again") from None
        await asyncio.to_thread(file.write, bytes(buffer))
    if not size:
        raise ApiError(422, "bad_input", "the upload is empty; send a file as the request's body")


def _found(item: Kept | None, what: str) -> Kept:
    if item is None:
        raise _gone(what)
    return item


def _gone(what: str) -> ApiError:
    return ApiError(
        404, "not_found", f"this {what} is not there (any more); upload or make it again"
    )


def _left(item: Item) -> float:
    return math.ceil(max(item.expires - time.monotonic(), 0.0))


def _saved(item: PictureItem | SoundItem) -> FileResponse:
    # Of an unknown type and to be saved: no browser shows it as a page of this server.
    return _file(item.source, "application/octet-stream", item.name)


def _file(path: Path, media_type: str, file_name: str | None = None) -> FileResponse:
    """A file, to be saved if it has a name; byte ranges are answered."""
    try:
        status = path.stat()
    except OSError:  # its time came just now
        raise _gone("file") from None
    return FileResponse(
        path, media_type=media_type, filename=file_name, headers=_PRIVATE, stat_result=status
    )


def _picture_out(item: PictureItem) -> PictureOut:
    url = f"/api/pictures/{item.id}"
    return PictureOut(
        id=item.id,
        name=item.name,
        width=item.width,
        height=item.height,
        faces=[
            FaceOut(
                index=face.index,
                box=face.box,
                crop=list(face.crop),
                eye_distance=face.eye_distance,
                yaw=face.yaw,
                problem=face.problem,
                warnings=_warnings_out(face.warnings),
                crop_url=f"{url}/faces/{face.index}",
            )
            for face in item.faces
        ],
        preview_url=f"{url}/preview",
        original_url=f"{url}/original",
        expires_in=_left(item),
    )


def _warnings_out(warnings: tuple[StillWarning, ...]) -> list[WarningOut]:
    return [WarningOut(code=one.code, message=one.message) for one in warnings]


def _sound_out(item: SoundItem) -> SoundOut:
    url = f"/api/sounds/{item.id}"
    return SoundOut(
        id=item.id,
        name=item.name,
        seconds=item.seconds,
        peaks=list(item.peaks),
        text=item.spoken.text if item.spoken else None,
        audio_url=f"{url}/audio",
        original_url=f"{url}/original",
        expires_in=_left(item),
    )
