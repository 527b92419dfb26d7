"""The JSON API. ``docs/web.md`` describes it; routes and fields stay as they are."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Response

from stillspeak import __version__
from stillspeak.web.studio import inputs, uploads, videos
from stillspeak.web.studio.common import Current
from stillspeak.web.studio.schemas import FASTEST, SLOWEST

router = APIRouter(prefix="/api")


@router.get("/health")
async def health(response: Response, studio: Current) -> dict[str, Any]:
    """Whether videos can be made; 503 if not."""
    problem = studio.problem
    if problem:
        response.status_code = 503
    return {
        "status": "failing" if problem else "ok" if studio.ready.is_set() else "starting",
        "problem": problem,
        "version": __version__,
        "uptime_seconds": round(time.monotonic() - studio.began, 1),
        "models_loaded": studio.models.loaded,
        "queue": {
            "running": studio.queue.running,
            "waiting": studio.queue.waiting,
            "length": studio.settings.queue_length,
        },
        "uploads": studio.uploads,
        "items": len(studio.storage),
        "bytes": studio.storage.bytes,
    }


@router.get("/info")
async def info(studio: Current) -> dict[str, Any]:
    """Models, samples, voices and limits: what a page needs to know first."""
    settings = studio.settings
    models = await asyncio.to_thread(studio.models.offered)
    program = uploads.speaker()
    spoken = await asyncio.to_thread(uploads.voices, program) if program else ()
    return {
        "version": __version__,
        "models": [{"name": m.name, "summary": m.summary} for m in models.values()],
        "samples": [
            {k: v for k, v in asdict(sample).items() if k != "file_name"}
            for sample in uploads.SAMPLES.values()
        ],
        "voices": [asdict(voice) for voice in spoken],
        "speed": {"min": SLOWEST, "max": FASTEST},
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


router.include_router(inputs.router)
router.include_router(videos.router)
