"""What the OpenAPI page says: the wire types of the client, examples that work as they stand, and the refusals."""

import re
from pathlib import Path
from typing import Any, Final, get_args

import fastapi_offline
import orjson
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic.json_schema import models_json_schema
from understudy.framing import MEDIA_TYPE as BINARY
from understudy.wire import (
    Command,
    CommandIn,
    ModelList,
    ModelVersions,
    PlanAnswer,
    PlanRequest,
    PredictionAnswer,
    PredictRequest,
    Problem,
    ReplayAnswer,
    ReplayRequest,
    VersionsList,
)

from service.api.field_files import WRITERS

PAGE: Final = "/docs"
ASSETS: Final = "/docs-assets"


async def page() -> HTMLResponse:
    """Swagger UI, its scripts served from here: nothing is loaded from a third party."""
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Understudy",
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon.png",
    )


def assets() -> StaticFiles:
    """Swagger UI's files, as the package fastapi-offline brings them."""
    return StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static")


def _schema(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


DESCRIPTION: Final = """
Small fast stand-ins for expensive physics simulations. Every answer states its units, its uncertainty, whether the
model was trained for the question, and the digest of the weights that answered.

Positions are in angstrom, energies in eV, forces in eV/angstrom, stress in eV/angstrom^3 (tensile positive).
Arrays of any size travel best as tensors (`application/octet-stream`); the Python client does so by itself.
"""
MALONALDEHYDE: Final[dict[str, Any]] = {
    "numbers": [1, 1, 1, 1, 6, 6, 6, 8, 8],
    "positions": [
        [-2.116, 0.62, 0.002],
        [2.211, 0.609, -0.004],
        [-0.345, -1.576, 0.001],
        [0.037, 1.855, -0.009],
        [-1.156, 0.115, 0.004],
        [0.043, 0.775, 0.005],
        [1.273, 0.03, -0.002],
        [1.329, -1.21, 0.004],
        [-1.277, -1.218, 0.0],
    ],
}
_XYZ: Final = "\n".join(
    ["9", "malonaldehyde"]
    + [f"{'HHHHCCCOO'[i]} {x:.3f} {y:.3f} {z:.3f}" for i, (x, y, z) in enumerate(MALONALDEHYDE["positions"])]
)
_PREDICT_EXAMPLES: Final = {
    "energy and forces": {"value": {"structures": [MALONALDEHYDE]}},
    "with the energy of each atom": {"value": {"structures": [MALONALDEHYDE], "outputs": ["atomic_energies"]}},
}
_PLAN_EXAMPLES: Final = {
    "a structure": {"value": {"model": "malonaldehyde", "structures": [MALONALDEHYDE]}},
    "sizes alone": {"value": {"model": "malonaldehyde", "sizes": [{"atoms": 10_000, "neighbours": 45}]}},
}
_INFER_EXAMPLE: Final = {
    "inputs": [
        {"name": "numbers", "shape": [9], "datatype": "INT64", "data": MALONALDEHYDE["numbers"]},
        {"name": "positions", "shape": [9, 3], "datatype": "FP64", "data": MALONALDEHYDE["positions"]},
        {"name": "natoms", "shape": [1], "datatype": "INT64", "data": [9]},
    ],
    "outputs": [{"name": "energy"}, {"name": "forces"}, {"name": "in_domain"}],
}
_REFUSALS: Final = {
    400: "the request cannot be read: framing, JSON, shapes, types, numbers that are not finite",
    401: "a key is needed, and there is none that is good here",
    403: "not with this key",
    404: "no such model, or no such version of it",
    412: "other weights are served than model_digest names",
    413: "over a limit, see /v1/limits",
    422: "not physics, or not for this model",
    429: "the queue is full, or the tenant's budget used up; see Retry-After",
    504: "the request's time was over, or cannot suffice",
    507: "a structure does not fit into the engine's memory",
}


def _problems(texts: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": _schema("Problem")}}
    return {status: {"description": text, "content": content} for status, text in texts.items()}


_PROBLEMS: Final = _problems(_REFUSALS)
PREDICT: Final[dict[str, Any]] = {
    "summary": "Energy, forces, stress, committee standard deviation and domain verdict of structures",
    "responses": {
        200: {
            "description": "one result per structure, in order",
            "content": {
                "application/json": {"schema": _schema("PredictionAnswer")},
                BINARY: {"schema": {"type": "string", "format": "binary"}},
            },
        },
        **_PROBLEMS,
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _schema("PredictRequest"), "examples": _PREDICT_EXAMPLES},
                "chemical/x-xyz": {"schema": {"type": "string"}, "example": _XYZ},
                BINARY: {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
}
FLOW: Final[dict[str, Any]] = {
    "summary": "Permeability of a rock image along its axes; with Accept, its flow field or a slice (PNG)",
    "responses": {
        200: {
            "description": "k_m2, k_mD and k_voxel2 by axis with their interval, porosities, warnings, domain, receipt",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "application/x-ndjson": {"schema": {"type": "string", "description": "progress, then the answer"}},
                "image/png": {"schema": {"type": "string", "format": "binary"}},
                **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in WRITERS},
            },
        },
        **_PROBLEMS,
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "description": "query: voxel_size_um (required), pore_value, axes or axis, upload; raw: shape, dtype",
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("application/x-npy", "image/tiff", "application/octet-stream")
            },
        }
    },
}
UPLOAD: Final[dict[str, Any]] = {
    "summary": "Room for an image that comes in parts: PATCH them with ?offset=, ask with ?upload= in place of a body",
    "responses": {
        201: {
            "description": "its name, bytes, received, expires_in_s; ?bytes= says the size",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        **_PROBLEMS,
    },
}
INFER: Final[dict[str, Any]] = {
    "summary": "The same by the Open Inference Protocol: any KServe or Triton client",
    "responses": {200: {"description": "the outputs, as JSON or behind a JSON head"}, **_PROBLEMS},
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"type": "object"}, "example": _INFER_EXAMPLE},
                BINARY: {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
}
PLAN: Final[dict[str, Any]] = {
    "summary": "What a request would cost, whether it fits, and whether the model was trained for it; nothing is run",
    "responses": {
        200: {"description": "the plan", "content": {"application/json": {"schema": _schema("PlanAnswer")}}},
        **_PROBLEMS,
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _schema("PlanRequest"), "examples": _PLAN_EXAMPLES}},
        }
    },
}
REPLAY: Final[dict[str, Any]] = {
    "summary": "The answer of a receipt once more, and whether it is the same",
    "responses": {
        200: {
            "description": "the prediction as it is now, and how it compares",
            "content": {"application/json": {"schema": _schema("ReplayAnswer")}},
        },
        **_PROBLEMS,
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _schema("ReplayRequest")}},
        }
    },
}
MODELS: Final[dict[str, Any]] = {
    "responses": {200: {"description": "by name", "content": {"application/json": {"schema": _schema("ModelList")}}}}
}


_FORBIDDEN: Final = {403: "only for operators"}
VERSIONS: Final[dict[str, Any]] = {
    "responses": {
        200: {"description": "by name", "content": {"application/json": {"schema": _schema("VersionsList")}}},
        **_problems(_FORBIDDEN),
    }
}
COMMAND: Final[dict[str, Any]] = {
    "responses": {
        200: {
            "description": "how it stands now",
            "content": {"application/json": {"schema": _schema("ModelVersions")}},
        },
        **_problems(
            _FORBIDDEN
            | {404: "no such model or version", 409: "it cannot be done as things stand: why; nothing has changed"}
        ),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _schema("CommandIn")}},
        }
    },
}


def path_parameters(path: str) -> list[dict[str, Any]]:
    """The names in braces as OpenAPI parameters."""
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; models can be chosen among those that are served."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        document.setdefault("components", {}).setdefault("schemas", {}).update(_schemas())
        app.openapi_schema = orjson.loads(orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS))
        _offer_models(app.openapi_schema, [model.card.name for model in app.state.plane.models.potentials])
    return app.openapi_schema


def _schemas() -> dict[str, Any]:
    _, schema = models_json_schema(
        [
            (PredictRequest, "validation"),
            (PredictionAnswer, "serialization"),
            (PlanRequest, "validation"),
            (PlanAnswer, "serialization"),
            (ReplayRequest, "validation"),
            (ReplayAnswer, "serialization"),
            (ModelList, "serialization"),
            (CommandIn, "validation"),
            (ModelVersions, "serialization"),
            (VersionsList, "serialization"),
            (Problem, "serialization"),
        ],
        ref_template="#/components/schemas/{model}",
    )
    definitions: dict[str, Any] = schema["$defs"]
    return definitions


def _offer_models(document: dict[str, Any], names: list[str]) -> None:
    """Let the reader choose among the models that there are, and let the examples ask one of them."""
    for path in document["paths"].values():
        for operation in path.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                for example in content.get("examples", {}).values():
                    if "model" in example["value"]:
                        example["value"]["model"] = names[0]
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "model":
                    parameter["schema"] = {"type": "string", "enum": names}
                elif parameter["name"] == "command":
                    parameter["schema"] = {"type": "string", "enum": get_args(Command)}
                elif parameter["name"] == "version":
                    parameter["schema"] = {"type": "string", "default": "1"}
