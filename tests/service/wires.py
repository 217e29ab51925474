"""The same structures over every wire that can carry them, and what came back in one shape."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from understudy.framing import HEADER_LENGTH, MEDIA_TYPE, decode, encode

from contract.structures import Structure, checked_structure
from service.api.documentation import MALONALDEHYDE

Item = dict[str, Any]
WIRES = ("REST JSON", "REST binary", "KServe JSON", "KServe binary")
KINDS = {"numbers": np.int64, "positions": np.float64, "natoms": np.int64, "cell": np.float64, "pbc": np.bool_}


@dataclass
class Call:
    """An HTTP request, except for the model's name."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, gateway: httpx.Client, model: str = "tiny", **headers: str) -> httpx.Response:
        return gateway.post(self.path.format(model=model), content=self.body, headers={**self.headers, **headers})


def call(wire: str, items: Sequence[Item]) -> Call:
    """A request for structures, as this wire carries it."""
    return {"REST JSON": rest_json, "REST binary": rest_binary, "KServe JSON": kserve_json}.get(wire, kserve_binary)(
        items
    )


def rest_json(items: Sequence[Item], **rest: Any) -> Call:
    plain = [{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in item.items()} for item in items]
    body = json.dumps({"structures": plain, **rest}).encode()
    return Call("/v1/predict/{model}", body, {"Content-Type": "application/json"})


def rest_binary(items: Sequence[Item], **head: Any) -> Call:
    return framed("/v1/predict/{model}", tensors_of(items), head)


def kserve_binary(items: Sequence[Item], **head: Any) -> Call:
    return framed("/v2/models/{model}/infer", tensors_of(items), {"parameters": {"binary_data_output": True}, **head})


def kserve_json(items: Sequence[Item], **head: Any) -> Call:
    tensors = tensors_of(items)
    kinds = {"int64": "INT64", "float64": "FP64", "bool": "BOOL", "float32": "FP32"}
    entries = [
        {
            "name": name,
            "datatype": kinds.get(str(array.dtype), "INT64" if name in ("numbers", "natoms") else "FP64"),
            "shape": list(array.shape),
            "data": array.ravel().tolist(),
        }
        for name, array in tensors.items()
    ]
    return Call("/v2/models/{model}/infer", json.dumps({"inputs": entries, **head}).encode(), {})


def framed(path: str, tensors: dict[str, np.ndarray], head: dict[str, Any] | None = None) -> Call:
    body, length = encode(head or {}, tensors)
    return Call(path, body, {"Content-Type": MEDIA_TYPE, HEADER_LENGTH: str(length)})


def raw(path: str, head: Any, buffers: bytes = b"", length: int | str | None = None) -> Call:
    """A framed body written by hand, right or wrong."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    said = str(len(text) if length is None else length)
    return Call(path, text + buffers, {"Content-Type": MEDIA_TYPE, HEADER_LENGTH: said})


def tensors_of(items: Sequence[Item]) -> dict[str, np.ndarray]:
    """Concatenated tensors, whatever is wrong with the values."""
    tensors = {
        "numbers": np.concatenate([np.asarray(item["numbers"]).reshape(-1) for item in items]),
        "positions": np.concatenate([_rows(item["positions"]) for item in items]),
        "natoms": np.array([len(item["numbers"]) for item in items]),
    }
    if any(item.get("cell") is not None for item in items):
        tensors["cell"] = np.stack([np.asarray(item.get("cell", np.zeros((3, 3))), float) for item in items])
    if any("pbc" in item for item in items):
        tensors["pbc"] = np.stack([np.broadcast_to(item.get("pbc", False), 3) for item in items])
    return {
        n: a.astype(KINDS[n]) if a.dtype.kind in "iufb" and a.dtype != np.float32 else a for n, a in tensors.items()
    }


def _rows(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array if array.ndim == 2 else array.reshape(-1, 3)


def results(response: httpx.Response) -> list[dict[str, Any]]:
    """energy, forces, energy_std, stress and in_domain of each structure, whatever the wire."""
    assert response.status_code == 200, response.text
    if not response.headers["content-type"].startswith(MEDIA_TYPE):
        answer = response.json()
        if "results" in answer:
            return [
                {**r, "forces": np.array(r["forces"]), "in_domain": r["domain"]["in_domain"]} for r in answer["results"]
            ]
        head, tensors = decode(response.content, None, field="outputs")
    else:
        head, tensors = decode(response.content, int(response.headers[HEADER_LENGTH]), field="outputs")
    inside = [r["domain"]["in_domain"] for r in head["results"]] if "results" in head else tensors["in_domain"]
    return [
        {
            **{name: array[b] for name, array in tensors.items() if len(array) == len(inside)},
            "in_domain": bool(inside[b]),
            "all_forces": tensors["forces"],
        }
        for b in range(len(inside))
    ]


def structure_of(item: Item) -> Structure:
    return checked_structure(item["numbers"], item["positions"], item.get("cell"), item.get("pbc"))


def malonaldehyde() -> Item:
    return {name: list(value) for name, value in MALONALDEHYDE.items()}


Maker = Callable[[], Call]
