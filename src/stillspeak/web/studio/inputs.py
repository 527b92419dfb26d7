"""Routes of pictures and sounds: uploads, bundled samples and spoken texts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse
from starlette.requests import ClientDisconnect

from stillspeak.web.errors import ApiError
from stillspeak.web.studio import uploads
from stillspeak.web.studio.common import Current, file_response, finder
from stillspeak.web.studio.schemas import PictureOut, SoundOut, SpeechIn
from stillspeak.web.studio.studio import Studio
from stillspeak.web.studio.uploads import PictureItem, SoundItem, shown_name

_SAMPLE_BYTES = 2**20
_BINARY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}

FileName = Annotated[str | None, Query(max_length=1000, description="The file's name.")]
Picture = Annotated[PictureItem, Depends(finder(PictureItem))]
Source = Callable[[Path], None] | Request
Sound = Annotated[SoundItem, Depends(finder(SoundItem))]

router = APIRouter()


async def _add(studio: Studio, source: Source, room: int, read: Callable[[str, Path], Any]) -> Any:
    """Make an item: its file comes from a request or a function, then it is read."""
    with studio.upload(), studio.storage.new_folder(room) as (id, folder):
        if isinstance(source, Request):
            await _receive(source, folder / uploads.SOURCE)
        else:
            await studio.work(partial(source, folder))
        item = await studio.work(partial(read, id, folder))
        return studio.storage.add(item)


async def _add_picture(studio: Studio, name: str, source: Source, room: int) -> PictureOut:
    pixels, detector = studio.settings.max_pixels, studio.models.detector
    read = partial(uploads.read_picture, name=name, max_pixels=pixels, detector=detector)
    return PictureOut.model_validate(await _add(studio, source, room, read))


async def _add_sound(
    studio: Studio, name: str, source: Source, room: int, spoken: SpeechIn | None = None
) -> SoundOut:
    seconds = studio.settings.max_seconds
    read = partial(uploads.read_sound, name=name, max_seconds=seconds, spoken=spoken)
    return SoundOut.model_validate(await _add(studio, source, room, read))


async def _receive(request: Request, target: Path) -> None:
    """Write a request's body to a file; its size and time are bounded by the guard."""
    with target.open("wb") as file:
        try:
            async for piece in request.stream():
                await asyncio.to_thread(file.write, piece)
        except ClientDisconnect:
            raise ApiError(400, "gone", "the upload was broken off; try again") from None
        size = file.tell()
    if not size:
        raise ApiError(422, "bad_input", "the upload is empty; send a file as the request's body")


@router.post("/pictures", status_code=201, openapi_extra=_BINARY)
async def add_picture(request: Request, studio: Current, name: FileName = None) -> PictureOut:
    """Upload a picture: the file is the request's body."""
    shown = shown_name(name, "picture")
    return await _add_picture(studio, shown, request, studio.settings.max_upload_bytes)


@router.post("/sounds", status_code=201, openapi_extra=_BINARY)
async def add_sound(request: Request, studio: Current, name: FileName = None) -> SoundOut:
    """Upload a sound: the file is the request's body."""
    shown = shown_name(name, "sound")
    return await _add_sound(studio, shown, request, studio.settings.max_upload_bytes)


@router.post("/samples/{sample}", status_code=201)
async def add_sample(sample: str, studio: Current) -> PictureOut | SoundOut:
    """Use a bundled picture or sound, as if it had been uploaded."""
    one = uploads.SAMPLES.get(sample)
    if one is None:
        raise ApiError(404, "not_found", "there is no such sample")
    add = _add_picture if one.kind == "picture" else _add_sound
    source = partial(uploads.write_sample, sample=one)
    return await add(studio, one.file_name, source, _SAMPLE_BYTES)


@router.post("/speech", status_code=201)
async def add_speech(speech: SpeechIn, studio: Current) -> SoundOut:
    """Speak a text with eSpeak NG; 503 where that is not installed."""
    text, most = " ".join(speech.text.split()), studio.settings.max_text
    if len(text) > most:
        message = f"the text has {len(text)} characters and at most {most} are spoken; shorten it"
        raise ApiError(422, "bad_input", message)
    spoken = speech.model_copy(update={"text": text})
    source = partial(uploads.speak, spoken=spoken)
    room = studio.settings.max_upload_bytes
    return await _add_sound(studio, "speech.wav", source, room, spoken)


@router.get("/pictures/{name}", response_model=PictureOut)
async def get_picture(item: Picture) -> PictureItem:
    """What was found in a picture."""
    return item


@router.get("/pictures/{name}/preview", response_class=FileResponse)
async def get_preview(item: Picture) -> FileResponse:
    """The picture, upright and no larger than a screen, as JPEG."""
    return file_response(item.folder / uploads.PREVIEW, "image/jpeg")


@router.get("/pictures/{name}/faces/{index}", response_class=FileResponse)
async def get_face(name: str, index: int, studio: Current) -> FileResponse:
    """What the model sees of a face, twice as large, as JPEG."""
    item = studio.storage.get(PictureItem, name)
    if not 0 <= index < len(item.faces):
        raise ApiError(404, "not_found", f"{item.name}: has no face number {index}")
    return file_response(item.crop(index), "image/jpeg")


@router.get("/pictures/{name}/original", response_class=FileResponse)
async def get_picture_file(item: Picture) -> FileResponse:
    """The file as it was uploaded, to be saved."""
    return _original(item)


@router.get("/sounds/{name}", response_model=SoundOut)
async def get_sound(item: Sound) -> SoundItem:
    """Length and outline of a sound."""
    return item


@router.get("/sounds/{name}/audio", response_class=FileResponse)
async def get_audio(item: Sound) -> FileResponse:
    """The sound as the model hears it, as WAV."""
    return file_response(item.folder / uploads.WAVE, "audio/wav")


@router.get("/sounds/{name}/original", response_class=FileResponse)
async def get_sound_file(item: Sound) -> FileResponse:
    """The file as it was uploaded, to be saved."""
    return _original(item)


@router.delete("/pictures/{name}", status_code=204)
async def remove_picture(item: Picture, studio: Current) -> None:
    """Remove a picture now."""
    await asyncio.to_thread(studio.storage.remove, item)


@router.delete("/sounds/{name}", status_code=204)
async def remove_sound(item: Sound, studio: Current) -> None:
    """Remove a sound now."""
    await asyncio.to_thread(studio.storage.remove, item)


def _original(item: PictureItem | SoundItem) -> FileResponse:
    # Of an unknown type and to be saved: no browser shows it as a page of this server.
    return file_response(item.source, "application/octet-stream", item.name)
