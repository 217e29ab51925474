"""Reads just enough of an ONNX file to refuse one that would make the engine open another file.

Tensors of an ONNX graph may say that their values lie elsewhere (`data_location: EXTERNAL`, with any path). This walks
the protobuf wire format (https://protobuf.dev/programming-guides/encoding) down to every tensor, also those in
attributes, subgraphs and functions, without the onnx package.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from contract.errors import UnsafeArtefact

# Field numbers of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto): message -> field -> message.
_MESSAGES: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA: Final = 13
_DATA_LOCATION: Final = 14
_DEPTH: Final = 64


def read_self_contained(path: Path) -> bytes:
    """The bytes of an ONNX file whose tensors all lie in the file itself.

    Raises:
        UnsafeArtefact: a tensor lies in another file, or the file is no ONNX file.
    """
    content = path.read_bytes()
    try:
        external = _external(memoryview(content), "model", _DEPTH)
    except (IndexError, ValueError) as error:
        raise UnsafeArtefact(f"{path} is not an ONNX file: {error}") from None
    if external:
        raise UnsafeArtefact(f"{path} keeps tensors in other files; export it again with all weights in one file")
    return content


def _external(message: memoryview, kind: str, depth: int) -> bool:
    if depth == 0:
        raise ValueError(f"nested more than {_DEPTH} levels deep")
    for field, value in _fields(message):
        if kind == "tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value)):
            return True
        inner = _MESSAGES[kind].get(field)
        if inner and isinstance(value, memoryview) and _external(value, inner, depth - 1):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value: an integer, or the bytes of a string, message or packed list."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield field, value
        elif wire == 2:
            size, at = _varint(message, at)
            if size > len(message) - at:
                raise ValueError("cut off")
            yield field, message[at : at + size]
            at += size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")
