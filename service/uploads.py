"""Large images that come in parts: bounded for each tenant in number and bytes, gone by themselves when forgotten."""

import asyncio
import mmap
import os
import secrets
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from service.errors import Conflict, QueueFull, TooMany, UnknownUpload
from service.settings import Limits
from service.spool import Spool
from service.tenants import Tenant

_LEAST: Final = 1


@dataclass(slots=True, eq=False)
class Upload:
    """One image on its way.

    Attributes:
        name: nobody can guess it.
        size: bytes that it is to have.
        received: bytes that are there, without a gap.
        busy: a part is coming in.
    """

    name: str
    tenant: Tenant
    size: int
    file: BinaryIO
    received: int = 0
    busy: bool = False
    alarm: asyncio.TimerHandle | None = field(default=None, repr=False)

    def write(self, piece: bytes) -> None:
        """The bytes that follow."""
        self.received += os.pwrite(self.file.fileno(), piece, self.received)

    def content(self) -> mmap.mmap:
        """All of it, read as it is needed.

        Raises:
            Conflict: some is missing.
        """
        if self.received < self.size:
            raise Conflict(
                f"The upload has {self.received:,} of {self.size:,} bytes.",
                hint=f"Send the rest: PATCH /v1/uploads/ID?offset={self.received}.",
                received=self.received,
                expected=self.size,
            )
        return mmap.mmap(self.file.fileno(), self.size, access=mmap.ACCESS_READ)


class Uploads:
    """The uploads of one gateway. Used on its event loop alone."""

    def __init__(self, spool: Spool, limits: Limits) -> None:
        self._spool = spool
        self._limits = limits
        self._by_name: dict[str, Upload] = {}

    def create(self, tenant: Tenant, size: int) -> Upload:
        """Room for an image.

        Raises:
            TooMany: larger than any body may be.
            QueueFull: the tenant has as much as it may have.
            SpoolFull: the disk has not the room.
        """
        limits = self._limits
        if not _LEAST <= size <= limits.upload_bytes:
            raise TooMany(
                f"An upload of {size:,} bytes; it may have from 1 to {limits.upload_bytes:,}.",
                hint="Send one bit a voxel, or a part of the image.",
                limit=limits.upload_bytes,
                got=size,
                unit="bytes",
            )
        theirs = [upload for upload in self._by_name.values() if upload.tenant == tenant]
        if len(theirs) >= limits.uploads or sum(upload.size for upload in theirs) + size > limits.upload_bytes:
            raise QueueFull(
                f"You have {len(theirs)} uploads; {limits.uploads} of {limits.upload_bytes:,} bytes together may be.",
                hint="Delete one, or wait until it expires.",
                headers={"Retry-After": "60"},
                limit=limits.uploads,
                got=len(theirs),
                retry_after_s=60,
            )
        upload = Upload(secrets.token_urlsafe(24), tenant, size, self._spool.open(size))
        self._by_name[upload.name] = upload
        self._touch(upload)
        return upload

    def get(self, tenant: Tenant, name: str) -> Upload:
        """An upload of this tenant; it lives on for a while from now.

        Raises:
            UnknownUpload: there is none, or it is another's.
        """
        upload = self._by_name.get(name)
        if upload is None or upload.tenant != tenant:
            raise UnknownUpload("There is no such upload.", hint="It may have expired: create another.")
        self._touch(upload)
        return upload

    def delete(self, upload: Upload) -> None:
        """Give its room back; who reads it reads on."""
        if self._by_name.pop(upload.name, None) is None:
            return
        if upload.alarm is not None:
            upload.alarm.cancel()
        self._spool.close(upload.file, upload.size)

    def close(self) -> None:
        """Delete all."""
        for upload in [*self._by_name.values()]:
            self.delete(upload)

    def _touch(self, upload: Upload) -> None:
        if upload.alarm is not None:
            upload.alarm.cancel()
        upload.alarm = asyncio.get_running_loop().call_later(self._limits.upload_idle_s, self._expire, upload)

    def _expire(self, upload: Upload) -> None:
        if upload.busy:
            self._touch(upload)
        else:
            self.delete(upload)
