"""What a client says and when, without saying how: conversations as generators.

A flow yields a `Call` and is sent what came of it (an `httpx.Response` or an `httpx.RequestError`), or yields a `Pause`
and is resumed when it is over. The synchronous and the asynchronous client only drive flows, so neither holds logic.
"""

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote

import httpx

from understudy.answers import object_of, part_of, prediction_of, unreachable
from understudy.errors import Refused
from understudy.framing import HEADER_LENGTH, MEDIA_TYPE, encode
from understudy.options import PredictOptions, head_of
from understudy.predictions import Prediction, part
from understudy.receipts import Receipt
from understudy.retries import Retries
from understudy.structures import Structure, pack, plain
from understudy.wire import (
    Command,
    CommandIn,
    ModelList,
    ModelSummary,
    ModelVersions,
    PlanAnswer,
    ReplayAnswer,
    ReplayReport,
    VersionsList,
)

T = TypeVar("T")

MAX_STRUCTURES_A_CALL: Final = 256
MAX_ATOMS_A_CALL: Final = 50_000
_JSON: Final = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, before it has a connection; `on_line` is told each line of a good answer as it comes."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    on_line: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing to do for so many seconds."""

    seconds: float


Step: TypeAlias = Call | Pause
Outcome: TypeAlias = httpx.Response | httpx.RequestError
Flow: TypeAlias = Generator[Step, Any, T]
Asker: TypeAlias = Callable[[Call], Flow[httpx.Response]]


def asker(url: str, retries: Retries) -> Asker:
    """How to get one answer from the gateway at `url`: ask, and where it helps wait and ask again."""

    def ask(call: Call) -> Flow[httpx.Response]:
        answers = losses = 0
        while True:
            outcome: Outcome = yield call
            if isinstance(outcome, httpx.Response):
                pause_s = retries.pause_after_answer(outcome.status_code, outcome.headers, answers)
                if pause_s is None:
                    return outcome
                answers += 1
            else:
                pause_s = retries.pause_after_loss(losses) if _may_help(outcome) else None
                if pause_s is None:
                    raise unreachable(outcome, url) from outcome
                losses += 1
            yield Pause(pause_s)

    return ask


def models(ask: Asker) -> Flow[list[ModelSummary]]:
    """`GET /v1/models`."""
    response = yield from ask(Call("GET", "/v1/models"))
    return part_of(response, ModelList).models


def card(ask: Asker, model: str) -> Flow[dict[str, Any]]:
    """`GET /v1/models/{model}`."""
    response = yield from ask(Call("GET", f"/v1/models/{quote(model, safe='')}"))
    return object_of(response)


def limits(ask: Asker) -> Flow[dict[str, Any]]:
    """`GET /v1/limits`."""
    response = yield from ask(Call("GET", "/v1/limits"))
    return object_of(response)


def versions(ask: Asker) -> Flow[list[ModelVersions]]:
    """`GET /v1/admin/models`."""
    response = yield from ask(Call("GET", "/v1/admin/models"))
    return part_of(response, VersionsList).models


def command(url: str, model: str, name: Command, version: str | None, force: bool) -> Flow[ModelVersions]:
    """`POST /v1/admin/models/{model}/{command}`: asked once, for it may have been carried out though no answer came."""
    body = CommandIn(version=version, force=force).model_dump_json().encode()
    path = f"/v1/admin/models/{quote(model, safe='')}/{name}"
    outcome: Outcome = yield Call("POST", path, {"Content-Type": "application/json"}, body)
    if not isinstance(outcome, httpx.Response):
        raise unreachable(outcome, url) from outcome
    return part_of(outcome, ModelVersions)


def ready(ask: Asker) -> Flow[bool]:
    """`GET /v2/health/ready`: a refusal is an answer too."""
    response = yield from ask(Call("GET", "/v2/health/ready"))
    return response.is_success


def predict(
    ask: Asker,
    model: str,
    structures: Sequence[Structure],
    options: PredictOptions,
    on_progress: Callable[[int, int], None] | None,
) -> Flow[list[Prediction]]:
    """`POST /v1/predict/{model}`, as many times as the list is long; the answers in the order of the list."""
    predictions: dict[int, Prediction] = {}
    for places in chunks(structures):
        chunk = [structures[place] for place in places]
        response = yield from ask(predict_call(model, chunk, options))
        try:
            head, tensors = prediction_of(response)
        except Refused as refusal:
            raise _in_the_whole_list(refusal, places) from refusal.__cause__
        predictions.update(zip(places, part(head, tensors, [len(s) for s in chunk]), strict=True))
        if on_progress:
            on_progress(len(predictions), len(structures))
    return [predictions[place] for place in range(len(structures))]


def predict_call(model: str, structures: Sequence[Structure], options: PredictOptions) -> Call:
    """The request for a batch of structures, in the binary framing."""
    body, length = encode(head_of(options), pack(structures))
    headers = {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE, HEADER_LENGTH: str(length)}
    return Call("POST", f"/v1/predict/{quote(model, safe='')}", headers, body)


def plan(
    ask: Asker, model: str, structures: Sequence[Structure], sizes: Sequence[Mapping[str, Any]], options: PredictOptions
) -> Flow[PlanAnswer]:
    """`POST /v1/plan`."""
    items = {"structures": [plain(s) for s in structures]} if structures else {"sizes": [dict(size) for size in sizes]}
    body = {"model": model, **items, **head_of(options)}
    response = yield from ask(Call("POST", "/v1/plan", _JSON, json.dumps(body, allow_nan=False).encode()))
    return part_of(response, PlanAnswer)


def replay(
    ask: Asker, receipt: Receipt, structures: Sequence[Structure], results: Sequence[Any] | None
) -> Flow[ReplayReport]:
    """`POST /v1/replay`."""
    body: dict[str, Any] = {"receipt": receipt.model_dump(), "structures": [plain(s) for s in structures]}
    if results is not None:
        body["results"] = list(results)
    response = yield from ask(Call("POST", "/v1/replay", _JSON, json.dumps(body, allow_nan=False).encode()))
    return part_of(response, ReplayAnswer).replay


def chunks(structures: Sequence[Structure]) -> Iterator[list[int]]:
    """Places in the list, in parts small enough for one call each; a structure too large for a part goes alone.

    A part holds either structures that are periodic in three directions or others, not both: the gateway's answer has
    one stress tensor for a whole call, or none.
    """
    periodic = [bool(s.pbc.all()) for s in structures]
    for kind in (True, False):
        chunk: list[int] = []
        atoms = 0
        for place in (i for i, p in enumerate(periodic) if p is kind):
            size = len(structures[place])
            if chunk and (len(chunk) == MAX_STRUCTURES_A_CALL or atoms + size > MAX_ATOMS_A_CALL):
                yield chunk
                chunk, atoms = [], 0
            chunk.append(place)
            atoms += size
        if chunk:
            yield chunk


def _may_help(error: httpx.RequestError) -> bool:
    """Whether asking again makes sense: not after a time-out, since the gateway would start the same work again."""
    return isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)


def _in_the_whole_list(refusal: Refused, places: Sequence[int]) -> Refused:
    """The same refusal with the structure's index in the caller's whole list, not in the part that was sent."""
    index = refusal.facts.get("index")
    if isinstance(index, int) and 0 <= index < len(places) and places[index] != index:
        refusal.facts["index"] = places[index]
        refusal.hint = f"{refusal.hint} (It is structure {places[index]} of the list.)".strip()
    return refusal
