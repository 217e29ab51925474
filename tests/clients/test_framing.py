"""The tensor framing: what goes in comes out, and nothing hostile gets through."""

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from understudy.errors import FramingError
from understudy.framing import DTYPES, binary_entry, decode, encode, parse_header_length

arrays = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: npst.arrays(DTYPES[name], npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
tensor_sets = st.dictionaries(st.text(min_size=1, max_size=8), arrays, max_size=4)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


def framed(entry: dict[str, Any], buffer: bytes = b"") -> tuple[bytes, int]:
    head = json.dumps({"inputs": [entry]}).encode()
    return head + buffer, len(head)


def refused(body: bytes, length: int | None, code: str) -> FramingError:
    with pytest.raises(FramingError) as caught:
        decode(body, length)
    assert caught.value.code == code
    return caught.value


@given(tensor_sets, st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3))
def test_tensors_and_head_come_back_as_they_were_sent(tensors: dict[str, np.ndarray], extra: dict[str, Any]) -> None:
    body, length = encode(extra, tensors)
    head, read = decode(body, length)
    assert list(read) == list(tensors)
    assert all(same(read[name], array) for name, array in tensors.items())
    assert {k: v for k, v in head.items() if k != "inputs"} == {k: v for k, v in extra.items() if k != "inputs"}


@given(npst.arrays(np.float64, (3, 4)), st.integers(0, 9))
def test_any_memory_layout_and_byte_order_is_sent_as_little_endian_rows(array: np.ndarray, lead: int) -> None:
    tensors = {"lead": np.zeros(lead, np.int8), "t": array.astype(">f8").T, "s": array[::2, ::-1]}
    read = decode(*encode({}, tensors))[1]
    assert same(read["t"], np.ascontiguousarray(array.T))
    assert same(read["s"], np.ascontiguousarray(array[::2, ::-1]))
    assert all(tensor.flags.aligned for tensor in read.values())


@given(tensor_sets.filter(lambda tensors: any(a.nbytes for a in tensors.values())), st.data())
def test_a_body_cut_anywhere_is_refused(tensors: dict[str, np.ndarray], data: st.DataObject) -> None:
    body, length = encode({}, tensors)
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(FramingError):
        decode(body[:cut], length)


@given(tensor_sets, st.binary(min_size=1, max_size=9))
def test_bytes_after_the_last_tensor_are_refused(tensors: dict[str, np.ndarray], surplus: bytes) -> None:
    body, length = encode({}, tensors)
    refused(body + surplus, length, "surplus_bytes")


@given(st.binary(max_size=60), st.integers(-5, 70))
def test_any_bytes_are_either_read_or_refused_with_a_framing_error(body: bytes, length: int) -> None:
    with suppress(FramingError):
        decode(body, length)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"name": st.just("t") | json_values, "datatype": st.sampled_from(sorted(DTYPES)) | json_values},
        optional={
            "shape": json_values | st.lists(st.integers(-2, 2**66), max_size=4),
            "data": json_values,
            "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 2**66)}) | json_values,
        },
    ),
    st.binary(max_size=24),
)
def test_any_entry_is_either_read_or_refused_with_a_framing_error(entry: dict[str, Any], buffer: bytes) -> None:
    with suppress(FramingError):
        tensors = decode(*framed(entry, buffer))[1]
        assert sum(tensor.nbytes for tensor in tensors.values()) < 1000


@pytest.mark.parametrize(
    "shape",
    [
        [10**7, 3],
        [2**62, 2],
        [2**32, 2**32],
        [2**63],
        [2**64 + 1],
        [0, 2**62],
        [-1],
        [1.0],
        [True],
        ["3"],
        [1] * 50,
        3,
        None,
    ],
)
def test_a_claimed_shape_costs_no_memory(shape: Any) -> None:
    entry = {"name": "t", "datatype": "FP64", "shape": shape, "parameters": {"binary_data_size": 8}}
    with pytest.raises(FramingError) as caught:
        decode(*framed(entry, bytes(8)))
    assert caught.value.tensor == "t"


def test_a_size_that_disagrees_with_the_shape_says_what_was_expected() -> None:
    entry = {"name": "t", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 23}}
    error = refused(*framed(entry, bytes(23)), code="size_mismatch")
    assert (error.tensor, error.expected, error.got) == ("t", 24, 23)
    assert error.facts == {"tensor": "t", "expected": 24, "got": 23}


def test_a_boolean_byte_other_than_0_and_1_is_refused() -> None:
    entry = {"name": "t", "datatype": "BOOL", "shape": [3], "parameters": {"binary_data_size": 3}}
    refused(*framed(entry, b"\x00\x01\x02"), code="malformed_bool")


@pytest.mark.parametrize("datatype", ["BYTES", "BF16", "fp64", "", None, 7])
def test_a_datatype_that_is_not_taken_is_named_with_those_that_are(datatype: Any) -> None:
    entry = {"name": "t", "datatype": datatype, "shape": [1], "parameters": {"binary_data_size": 8}}
    error = refused(*framed(entry, bytes(8)), code="unsupported_datatype")
    assert "FP64" in str(error)


@pytest.mark.parametrize("parts", [{"data": [1.0], "parameters": {"binary_data_size": 8}}, {}])
def test_a_tensor_needs_either_data_or_bytes(parts: dict[str, Any]) -> None:
    entry = {"name": "t", "datatype": "FP64", "shape": [1], **parts}
    refused(*framed(entry, bytes(8)), code="ambiguous_tensor")


def test_a_tensor_given_twice_is_refused() -> None:
    entry = binary_entry("t", np.zeros(1))
    head = json.dumps({"inputs": [entry, entry]}).encode()
    refused(head + bytes(16), len(head), "duplicate_tensor")


@pytest.mark.parametrize("length", [-1, 1000])
def test_a_header_length_outside_the_body_is_refused(length: int) -> None:
    refused(b'{"inputs":[]}', length, "header_length")


@pytest.mark.parametrize("text", ["", "-1", "+5", "1e3", " 5", "0x10", "٣", "9" * 5000])
def test_a_header_length_is_plain_digits(text: str) -> None:
    with pytest.raises(FramingError):
        parse_header_length(text)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "1", '{"inputs"', '{"a":NaN}', '{"a":-Infinity}', '{"a":1e999}', "\xff", "[" * 100_000],
)
def test_a_head_that_is_no_json_object_is_refused(text: str) -> None:
    body = text.encode("latin-1")
    refused(body, len(body), "malformed_json")


@given(
    npst.arrays(
        st.sampled_from([DTYPES[name] for name in sorted(DTYPES) if name != "FP16"]),
        npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_tensors_written_as_json_come_back_too(array: np.ndarray) -> None:
    body, length = encode({}, {"t": array, "b": np.arange(3)}, as_json={"t"})
    assert same(decode(body, length)[1]["t"], array)
    alone, length = encode({}, {"t": array}, as_json={"t"})
    assert length == len(alone)
    assert same(decode(alone)[1]["t"], array)


def test_json_data_may_be_nested_as_the_shape_says() -> None:
    entry = {"name": "t", "datatype": "FP64", "shape": [2, 2], "data": [[1, 2], [3, 4.5]]}
    assert decode(*framed(entry))[1]["t"].tolist() == [[1.0, 2.0], [3.0, 4.5]]


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("FP64", ["1.5", "nan"]),
        ("FP64", [None, 1.0]),
        ("FP64", [[1.0], [2.0, 3.0]]),
        ("FP64", [True, False]),
        ("FP64", {"a": 1}),
        ("FP32", [1e300, 0.0]),
        ("INT64", [1.0, 2.0]),
        ("INT64", [2**63, 0]),
        ("INT64", [2**70, 0]),
        ("INT8", [128, 0]),
        ("UINT8", [-1, 0]),
        ("UINT64", [-1, 0]),
        ("BOOL", [0, 1]),
        ("FP16", [1.0, 2.0]),
        ("INT64", [1, 2, 3]),
    ],
)
def test_json_data_of_another_kind_range_or_size_is_refused(datatype: str, data: Any) -> None:
    with pytest.raises(FramingError) as caught:
        decode(*framed({"name": "t", "datatype": datatype, "shape": [2], "data": data}))
    assert caught.value.tensor == "t"


def test_an_array_that_the_wire_does_not_know_is_refused_before_it_is_sent() -> None:
    with pytest.raises(FramingError, match="complex128"):
        encode({}, {"t": np.zeros(2, complex)})
