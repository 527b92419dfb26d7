"""What an operator decides about ``stillspeak serve``: one tree, checked once."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from stillspeak.errors import ConfigError
from stillspeak.system.configuration import configuration
from stillspeak.system.runtime import DeviceName

if TYPE_CHECKING:
    from stillspeak.media.marks.marking import MarkChoices

_MIB = 2**20
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


@configuration("serve")
class ServeSettings:
    """Settings of the web application; the defaults suit one person on one machine.

    Raises:
        ConfigError: a value out of range.
    """

    host: Annotated[str, Field(description="Address to listen on: 127.0.0.1.")] = "127.0.0.1"
    """Only this machine reaches the default."""
    port: Annotated[
        int, Field(ge=0, le=65_535, description="TCP port: 8000; 0 takes a free one.")
    ] = 8000
    allow_hosts: Annotated[
        tuple[str, ...],
        Field(description="A name under which browsers reach it. May be given repeatedly."),
    ] = ()
    """Beside ``localhost`` and bare addresses: a page of another name that resolves to this machine
    (DNS rebinding) is refused."""
    models: Annotated[
        tuple[str, ...],
        Field(
            description="A released model's name or a weights file to choose from, the default "
            "first; all released ones if left out. May be given repeatedly."
        ),
    ] = ()
    device: DeviceName = "auto"
    """Where the models run."""
    preload: bool = True
    """Load the first model at the start and not with the first job."""
    models_in_memory: Annotated[int, Field(ge=1, le=64)] = 2
    """Models kept loaded; the one that was used longest ago goes first."""

    max_upload_bytes: Annotated[int, Field(ge=1024, le=4096 * _MIB)] = 32 * _MIB
    """Size of one uploaded file."""
    max_pixels: Annotated[int, Field(ge=10_000, le=64_000_000)] = 40_000_000
    """Pixels of an uploaded picture."""
    max_seconds: Annotated[float, Field(ge=1, le=3600)] = 60.0
    """Length of a sound."""
    max_size: Annotated[int, Field(ge=64, le=4096)] = 1920
    """Height of a video in pixels; larger pictures are made smaller."""
    max_text: Annotated[int, Field(ge=1, le=10_000)] = 600
    """Characters that are spoken."""
    upload_seconds: Annotated[float, Field(ge=0.1, le=86_400)] = 120.0
    """Time within which a request's body has to be there."""
    idle_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 15.0
    """Longest pause of a client inside a request's body."""
    max_uploads: Annotated[int, Field(ge=1, le=1000)] = 8
    """Uploads received at the same time."""
    max_items: Annotated[int, Field(ge=4, le=100_000)] = 400
    """Pictures, sounds and videos kept at the same time."""
    max_stored_bytes: Annotated[int, Field(ge=_MIB, le=2**50)] = 4096 * _MIB
    """Bytes of all of them together."""

    queue_length: Annotated[int, Field(ge=1, le=1000)] = 8
    """Jobs that wait; further ones are turned away."""
    queue_per_client: Annotated[int, Field(ge=1, le=1000)] = 4
    """Jobs that one client address has waiting or running."""
    job_seconds: Annotated[float, Field(ge=1, le=86_400)] = 900.0
    """Time after which a job that still runs is stopped."""
    keep_seconds: Annotated[float, Field(ge=1, le=30 * 86_400)] = 3600.0
    """Time after which uploads and videos are removed."""
    folder: Path | None = None
    """Where the files are kept meanwhile; the system's temporary folder if None."""

    mark: bool = True
    """Leave a watermark and content credentials in every video; without them it is up to the
    operator to say that it is synthetic."""
    label: str | None = None
    """A visible text in the corner of every video, such as AI-generated."""
    certificate: Path | None = None
    """PEM file of the certificate chain to sign with; this installation's own if None."""
    key: Path | None = None
    """PEM file of its private key."""

    live_sessions: Annotated[
        int, Field(ge=0, le=1000, description="Live sessions: 2; 0 switches them off.")
    ] = 2
    """At the same time."""
    live_size: Annotated[int, Field(ge=64, le=2048)] = 512
    """Height of a live picture in pixels."""
    live_session_seconds: Annotated[float, Field(ge=1, le=86_400)] = 1800.0
    """Time after which a live session ends."""
    live_quiet_seconds: Annotated[float, Field(ge=1, le=86_400)] = 30.0
    """Time without a packet and a message after which a live session ends."""
    live_connect_seconds: Annotated[float, Field(ge=1, le=600)] = 20.0
    """Time within which the peer of a live session has to connect."""
    live_upload_bytes: Annotated[int, Field(ge=1024, le=2**30)] = 10 * _MIB
    """Size of the reference image of a live session."""
    stun: Annotated[
        str | None, Field(description="A STUN server for the live page, as stun:HOST:PORT.")
    ] = None
    """Without one no other machine is asked for anything."""
    turn: Annotated[
        str | None,
        Field(description="A TURN server, as turn:HOST:PORT; name and password by --config."),
    ] = None
    turn_user: str | None = None
    """Name at the TURN server. Visitors' browsers are told name and password."""
    turn_password: str | None = None
    """Password at the TURN server."""

    @property
    def choices(self) -> MarkChoices:
        """What is decided about the videos' marks."""
        from stillspeak.media.marks.marking import MarkChoices

        return MarkChoices(self.mark, self.label, self.certificate, self.key)

    @property
    def ice_servers(self) -> list[dict[str, str]]:
        """The STUN and TURN servers, as WebRTC's configuration has them."""
        servers = [] if self.stun is None else [{"urls": self.stun}]
        if self.turn is not None:
            name, password = self.turn_user or "", self.turn_password or ""
            servers.append({"urls": self.turn, "username": name, "credential": password})
        return servers

    def __post_init__(self) -> None:
        if not (is_address(self.host) or _HOST_NAME.fullmatch(self.host)):
            raise ConfigError(f"serve: host is {self.host!r}; give an address such as 127.0.0.1")
        for name in self.allow_hosts:
            if not _HOST_NAME.fullmatch(name):
                raise ConfigError(
                    f"serve: allow_hosts has {name!r}; give bare names such as faces.example.org"
                )
        if self.max_stored_bytes < self.max_upload_bytes:
            raise ConfigError("serve: max_stored_bytes is less than max_upload_bytes; give more")
        if bool(self.certificate) != bool(self.key):
            raise ConfigError("serve: certificate and key go together; give both or none")
        if self.certificate and not self.mark:
            raise ConfigError("serve: certificate and key sign, which mark = false forbids")
        if len(set(self.models)) != len(self.models) or not all(self.models):
            raise ConfigError(f"serve: models {', '.join(self.models)!r} has one twice or empty")
        for name, url in (("stun", self.stun), ("turn", self.turn)):
            if url is not None and not url.startswith((f"{name}:", f"{name}s:")):
                raise ConfigError(f"serve: {name} is {url!r}; give {name}:HOST:PORT")


def is_address(host: str) -> bool:
    """Whether a host is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
