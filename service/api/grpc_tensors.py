"""Requests and answers of the Open Inference Protocol as protobuf messages: what kserve_http reads from a framed body.

A tensor's values come raw, one entry of `raw_input_contents` per input in their order, or typed in its own `contents`;
never both. Answers are always raw.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb
from understudy.errors import FramingError
from understudy.framing import DTYPES, Array, Head, datatype_of, read_tensors

from service.api.framed import FramedRequest
from service.api.kserve import Asked
from service.api.parse import TENSORS, refuse_many, refuse_unknown, structures_from_tensors
from service.errors import BodyTooLarge, NotServed
from service.models import Served
from service.settings import Limits

MAX_INPUTS: Final = 64
_SHARED_MEMORY: Final = "shared_memory_region"
_TYPED: Final[Mapping[str, tuple[str, str]]] = {  # datatype: field of InferTensorContents, dtype of that field
    "BOOL": ("bool_contents", "?"),
    **{f"INT{bits}": ("int_contents", "i4") for bits in (8, 16, 32)},
    "INT64": ("int64_contents", "i8"),
    **{f"UINT{bits}": ("uint_contents", "u4") for bits in (8, 16, 32)},
    "UINT64": ("uint64_contents", "u8"),
    "FP32": ("fp32_contents", "f4"),
    "FP64": ("fp64_contents", "f8"),
}


UNREADABLE: Final = pb.ModelInferRequest()
"""Stands for a message that is not one: the library's own answer would show a traceback in the log for each."""


def reader_of(kind: Any) -> Callable[[bytes], Any]:
    """Reads messages of a kind; gives `UNREADABLE` for other bytes."""

    def read(data: bytes) -> Any:
        try:
            return kind.FromString(data)
        except DecodeError:
            return UNREADABLE

    return read


def refuse_unreadable(request: Any) -> None:
    """Refuse what `reader_of` could not read.

    Raises:
        FramingError
    """
    if request is UNREADABLE:
        raise FramingError(
            "malformed_message",
            "The message is not what this method takes.",
            "tritonclient and the stubs of the Open Inference Protocol write it.",
        )


def read_request(request: pb.ModelInferRequest, limits: Limits) -> FramedRequest:
    """The structures of a request, and the rest of it as the JSON head of an equal HTTP request.

    Raises:
        FramingError: tensors that are not as they claim.
        ServiceError, InvalidInput: too much, or not served; or the structures are refused.
    """
    head, tensors = read_inputs(request, limits, TENSORS)
    return FramedRequest(head, structures_from_tensors(tensors, limits))


def read_inputs(request: pb.ModelInferRequest, limits: Limits, known: Sequence[str]) -> tuple[Head, dict[str, Array]]:
    """The tensors of a request by name, only those that are known, and the rest of it as a JSON head.

    Raises:
        FramingError, ServiceError, InvalidInput
    """
    refuse_many(len(request.inputs), MAX_INPUTS, "inputs")
    buffers = _buffers(request)
    _refuse_large_head(request.ByteSize() - sum(map(len, buffers)), limits.json_bytes)
    head = _head(request)
    return head, _tensors(request.inputs, buffers, known)


def write_response(
    model: Served, asked: Asked, parameters: Mapping[str, str], tensors: Mapping[str, Array]
) -> pb.ModelInferResponse:
    """The tensors of an answer, raw, and what it says beside them."""
    card = model.card
    response = pb.ModelInferResponse(model_name=card.name, model_version=card.version, id=asked.id or "")
    for name, text in parameters.items():
        response.parameters[name].string_param = text
    for name, array in tensors.items():
        datatype = datatype_of(array.dtype) or ""
        response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        response.raw_output_contents.append(np.ascontiguousarray(array, DTYPES[datatype]).tobytes())
    return response


def _buffers(request: pb.ModelInferRequest) -> list[bytes]:
    """The raw contents, one per input; empty if the inputs are typed."""
    raw, inputs = len(request.raw_input_contents), len(request.inputs)
    if raw and raw != inputs:
        raise FramingError(
            "malformed_tensors",
            f"raw_input_contents has {raw} entries for {inputs} inputs.",
            "Give one entry per input in their order, or all values in the inputs' typed contents.",
            expected=inputs,
            got=raw,
        )
    return list(request.raw_input_contents)


def _refuse_large_head(size: int, limit: int) -> None:
    if size > limit:
        raise BodyTooLarge(
            f"The message has {size:,} bytes beside raw_input_contents; the limit is {limit:,}.",
            hint="Send the values of large tensors in raw_input_contents.",
            limit=limit,
            got=size,
            unit="bytes",
        )


def _head(request: pb.ModelInferRequest) -> Head:
    head: Head = {"parameters": {name: _value(value) for name, value in request.parameters.items()}}
    if request.id:
        head["id"] = request.id
    if request.outputs:
        for output in request.outputs:
            _refuse_shared_memory(output)
        head["outputs"] = [{"name": output.name} for output in request.outputs]
    return head


def _value(parameter: pb.InferParameter) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def _tensors(inputs: Iterable[Any], buffers: list[bytes], known: Sequence[str]) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    for position, entry in enumerate(inputs):
        refuse_unknown([entry.name], known, "inputs")
        if entry.name in tensors:
            raise FramingError(
                "duplicate_tensor",
                f"Tensor '{entry.name}' is given twice.",
                "Give each tensor once.",
                tensor=entry.name,
            )
        _refuse_shared_memory(entry)
        tensors[entry.name] = _tensor(entry, _raw(entry, buffers[position]) if buffers else _typed(entry))
    return tensors


def _tensor(entry: Any, values: bytes) -> Array:
    """The framing's reader, with a text that speaks of this wire."""
    described = {"name": entry.name, "datatype": entry.datatype, "shape": list(entry.shape)}
    try:
        return read_tensors({"inputs": [{**described, "parameters": {"binary_data_size": len(values)}}]}, values)[
            entry.name
        ]
    except FramingError as error:
        if error.code != "size_mismatch":
            raise
        item = DTYPES[entry.datatype].itemsize
        expected, got = int(error.facts["expected"]), len(values)
        raise FramingError(
            "size_mismatch",
            f"Tensor '{entry.name}' of shape {described['shape']} and {entry.datatype} has {expected // item:,} values "
            f"({expected:,} bytes), but {got / item:,.10g} ({got:,} bytes) were sent.",
            "Make the shape and the datatype those of the values.",
            tensor=entry.name,
            expected=expected,
            got=got,
        ) from None


def _raw(entry: Any, buffer: bytes) -> bytes:
    if entry.HasField("contents"):
        raise FramingError(
            "ambiguous_tensor",
            f"Tensor '{entry.name}' has typed contents beside raw_input_contents.",
            "Use one or the other for all inputs.",
            tensor=entry.name,
        )
    return buffer


def _typed(entry: Any) -> bytes:
    """Typed values as the bytes of the datatype; of datatypes that are not known the framing tells."""
    if entry.datatype not in _TYPED:
        if entry.datatype in DTYPES:  # FP16
            raise _malformed(entry, f"{entry.datatype} is only taken raw.", "Send it in raw_input_contents.")
        return b""
    field, held = _TYPED[entry.datatype]
    others = [used.name for used, _ in entry.contents.ListFields() if used.name != field]
    if others:
        raise _malformed(
            entry, f"{entry.datatype} values belong into {field}, not into {others[0]}.", "Use the datatype's field."
        )
    values = np.array(getattr(entry.contents, field), np.dtype(held))
    cast = values.astype(DTYPES[entry.datatype])
    if values.dtype.kind in "iu" and (cast != values).any():
        raise _malformed(entry, f"a value is out of the range of {entry.datatype}.", "Use a wider datatype.")
    return cast.tobytes()


def _malformed(entry: Any, what: str, hint: str) -> FramingError:
    return FramingError(
        "malformed_data", f"Tensor '{entry.name}': {what}", hint, tensor=entry.name, expected=entry.datatype
    )


def _refuse_shared_memory(entry: Any) -> None:
    if _SHARED_MEMORY in entry.parameters:
        raise NotServed(
            f"Tensor '{entry.name[:60]}' is said to lie in shared memory, which is not served here.",
            hint="Send its values in the message.",
        )
