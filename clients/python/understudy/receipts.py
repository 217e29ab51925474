"""Receipts: what an answer depends on, so that it can be asked for again and compared.

A receipt holds nothing that changes between two equal answers of one gateway: no time, no request id. What was asked is
in it as SHA-256 of the canonical inputs, so that it can be published beside a result without the structures.
"""

import hashlib
import json
import os
import struct
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from understudy.errors import BadAnswer
from understudy.framing import load_json

KIND: Final = "understudy.receipt"
SCHEMA_VERSION: Final = 1
HEADER: Final = "X-Understudy-Receipt"
_CANON: Final = b"understudy.structure/1"
_PBC: Final = (b"\0", b"\1")

BatchMode = Literal["batched", "alone", "deterministic"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Weights(_Part):
    """Which weights: the answer's, or a teacher's."""

    model: str
    version: str
    digest: str = Field(description="SHA-256 over the model's files and atomic references")


class Receipt(Weights):
    """What an answer depends on; `POST /v1/replay` and `understudy replay` ask for it again."""

    kind: Literal["understudy.receipt"] = KIND
    schema_version: Literal[1] = SCHEMA_VERSION
    input_sha256: str = Field(description="of the one structure; of several, the SHA-256 over their SHA-256s")
    inputs: list[str] = Field(min_length=1, description="SHA-256 of each structure's canonical form, in order")
    options: dict[str, Any] = Field(description="what was asked for, defaults filled in")
    batch_mode: BatchMode = Field(
        description="deterministic: each structure in an engine call of its own, because it was asked for; alone: it "
        "happened so; batched: it shared a call"
    )
    teacher: Weights | None = Field(None, description="the teacher that also answered, where one was asked")
    engine: str = Field(description="what ran the graph")
    engine_version: str
    device: str = Field(description="such as cpu or cuda")
    dtype: str = Field(description="in which the graph computes")
    software: dict[str, str] = Field(description="versions of the gateway and its libraries")
    platform: str = Field(description="system, machine and processor")

    def of(self, index: int) -> "Receipt":
        """The receipt of one structure of a request with several."""
        only = self.inputs[index]
        return self if len(self.inputs) == 1 else self.model_copy(update={"inputs": [only], "input_sha256": only})

    def joined(self, others: "Sequence[Receipt]") -> "Receipt":
        """One receipt for this answer and others of the same weights to the same options, as one request has it."""
        receipts = [self, *others]
        inputs = [sha256 for receipt in receipts for sha256 in receipt.inputs]
        modes = {receipt.batch_mode for receipt in receipts}
        mode = modes.pop() if len(modes) == 1 else "batched"
        return self.model_copy(update={"inputs": inputs, "input_sha256": request_sha256(inputs), "batch_mode": mode})


def read_receipt(path: str | os.PathLike[str]) -> tuple[Receipt, list[dict[str, Any]] | None]:
    """A receipt from a JSON file, and the results beside it if the file holds a whole answer.

    Raises:
        BadAnswer: the file holds no receipt.
        OSError: it cannot be opened.
    """
    with open(path, "rb") as stream:
        text = stream.read()
    try:
        said = load_json(text)
        answer = said if isinstance(said, dict) and "receipt" in said else {"receipt": said}
        return Receipt.model_validate(answer["receipt"]), answer.get("results")
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadAnswer(
            f"{path} holds no receipt: {reason}.",
            hint="Give the output of 'understudy predict --json', or the member 'receipt' of an answer.",
        ) from error


def structure_sha256(
    numbers: NDArray[np.int64],
    positions: NDArray[np.float64],
    cell: NDArray[np.float64] | None,
    pbc: NDArray[np.bool_],
) -> str:
    """SHA-256 of a structure's canonical form: the same on every machine, whatever wire carried it.

    The form is, in this order and little-endian: the name of the form, the number of atoms (uint64), the atomic numbers
    (int64), the positions (float64 [n, 3], angstrom, row by row), one byte for each periodic direction, and where any
    is periodic the cell (float64 [3, 3], angstrom, rows are lattice vectors). Minus zero counts as zero.
    """
    sha = hashlib.sha256(_CANON + struct.pack("<Q", len(numbers)))
    sha.update(np.ascontiguousarray(numbers, "<i8").data)
    sha.update(_floats(positions))
    flags = pbc.tobytes()
    sha.update(flags)
    if cell is not None and _PBC[1] in flags:
        sha.update(_floats(cell))
    return sha.hexdigest()


def request_sha256(inputs: Sequence[str]) -> str:
    """One SHA-256 for all structures of a request."""
    return inputs[0] if len(inputs) == 1 else hashlib.sha256(bytes.fromhex("".join(inputs))).hexdigest()


def short_form(receipt: dict[str, Any]) -> str:
    """A receipt in one line, as a dictionary of RFC 9651: enough to look the answer up, not to replay it."""
    names = {"schema": "schema_version", "input": "input_sha256", "model": "model", "version": "version"}
    names |= {"digest": "digest", "mode": "batch_mode"}
    return ", ".join(f"{short}={json.dumps(receipt[name])}" for short, name in names.items())


def _floats(values: NDArray[np.float64]) -> memoryview:
    return np.ascontiguousarray(values + 0.0, "<f8").data
