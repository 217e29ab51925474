"""Bodies to structures: JSON by orjson and NumPy, and tensors of the KServe framing."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, get_args

import numpy as np
import orjson
from numpy.typing import NDArray
from understudy.framing import Array
from understudy.wire import Check, Escalate, OnOutOfDomain

from contract.errors import BadShape, BadType
from contract.structures import MAX_COORDINATE_ANGSTROM, Structure, checked_structure
from service.errors import BadRequest, MalformedJson, MissingField, TooMany, UnknownField
from service.settings import Limits
from service.tenants import PRIORITIES

FIELDS: Final = ("numbers", "positions", "cell", "pbc")
TENSORS: Final = ("numbers", "positions", "natoms", "cell", "pbc")
WORDS: Final[Mapping[str, Sequence[str]]] = {
    "on_out_of_domain": get_args(OnOutOfDomain),
    "check": get_args(Check),
    "escalate": get_args(Escalate),
    "priority": PRIORITIES,
}
CHOICES: Final = (*WORDS, "model_digest")
_DIGEST: Final = re.compile("[0-9a-f]{12,64}")
_SMALL: Final = 300
_NOT_PERIODIC: Final = np.zeros(3, bool)


def json_object(body: bytes | bytearray | memoryview, allowed: Sequence[str]) -> dict[str, Any]:
    """A JSON body that must be an object with no other members than these.

    Raises:
        MalformedJson, UnknownField
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedJson(
            f"The body is not JSON: {error}." if body else "The body is empty.",
            hint="Send a JSON object in UTF-8; NaN, Infinity and numbers beyond a double are not JSON.",
        ) from None
    if not isinstance(value, dict):
        raise MalformedJson(
            f"The body is a JSON {type(value).__name__}, not an object.", hint='Send {"structures": [...]}.'
        )
    refuse_unknown(value, allowed, "the body")
    return value


def refuse_unknown(names: Iterable[str], allowed: Sequence[str], where: str) -> None:
    """Refuse a name that is not on the list: it may be misspelt, or ask for something that would be left out.

    Raises:
        UnknownField
    """
    for name in names:
        if name not in allowed:
            raise UnknownField(
                f"'{name[:60]}' in {where} is not known here.",
                hint=f"Allowed: {', '.join(allowed)}.",
                field=name[:60],
                expected=list(allowed),
            )


def choices_of(said: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What a caller chose among a few words, as arguments of `Options`; what was not said is left out.

    Args:
        said: choices by name.
        prefix: of the names, "us_" in KServe's parameters.

    Raises:
        BadRequest: naming the choice and the words.
    """
    chosen = {
        name: _one_of(said[prefix + name], words, prefix + name)
        for name, words in WORDS.items()
        if prefix + name in said
    }
    if (field := f"{prefix}model_digest") in said:
        chosen["model_digest"] = _digest(said[field], field)
    return chosen


def _one_of(choice: Any, words: Sequence[str], field: str) -> Any:
    if choice not in words:
        raise BadRequest(
            f"{field} is {str(choice)[:40]}.",
            hint=f"Give {' or '.join(words)}.",
            field=field,
            expected=list(words),
        )
    return choice


def _digest(value: Any, field: str) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise BadRequest(
            f"{field} is {str(value)[:70]}.",
            hint="Give the 64 hexadecimal digits of a model's digest, or at least its first 12.",
            field=field,
        )
    return value


def structures_from_json(value: Any, limits: Limits) -> list[Structure]:
    """The member `structures` of a JSON request.

    Raises:
        InvalidInput, ServiceError: naming the structure's index, the field and the remedy.
    """
    if not isinstance(value, list) or not value:
        raise MissingField(
            "structures must be a list of at least one structure.",
            hint='Send {"structures": [{"numbers": [...], "positions": [...]}]}.',
            field="structures",
        )
    refuse_many(len(value), limits.structures, "structures")
    structures = [_structure_from_json(item, index) for index, item in enumerate(value)]
    refuse_many(sum(map(len, structures)), limits.atoms, "atoms")
    return structures


def _structure_from_json(item: Any, index: int) -> Structure:
    if not isinstance(item, dict):
        raise BadType(
            f"structures[{index}] is a JSON {type(item).__name__}, not an object.",
            hint='Send {"numbers": [...], "positions": [...]}.',
            field="structures",
            index=index,
        )
    refuse_unknown(item, FIELDS, f"structures[{index}]")
    for field in ("numbers", "positions"):
        if field not in item:
            raise MissingField(
                f"structures[{index}] has no {field}.",
                hint="A structure needs numbers [n] and positions [n, 3] in angstrom.",
                field=field,
                index=index,
            )
    return checked_structure(item["numbers"], item["positions"], item.get("cell"), item.get("pbc"), index)


def structures_from_tensors(tensors: Mapping[str, Array], limits: Limits) -> list[Structure]:
    """Concatenated structures: numbers [N], positions [N, 3], natoms [B] and where periodic cell [B, 3, 3], pbc [B, 3].

    Without natoms all atoms are one structure.

    Raises:
        InvalidInput, ServiceError: naming the structure's index or the tensor, and the remedy.
    """
    refuse_unknown(tensors, TENSORS, "inputs")
    for field in ("numbers", "positions"):
        if field not in tensors:
            raise MissingField(f"There is no input '{field}'.", hint=f"Inputs are {', '.join(TENSORS)}.", field=field)
    numbers, positions = tensors["numbers"], tensors["positions"]
    refuse_many(len(numbers) if numbers.ndim else 0, limits.atoms, "atoms")
    natoms = _natoms(tensors.get("natoms"), numbers, limits)
    _refuse_shape("positions", positions, (len(numbers), 3), positions.shape)
    cells = _per_structure("cell", tensors.get("cell"), (len(natoms), 3, 3))
    pbc = _per_structure("pbc", tensors.get("pbc"), (len(natoms), 3))
    # Own memory: a view of the body may be read-only, for which compiled code would be compiled a second time.
    numbers, positions = numbers.copy(), np.array(positions, np.float64) if positions.dtype.kind in "iuf" else positions
    structures, start = [], 0
    for index, count in enumerate(natoms):
        end = start + count
        structures.append(_structure(numbers[start:end], positions[start:end], cells[index], pbc[index], index))
        start = end
    return structures


def _structure(numbers: Array, positions: Array, cell: Array | None, pbc: Array | None, index: int) -> Structure:
    """As `checked_structure`, faster for a small molecule whose atomic numbers have been seen before."""
    periodic = pbc is not None and pbc.any()
    if not periodic and numbers.dtype == np.int64 and len(numbers) <= _SMALL and positions.dtype == np.float64:
        size = np.abs(positions).max(initial=0.0)
        if size <= MAX_COORDINATE_ANGSTROM and len(numbers):  # not so if any is NaN
            return Structure(_checked_numbers(numbers.tobytes(), index), positions, None, _NOT_PERIODIC)
    return checked_structure(numbers, positions, cell, pbc, index)


@lru_cache(1024)
def _checked_numbers(numbers: bytes, index: int) -> NDArray[np.int64]:
    known = np.frombuffer(numbers, np.int64)
    return checked_structure(known, np.zeros((len(known), 3)), index=index).numbers


def _natoms(value: Array | None, numbers: Array, limits: Limits) -> list[int]:
    _refuse_shape("numbers", numbers, ("N",), numbers.shape)
    if value is None:
        return [len(numbers)]
    _refuse_shape("natoms", value, ("B",), value.shape)
    refuse_many(len(value), limits.structures, "structures")
    if value.dtype.kind not in "iu":
        raise BadType(f"natoms must be integers, got {value.dtype}.", hint="Send INT64.", field="natoms")
    counts: list[int] = value.tolist()
    if not counts:
        raise MissingField("natoms is empty.", hint="Give the number of atoms of each structure.", field="natoms")
    if min(counts) < 0 or sum(counts) != len(numbers):
        raise BadShape(
            f"natoms adds up to {sum(counts)} atoms, but numbers has {len(numbers)}.",
            hint="natoms holds the number of atoms of each structure, in order.",
            field="natoms",
            expected=len(numbers),
            got=sum(counts),
        )
    return counts


def _per_structure(name: str, value: Array | None, shape: tuple[int, ...]) -> Sequence[Array | None]:
    if value is None:
        return [None] * shape[0]
    if shape[0] == 1 and value.shape == shape[1:]:
        value = value[None]
    _refuse_shape(name, value, shape, value.shape)
    return list(value.copy())


def _refuse_shape(name: str, array: Array, expected: tuple[int | str, ...], got: tuple[int, ...]) -> None:
    fits = len(expected) == len(got) and all(isinstance(e, str) or e == g for e, g in zip(expected, got, strict=True))
    if not fits:
        raise BadShape(
            f"{name} has shape {list(got)}, expected {list(expected)}.",
            hint="All structures are concatenated: N atoms in all, B structures.",
            field=name,
            expected=list(expected),
            got=list(got),
        )


def refuse_many(got: int, limit: int, unit: str) -> None:
    """Refuse a request with more structures or atoms than one may hold.

    Raises:
        TooMany
    """
    if got > limit:
        raise TooMany(
            f"The request has {got:,} {unit}; the limit is {limit:,}.",
            hint="Send several smaller requests.",
            limit=limit,
            got=got,
            unit=unit,
        )
