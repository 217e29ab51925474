"""`/v1/uploads`: an image in parts, so that a lost connection costs the last part and not the whole.

    POST   /v1/uploads?bytes=N          room for N bytes: 201 and its name
    PATCH  /v1/uploads/NAME?offset=K    bytes from K on; K must be what was received so far
    GET    /v1/uploads/NAME             how many bytes were received
    DELETE /v1/uploads/NAME

What has arrived of a part stays, even if its connection is lost. `?upload=NAME` then takes the place of a body.
"""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from service.access import tenant_of
from service.api.body import pieces_of
from service.errors import BadRequest, BodyTooLarge, Conflict
from service.plane import Plane
from service.uploads import Upload, Uploads


async def create(request: Request) -> Response:
    """Room for an image of a stated size."""
    upload = _uploads(request).create(tenant_of(request.scope), _number(request, "bytes"))
    return _said(request, upload, 201)


async def show(request: Request) -> Response:
    """How much of an upload has arrived."""
    return _said(request, _upload(request))


async def append(request: Request) -> Response:
    """The next part of an upload, from the offset on that was received so far."""
    upload, offset = _upload(request), _number(request, "offset")
    plane: Plane = request.app.state.plane
    if upload.busy or offset != upload.received:
        raise Conflict(
            "Another part is coming in."
            if upload.busy
            else f"offset is {offset:,}; {upload.received:,} bytes are there.",
            hint="Go on from what was received.",
            received=upload.received,
        )
    upload.busy = True
    try:
        async for piece in pieces_of(request, plane.limits):
            if upload.received + len(piece) > upload.size:
                raise BodyTooLarge(
                    f"The upload is to have {upload.size:,} bytes; this is more.",
                    hint="Create it with the right size.",
                    limit=upload.size,
                    unit="bytes",
                )
            upload.write(piece)
    finally:
        upload.busy = False
    return _said(request, upload)


async def delete(request: Request) -> Response:
    """Delete an upload and give its room back."""
    _uploads(request).delete(_upload(request))
    return Response(status_code=204)


def _upload(request: Request) -> Upload:
    return _uploads(request).get(tenant_of(request.scope), request.path_params["upload"])


def _uploads(request: Request) -> Uploads:
    plane: Plane = request.app.state.plane
    return plane.uploads


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadRequest(f"{name} is '{text[:20]}'.", hint=f"Add ?{name}= and a whole number.", field=name)
    return int(text)


def _said(request: Request, upload: Upload, status: int = 200) -> Response:
    plane: Plane = request.app.state.plane
    said: dict[str, Any] = {
        "upload": upload.name,
        "bytes": upload.size,
        "received": upload.received,
        "expires_in_s": plane.limits.upload_idle_s,
    }
    return Response(orjson.dumps(said), status, media_type="application/json")
