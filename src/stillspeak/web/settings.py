"""What an operator decides about ``stillspeak serve``, checked once."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from stillspeak.errors import ConfigError
from stillspeak.media.marks.marking import MarkChoices
from stillspeak.system.configuration import FORBID_UNKNOWN

_MIB = 2**20
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")

# Smallest and largest value of each number.
_RANGES: dict[str, tuple[float, float]] = {
    "port": (0, 65_535),
    "max_upload_bytes": (1024, 4096 * _MIB),
    "max_pixels": (10_000, 64_000_000),
    "max_seconds": (1, 3600),
    "max_size": (64, 4096),
    "max_text": (1, 10_000),
    "queue_length": (1, 1000),
    "queue_per_client": (1, 1000),
    "max_uploads": (1, 1000),
    "max_items": (4, 100_000),
    "max_stored_bytes": (_MIB, 2**50),
    "models_in_memory": (1, 64),
    "keep_seconds": (1, 30 * 86_400),
    "upload_seconds": (0.1, 86_400),
    "idle_seconds": (0.1, 3600),
    "job_seconds": (1, 86_400),
    "live_sessions": (0, 1000),
}


@dataclass(frozen=True)
class ServeSettings:
    """Settings of the web application; all have defaults for one person on one machine.

    Raises:
        ConfigError: a value out of range.
    """

    __pydantic_config__ = FORBID_UNKNOWN

    host: str = "127.0.0.1"
    """Address to listen on; only this machine reaches the default."""
    port: int = 8000
    """TCP port; 0 takes a free one."""
    allow_hosts: tuple[str, ...] = ()
    """Names under which browsers may reach it, beside ``localhost`` and bare addresses: a page of
    another name that resolves to this machine (DNS rebinding) is refused."""
    models: tuple[str, ...] = ()
    """Released models' names or weights files to choose from, the first being the default; empty:
    all released models that are on this machine."""
    device: str = "auto"
    """Where the models run: auto, cpu, cuda or mps."""
    preload: bool = True
    """Load the first model at the start and not with the first job."""
    models_in_memory: int = 2
    """Models kept loaded; the one that was used longest ago goes first."""

    max_upload_bytes: int = 32 * _MIB
    """Size of one uploaded file."""
    max_pixels: int = 40_000_000
    """Pixels of an uploaded picture."""
    max_seconds: float = 60.0
    """Length of a sound."""
    max_size: int = 1920
    """Height of a video in pixels; larger pictures are made smaller."""
    max_text: int = 600
    """Characters that are spoken."""
    upload_seconds: float = 120.0
    """Time within which a request's body has to be there."""
    idle_seconds: float = 15.0
    """Longest pause of a client inside a request's body."""
    max_uploads: int = 8
    """Uploads received at the same time."""
    max_items: int = 400
    """Pictures, sounds and videos kept at the same time."""

    max_stored_bytes: int = 4096 * _MIB
    """Bytes of all of them together."""

    queue_length: int = 8
    """Jobs that wait; further ones are turned away."""
    queue_per_client: int = 4
    """Jobs that one client address has waiting or running."""
    job_seconds: float = 900.0
    """Time after which a job that still runs is stopped."""
    keep_seconds: float = 3600.0
    """Time after which what was uploaded or made is removed."""
    folder: Path | None = None
    """Where the files lie meanwhile; the system's temporary folder if None."""

    mark: bool = True
    """Leave a watermark and content credentials in every video; without them it is up to the
    operator to say that it is synthetic."""
    label: str | None = None
    """A visible text in the corner of every video, such as AI-generated."""
    certificate: Path | None = None
    """PEM file of the certificate chain to sign with; this installation's own if None."""
    key: Path | None = None
    """PEM file of its private key."""

    live_sessions: int = 2
    """Live sessions at the same time; 0 switches the live page off."""
    stun: str | None = None
    """URL of a STUN server for the live page; nobody is asked for anything unless it is given."""
    turn: str | None = None
    """URL of a TURN server for the live page."""
    turn_user: str | None = None
    """Name at the TURN server. Visitors' browsers are told name and password."""
    turn_password: str | None = None
    """Password at the TURN server."""

    @property
    def choices(self) -> MarkChoices:
        """What is decided about the videos' marks."""
        return MarkChoices(self.mark, self.label, self.certificate, self.key)

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:  # NaN is outside too
                raise ConfigError(f"serve: {name} is {value}; give {low:g} to {high:g}")
        if not self.host or not (_is_address(self.host) or _HOST_NAME.fullmatch(self.host)):
            raise ConfigError(f"serve: host is {self.host!r}; give an address such as 127.0.0.1")
        for name in self.allow_hosts:
            if not _HOST_NAME.fullmatch(name):
                raise ConfigError(
                    f"serve: allow_hosts has {name!r}; give bare names such as faces.example.org"
                )
        if self.max_stored_bytes < self.max_upload_bytes:
            raise ConfigError("serve: max_stored_bytes is less than max_upload_bytes; give more")
        if self.device not in ("auto", "cpu", "cuda", "mps"):
            raise ConfigError(f"serve: device is {self.device!r}; give auto, cpu, cuda or mps")
        if bool(self.certificate) != bool(self.key):
            raise ConfigError("serve: certificate and key go together; give both or none")
        if self.certificate and not self.mark:
            raise ConfigError("serve: certificate and key sign, which mark = false forbids")
        if len(set(self.models)) != len(self.models) or not all(self.models):
            raise ConfigError(f"serve: models {', '.join(self.models)!r} has one twice or empty")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
