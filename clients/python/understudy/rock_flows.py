"""What a client says about rock images: the question, its progress, its field, and large images in parts."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlencode

import httpx

from understudy.answers import object_of, part_of, raise_for_refusal
from understudy.errors import BadAnswer
from understudy.flows import Asker, Call, Flow
from understudy.rocks import Permeability, RockBody

Tell: TypeAlias = Callable[[int, int], None]

LINES: Final = "application/x-ndjson"
IN_PARTS: Final = 32 * 2**20
"""Bytes; a larger image is uploaded in parts."""
PART: Final = 8 * 2**20
_STUCK: Final = 5


def permeability(
    ask: Asker, model: str, body: RockBody, voxel_size_um: float, options: Mapping[str, str], tell: Tell | None
) -> Flow[Permeability]:
    """`POST /v1/fields/{model}`; `tell` is told how far an image that is run in tiles has come."""
    lines: list[dict[str, Any]] = []

    def hear(line: str) -> None:
        said = json.loads(line)
        if "progress" in said and tell is not None:
            tell(said["progress"]["done"], said["progress"]["total"])
        elif "progress" not in said:
            lines.append(said)

    accept, on_line = ("application/json", None) if tell is None else (LINES, hear)
    response = yield from _asked(ask, model, body, voxel_size_um, options, accept, on_line)
    return part_of(response if tell is None else _last(response, lines), Permeability)


def field(
    ask: Asker, model: str, body: RockBody, voxel_size_um: float, options: Mapping[str, str], media_type: str
) -> Flow[bytes]:
    """`POST /v1/fields/{model}`, asked for the field as a file of some kind."""
    response = yield from _asked(ask, model, body, voxel_size_um, options, media_type, None)
    raise_for_refusal(response)
    return response.content


def uploaded(ask: Asker, content: bytes) -> Flow[str]:
    """The name of an upload of these bytes; after a lost connection it goes on with what has arrived.

    Raises:
        Refused: there is no room.
    """
    response = yield from ask(Call("POST", f"/v1/uploads?bytes={len(content)}"))
    name, at, stuck = str(object_of(response)["upload"]), 0, 0
    while at < len(content):
        part = Call("PATCH", f"/v1/uploads/{quote(name, safe='')}?offset={at}", {}, content[at : at + PART])
        response = yield from ask(part)
        received = _received(response)
        if received is None or stuck == _STUCK:
            raise_for_refusal(response)
        stuck = stuck + 1 if received in (None, at) else 0
        at = at if received is None else received
    return name


def _received(response: httpx.Response) -> int | None:
    """How much the gateway has, as it says in an answer, and in the refusal of a part that does not follow."""
    if response.status_code not in (200, 409):
        return None
    received = response.json().get("received")
    return received if isinstance(received, int) else None


def _asked(
    ask: Asker,
    model: str,
    body: RockBody,
    voxel_size_um: float,
    options: Mapping[str, str],
    accept: str,
    on_line: Callable[[str], None] | None,
) -> Flow[httpx.Response]:
    said = {"voxel_size_um": repr(float(voxel_size_um)), **body.said, **options}
    content, name = body.content, None
    if len(content) > IN_PARTS:
        name = yield from uploaded(ask, content)
        said["upload"], content = name, b""
    headers = {"Content-Type": body.media_type, "Accept": accept}
    path = f"/v1/fields/{quote(model, safe='')}?{urlencode(said)}"
    response = yield from ask(Call("POST", path, headers, content, on_line))
    if name is not None:
        yield from ask(Call("DELETE", f"/v1/uploads/{quote(name, safe='')}"))
    return response


def _last(response: httpx.Response, lines: list[dict[str, Any]]) -> httpx.Response:
    """The last line of a stream as an answer of its own.

    Raises:
        BadAnswer: the stream ended without one.
    """
    if not response.is_success:
        return response
    if not lines:
        raise BadAnswer("The answer ended before it was whole.", hint="Ask again.")
    problem = lines[-1].get("problem")
    if problem is not None:
        kind = {"Content-Type": "application/problem+json"}
        return httpx.Response(problem["status"], headers=kind, json=problem, request=response.request)
    return httpx.Response(200, json=lines[-1]["answer"], request=response.request)
