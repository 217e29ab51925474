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

from contract.elements import NUMBERS
from service.api.field_files import WRITERS
from service.models import Model, Models

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


def _in_query(name: str, description: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": {"type": kind}, **more}


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
            "description": "the image, unless ?upload= names one",
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("application/x-npy", "image/tiff", "application/octet-stream")
            },
        },
        "parameters": [
            _in_query("voxel_size_um", "side of a voxel, micrometres", "number", required=True),
            _in_query("pore_value", "labels of the pores, with commas between them"),
            _in_query("axes", "all, or some of x, y, z with commas between them"),
            _in_query("axis", "of a field or a slice"),
            _in_query("shape", "of raw bytes, such as 110,110,110"),
            _in_query("dtype", "of raw bytes: uint8, uint16, bool, bits, ..."),
            _in_query("order", "of raw bytes: C, or F where x is fastest"),
            _in_query("upload", "an upload in place of a body"),
        ],
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
    "openapi_extra": {"parameters": [_in_query("bytes", "size of the image", "integer", required=True)]},
}
APPEND: Final[dict[str, Any]] = {
    "openapi_extra": {
        "parameters": [_in_query("offset", "bytes received so far", "integer", required=True)],
        "requestBody": {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}},
    }
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
        _offer_models(app.openapi_schema, app.state.plane.models)
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


def _offer_models(document: dict[str, Any], models: Models) -> None:
    """Let the reader choose among the models that there are, and let the examples ask one that can answer them."""
    potentials = sorted(models.potentials, key=lambda model: not _answers_examples(model))
    fields = [model.card.name for model in models.fields]
    names = [model.card.name for model in potentials]
    for path, operations in document["paths"].items():
        asked = names if "predict" in path else fields if "fields" in path else [*names, *fields]
        offered = {
            "model": {"enum": asked} if asked else {},
            "command": {"enum": get_args(Command)},
            "version": {"default": potentials[0].version if potentials else "1"},
        }
        for operation in operations.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                for example in content.get("examples", {}).values():
                    if "model" in example["value"]:
                        example["value"]["model"] = next(iter(names), "")
            for parameter in operation.get("parameters", []):
                parameter["schema"] |= offered.get(parameter["name"], {})


def _answers_examples(model: Model) -> bool:
    """Whether it was trained on the molecule of the examples."""
    numbers = set(MALONALDEHYDE["numbers"])
    formulas = model.card.domain.formulas
    return {NUMBERS[symbol] for symbol in model.card.domain.elements} >= numbers and formulas in (None, ["C3H4O2"])
