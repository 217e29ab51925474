"""Tensors on the wire: the KServe v2 binary framing, one JSON head and then raw buffers.

    body = {"inputs": [{"name", "datatype", "shape", "parameters": {"binary_data_size"}}, ...], ...} buffer buffer ...

The JSON's length travels in the HTTP header `Inference-Header-Content-Length`. Buffers follow in the order of their
entries, little-endian, row-major, without padding. Requests list their tensors under `inputs`, answers under `outputs`.

Source: https://github.com/kserve/open-inference-protocol and Triton's `binary_tensor_data` extension.
"""

import json
import math
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from understudy.errors import FramingError

Array = NDArray[Any]
Head = dict[str, Any]
Buffer = bytes | bytearray | memoryview

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
MEDIA_TYPE: Final = "application/octet-stream"
MAX_RANK: Final = 16

DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
DATATYPES: Final[Mapping[str, str]] = {dtype.newbyteorder("=").str: name for name, dtype in DTYPES.items()}


def encode(
    head: Mapping[str, Any],
    tensors: Mapping[str, Array],
    *,
    field: str = "inputs",
    as_json: Collection[str] = (),
    dumps: Callable[[Head], bytes] | None = None,
) -> tuple[bytes, int]:
    """Frame tensors behind a JSON head.

    Args:
        head: everything else the JSON should say; an entry called `field` is replaced.
        tensors: name to array, any shape, any memory layout and byte order.
        field: where the tensors are listed: `inputs` in a request, `outputs` in an answer.
        as_json: names of tensors to write as JSON lists instead of buffers.
        dumps: a faster JSON writer (`orjson.dumps`); the standard library's by default.

    Returns:
        The body, and the byte length of its JSON head for `Inference-Header-Content-Length`. The two lengths are equal
        when no tensor is binary.

    Raises:
        FramingError: an array has a dtype that the wire does not know.
    """
    entries = [json_entry(k, a) if k in as_json else binary_entry(k, a) for k, a in tensors.items()]
    buffers = [np.ascontiguousarray(a, _wire_dtype(k, a)) for k, a in tensors.items() if k not in as_json]
    text = (dumps or dump_json)({**head, field: entries})
    return b"".join([text, *(buffer.data for buffer in buffers)]), len(text)


def decode(
    body: Buffer,
    header_length: int | None = None,
    *,
    field: str = "inputs",
    loads: Callable[[Any], Any] | None = None,
) -> tuple[Head, dict[str, Array]]:
    """Read a framed body, checking every size before anything of that size is allocated.

    Args:
        body: the whole body, decompressed.
        header_length: bytes of the JSON head; None when the body is JSON alone.
        field: where the tensors are listed: `inputs` in a request, `outputs` in an answer.
        loads: a faster JSON reader (`orjson.loads`); the standard library's, made strict, by default.

    Returns:
        The JSON head as it came, and the tensors by name: aligned, little-endian, possibly read-only views of `body`.

    Raises:
        FramingError: with `code`, and where they apply `tensor`, `expected` and `got`.
    """
    view = memoryview(body)
    length = len(view) if header_length is None else header_length
    if not 0 <= length <= len(view):
        raise FramingError(
            "header_length",
            f"{HEADER_LENGTH} is {length}, but the body has {len(view)} bytes.",
            "Set it to the number of bytes of the JSON that opens the body.",
            expected=f"0 to {len(view)}",
            got=length,
        )
    head = parse_head(view[:length], loads or load_json)
    return head, read_tensors(head, view[length:], field=field)


def parse_header_length(text: str) -> int:
    """The number in an `Inference-Header-Content-Length` header: decimal digits and nothing else.

    Raises:
        FramingError: the text is no such number.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise FramingError(
            "header_length",
            f"{HEADER_LENGTH} is not a number of bytes.",
            "Send plain decimal digits.",
            expected="decimal digits",
            got=text[:40],
        )
    return int(text)


def parse_head(text: Buffer, loads: Callable[[Any], Any]) -> Head:
    """The JSON object that opens a framed body.

    Raises:
        FramingError: not JSON, or JSON of another kind than an object.
    """
    try:
        head = loads(text)
    except (ValueError, RecursionError) as error:
        raise FramingError(
            "malformed_json",
            f"The JSON head cannot be read: {error}.",
            f"Check that {HEADER_LENGTH} counts exactly the bytes of the JSON, and that it holds no NaN or Infinity.",
        ) from error
    if not isinstance(head, dict):
        raise FramingError(
            "malformed_json", "The JSON head is not an object.", expected="object", got=type(head).__name__
        )
    return head


def read_tensors(head: Head, buffers: Buffer, *, field: str = "inputs") -> dict[str, Array]:
    """The tensors that a parsed head lists under `field`: from their JSON lists, or from the buffers behind the head.

    Raises:
        FramingError: as `decode` does.
    """
    entries = head.get(field, [])
    if not isinstance(entries, list):
        raise FramingError("malformed_tensors", f"'{field}' must be a list of tensors.", expected="list")
    rest, tensors = memoryview(buffers), dict[str, Array]()
    for position, entry in enumerate(entries):
        name = _name(entry, position, field)
        if name in tensors:
            raise FramingError(
                "duplicate_tensor", f"Tensor '{name}' is given twice.", "Give each tensor once.", tensor=name
            )
        tensors[name], rest = _read_tensor(name, entry, rest)
    if len(rest):
        raise FramingError(
            "surplus_bytes",
            f"{len(rest)} bytes follow the last tensor.",
            "The body must end with the last tensor's last byte; check shapes and binary_data_size.",
            expected=len(buffers) - len(rest),
            got=len(buffers),
        )
    return tensors


def binary_entry(name: str, array: Array) -> Head:
    """The head's entry for a tensor whose bytes follow the head."""
    return {**_describe(name, array), "parameters": {"binary_data_size": array.nbytes}}


def json_entry(name: str, array: Array) -> Head:
    """The head's entry for a tensor written as a flat JSON list."""
    return {**_describe(name, array), "data": array.ravel().tolist()}


def datatype_of(dtype: np.dtype[Any]) -> str | None:
    """The wire's name of a NumPy dtype (`float64` is `FP64`), or None if it has none."""
    return DATATYPES.get(dtype.newbyteorder("=").str)


def load_json(text: Any) -> Any:
    """Read JSON strictly: no NaN, no Infinity, no number too large for a double."""
    return json.loads(bytes(text), parse_constant=_refuse_constant, parse_float=_finite_float)


def dump_json(value: Any) -> bytes:
    """Write compact JSON in UTF-8.

    Raises:
        ValueError: the value holds NaN or an infinity.
    """
    return json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()


def _describe(name: str, array: Array) -> Head:
    _wire_dtype(name, array)
    return {"name": name, "datatype": datatype_of(array.dtype), "shape": list(array.shape)}


def _wire_dtype(name: str, array: Array) -> np.dtype[Any]:
    datatype = datatype_of(array.dtype)
    if datatype is None:
        raise _unsupported(name, str(array.dtype))
    return DTYPES[datatype]


def _unsupported(name: str, got: str) -> FramingError:
    return FramingError(
        "unsupported_datatype",
        f"Tensor '{name}' has datatype {got}, which is not taken here.",
        f"Send one of {', '.join(DTYPES)}.",
        tensor=name,
        expected=list(DTYPES),
        got=got,
    )


def _name(entry: Any, position: int, field: str) -> str:
    if not isinstance(entry, dict):
        raise FramingError("malformed_tensors", f"{field}[{position}] is not an object.", expected="object")
    name = entry.get("name")
    if not (isinstance(name, str) and name):
        raise FramingError("malformed_tensors", f"{field}[{position}] has no name.", "Name each tensor.")
    return name


def _read_tensor(name: str, entry: Head, rest: memoryview) -> tuple[Array, memoryview]:
    dtype, shape = _dtype(name, entry), _shape(name, entry)
    expected = _byte_count(name, shape, dtype)
    size = _binary_data_size(name, entry)
    if ("data" in entry) == (size is not None):
        raise FramingError(
            "ambiguous_tensor",
            f"Tensor '{name}' must have either 'data' or 'parameters.binary_data_size', and not both.",
            tensor=name,
        )
    if size is None:
        return _from_json(name, entry["data"], shape, dtype), rest
    if size != expected:
        raise FramingError(
            "size_mismatch",
            f"Tensor '{name}' of shape {list(shape)} and {entry['datatype']} is {expected} bytes, "
            f"but binary_data_size says {size}.",
            "Make binary_data_size the product of the shape times the item size.",
            tensor=name,
            expected=expected,
            got=size,
        )
    if size > len(rest):
        raise FramingError(
            "missing_bytes",
            f"Tensor '{name}' claims {size} bytes, but only {len(rest)} are left in the body.",
            "Send the whole tensor; the body may have been cut off.",
            tensor=name,
            expected=size,
            got=len(rest),
        )
    return _from_bytes(name, rest[:size], shape, dtype), rest[size:]


def _dtype(name: str, entry: Head) -> np.dtype[Any]:
    datatype = entry.get("datatype")
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise _unsupported(name, str(datatype)[:40])
    return DTYPES[datatype]


def _shape(name: str, entry: Head) -> tuple[int, ...]:
    shape = entry.get("shape")
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(map(_is_dimension, shape)):
        raise FramingError(
            "malformed_shape",
            f"Tensor '{name}' has no usable shape.",
            f"Give a list of at most {MAX_RANK} whole numbers, none of them negative.",
            tensor=name,
            expected=f"at most {MAX_RANK} dimensions from 0 to {sys.maxsize}",
            got=str(shape)[:80],
        )
    return tuple(shape)


def _is_dimension(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= sys.maxsize


def _byte_count(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of a tensor, in Python's unbounded integers: a product of hostile dimensions cannot wrap around."""
    addressed = math.prod(d for d in shape if d) * dtype.itemsize
    if addressed > sys.maxsize:
        raise FramingError(
            "malformed_shape",
            f"Tensor '{name}' has a shape that no machine can hold.",
            tensor=name,
            expected=f"at most {sys.maxsize} bytes",
            got=addressed,
        )
    return math.prod(shape) * dtype.itemsize


def _binary_data_size(name: str, entry: Head) -> int | None:
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise FramingError("malformed_tensors", f"'parameters' of tensor '{name}' must be an object.", tensor=name)
    size = parameters.get("binary_data_size")
    if size is not None and not _is_dimension(size):
        raise FramingError(
            "size_mismatch",
            f"binary_data_size of tensor '{name}' must be a whole number of bytes.",
            tensor=name,
            got=str(size)[:40],
        )
    return size


def _from_bytes(name: str, buffer: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "b" and np.frombuffer(buffer, np.uint8).max(initial=0) > 1:
        raise FramingError(
            "malformed_bool", f"BOOL tensor '{name}' has bytes other than 0 and 1.", tensor=name, expected="0 or 1"
        )
    # A buffer behind a JSON head starts at any address; ascontiguousarray would leave it unaligned.
    return np.require(np.frombuffer(buffer, dtype), requirements="A").reshape(shape)


def _from_json(name: str, data: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if dtype == np.float16:
        raise FramingError("malformed_data", f"FP16 tensor '{name}' is only taken as binary.", tensor=name)
    array = _numbers(name, data, dtype)
    if array.size and array.dtype.kind not in {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]:
        raise _wrong_kind(name, dtype, str(array.dtype))
    if array.shape not in (shape, (math.prod(shape),)):
        raise FramingError(
            "size_mismatch",
            f"Tensor '{name}' has data of shape {list(array.shape)}, but its shape says {list(shape)}.",
            "Give the values as one flat list or nested as the shape says.",
            tensor=name,
            expected=list(shape),
            got=list(array.shape),
        )
    return _cast_exactly(name, array, dtype).reshape(shape)


def _numbers(name: str, data: Any, dtype: np.dtype[Any]) -> Array:
    values = data if isinstance(data, list) else [data]
    try:
        array = np.asarray(values)
        if dtype == np.uint64 and array.dtype == np.float64:  # NumPy's choice for a list with and without the top bit
            return _as_uint64(np.asarray(values, object), array)
    except (ValueError, OverflowError) as error:
        raise FramingError("malformed_data", f"Tensor '{name}' is ragged or nested too deeply.", tensor=name) from error
    return array


def _as_uint64(exact: Array, otherwise: Array) -> Array:
    whole = all(type(value) is int and 0 <= value < 2**64 for value in exact.flat)
    return exact.astype(np.uint64) if whole else otherwise


def _wrong_kind(name: str, dtype: np.dtype[Any], got: str) -> FramingError:
    return FramingError(
        "malformed_data",
        f"Tensor '{name}' must hold {DATATYPES[dtype.newbyteorder('=').str]} values.",
        "Send JSON numbers (true and false for BOOL), not strings or null, and within the datatype's range.",
        tensor=name,
        expected=DATATYPES[dtype.newbyteorder("=").str],
        got=got,
    )


def _cast_exactly(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    faithful = np.isfinite(cast) if dtype.kind == "f" else cast == array
    if not faithful.all():
        raise _wrong_kind(name, dtype, "a value out of range")
    return cast


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large for a double")
    return value
