"""Bodies in the KServe framing, as both HTTP protocols read and write them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Final, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.requests import Request
from understudy.framing import HEADER_LENGTH, Array, Head, decode, parse_header_length

from contract.structures import Structure
from service.api.body import CLOSE, read_body
from service.api.parse import structures_from_tensors
from service.errors import BodyTooLarge
from service.families.potential import Prediction
from service.plane import Answer
from service.settings import Limits

T = TypeVar("T")

INLINE_BYTES: Final = 65_536
_REMEMBERED: Final = 512
_REMEMBERED_BYTES: Final = 1024
_LENGTH: Final = HEADER_LENGTH.lower()


@dataclass(frozen=True, slots=True)
class FramedRequest:
    """The JSON head of a body, and the structures in its tensors."""

    head: Head
    structures: list[Structure]


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor's place in a body."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int


@dataclass(frozen=True, slots=True)
class _Layout:
    """A head that was read once, and where it says the tensors lie."""

    head: Head
    tensors: tuple[_View, ...]
    size: int


_layouts: dict[bytes, _Layout] = {}


async def read_framed(request: Request, limits: Limits) -> FramedRequest:
    """Read structures in the KServe framing; without the length header it is JSON alone.

    Raises:
        FramingError: the body does not follow the framing.
        ServiceError, InvalidInput: it is too large, too slow or broken, or its structures are.
    """
    body, length = await _read(request, limits)

    def parse() -> FramedRequest:
        head, tensors = _decoded(body, length)
        return FramedRequest(head, structures_from_tensors(tensors, limits))

    return await apart_if_large(len(body), parse)


async def read_tensors(request: Request, limits: Limits) -> tuple[Head, dict[str, Array]]:
    """The same of a body that holds no structures: its head, and its tensors by name."""
    body, length = await _read(request, limits)
    return await apart_if_large(len(body), lambda: decode(body, length, loads=orjson.loads))


async def _read(request: Request, limits: Limits) -> tuple[bytes | bytearray, int | None]:
    header = request.headers.get(_LENGTH)
    length = None if header is None else parse_header_length(header)
    if length is not None and length > limits.json_bytes:
        raise _head_too_large(length, limits.json_bytes)
    return await read_body(request, limits.json_bytes if length is None else limits.binary_bytes, limits), length


def _decoded(body: bytes | bytearray, length: int | None) -> tuple[Head, dict[str, Array]]:
    """As `framing.decode`; a head that has been read before need not be read again: a trajectory repeats its head."""
    if length is None or length > _REMEMBERED_BYTES:
        return decode(body, length, loads=orjson.loads)
    key = bytes(body[:length])
    layout = _layouts.get(key)
    if layout is not None and len(body) == layout.size:
        return layout.head, {t.name: np.ndarray(t.shape, t.dtype, body, t.start) for t in layout.tensors}
    head, tensors = decode(body, length, loads=orjson.loads)
    if (layout := _layout(head, tensors, length, len(body))) is not None:
        if len(_layouts) >= _REMEMBERED:
            _layouts.clear()
        _layouts[key] = layout
    return head, tensors


def _layout(head: Head, tensors: Mapping[str, Array], start: int, size: int) -> _Layout | None:
    """Where a body's tensors lie; None unless all are binary and any value of theirs is legal."""
    if any("data" in entry for entry in head["inputs"]) or any(a.dtype.kind == "b" for a in tensors.values()):
        return None
    views = []
    for name, array in tensors.items():
        views.append(_View(name, array.shape, array.dtype, start))
        start += array.nbytes
    return _Layout(head, tuple(views), size)


async def apart_if_large(size: int, parse: Callable[[], T]) -> T:
    """Parse here and now, or on another thread where it would keep everyone else waiting."""
    return parse() if size <= INLINE_BYTES else await asyncio.to_thread(parse)


def tensors_of(predictions: Sequence[Prediction]) -> Mapping[str, Callable[[], Array | None]]:
    """The tensors of an answer by name, each made only when it is called for; None: these structures have none.

    energy, energy_std float64 [B] eV; stress, stress_std float64 [B, 6] eV/angstrom^3; virial float64 [B, 3, 3] eV;
    forces, forces_std float32 [N, 3] eV/angstrom; atomic_energies float64 [N] eV; in_domain bool [B].
    """
    return {
        "energy": lambda: np.array([p.energy for p in predictions]),
        "energy_std": lambda: _each([p.energy_std for p in predictions]),
        "forces": lambda: _joined([p.forces for p in predictions]),
        "stress": lambda: _each([p.stress for p in predictions]),
        "virial": lambda: np.array([p.virial for p in predictions], np.float64),
        "forces_std": lambda: _joined([p.forces_std for p in predictions]),
        "stress_std": lambda: _each([p.stress_std for p in predictions]),
        "atomic_energies": lambda: _joined([p.atomic_energies for p in predictions]),
        "in_domain": lambda: np.array([p.domain.in_domain for p in predictions]),
    }


def teacher_tensors_of(answer: Answer) -> Mapping[str, Callable[[], Array]]:
    """What the teacher said of every structure of an answer, as tensors.

    teacher_energy float64 [B] eV; teacher_forces float32 [N, 3] eV/angstrom; teacher_gap float64 [B, 3]: student minus
    teacher in eV per atom, the root mean square and the largest difference of the forces in eV/angstrom.
    """
    opinions = [answer.opinions[place] for place in sorted(answer.opinions)]
    return {
        "teacher_energy": lambda: np.array([opinion.teacher.energy for opinion in opinions]),
        "teacher_forces": lambda: np.concatenate([opinion.teacher.forces for opinion in opinions]),
        "teacher_gap": lambda: np.array([astuple(opinion.gap) for opinion in opinions]),
    }


def _each(values: Sequence[Any]) -> NDArray[np.float64] | None:
    return None if any(value is None for value in values) else np.array(values, np.float64)


def _joined(arrays: Sequence[Array | None]) -> Array | None:
    there = [array for array in arrays if array is not None]
    if len(there) < len(arrays):
        return None
    return there[0] if len(there) == 1 else np.concatenate(there)


def _head_too_large(length: int, limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"{HEADER_LENGTH} is {length:,}; a JSON head may have {limit:,} bytes.",
        hint="Send arrays as binary tensors behind the head.",
        headers=CLOSE,
        limit=limit,
        got=length,
        unit="bytes",
    )
