"""Every route of the gateway, and what the documentation says of it."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import RedirectResponse, Response

from service.api import admin, documentation, fields, kserve_http, plan, replay, rest, uploads
from service.api.edge import busy_route
from service.metrics import exposition

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]
_V2_MODEL = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")


BUSY = (
    busy_route("/v1/predict/{model}", rest.predict),
    busy_route("/v1/fields/{model}", fields.flow),
    busy_route("/v1/plan", plan.plan),
    busy_route("/v1/replay", replay.answer_again),
    *(busy_route(f"{path}/infer", kserve_http.infer) for path in _V2_MODEL),
)


class DirectRoute(APIRoute):
    """Calls its endpoint with the request alone: documented by FastAPI, without its work for every request."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint itself."""
        return self.endpoint


def add_routes(app: FastAPI) -> None:
    """Add `/v1`, `/v2`, `/metrics` and the way to the documentation; the busy ones first."""
    _add(app, "POST", "/v1/predict/{model}", rest.predict, **documentation.PREDICT)
    _add(app, "POST", "/v1/fields/{model}", fields.flow, **documentation.FLOW)
    _add(app, "POST", "/v1/uploads", uploads.create, **documentation.UPLOAD)
    _add(app, "GET", "/v1/uploads/{upload}", uploads.show)
    _add(app, "PATCH", "/v1/uploads/{upload}", uploads.append, **documentation.APPEND)
    _add(app, "DELETE", "/v1/uploads/{upload}", uploads.delete)
    _add(app, "GET", "/v2/models/stats", kserve_http.model_statistics)
    for path in _V2_MODEL:
        _add(app, "POST", f"{path}/infer", kserve_http.infer, **documentation.INFER)
        _add(app, "GET", f"{path}/ready", kserve_http.model_ready)
        _add(app, "GET", f"{path}/config", kserve_http.model_config)
        _add(app, "GET", f"{path}/stats", kserve_http.model_statistics)
        _add(app, "GET", path, kserve_http.model_metadata)
    _add(app, "GET", "/v2/health/live", kserve_http.live)
    _add(app, "GET", "/v2/health/ready", kserve_http.ready)
    _add(app, "GET", "/v2", kserve_http.server_metadata)
    _add(app, "POST", "/v1/plan", plan.plan, **documentation.PLAN)
    _add(app, "POST", "/v1/replay", replay.answer_again, **documentation.REPLAY)
    _add(app, "GET", "/v1/models", rest.list_models, **documentation.MODELS)
    _add(app, "GET", "/v1/models/{model}", rest.show_model)
    _add(app, "GET", "/v1/limits", rest.show_limits)
    _add(app, "POST", "/v2/repository/index", kserve_http.repository_index)
    _add(app, "GET", "/v1/admin/models", admin.list_versions, **documentation.VERSIONS)
    _add(app, "POST", "/v1/admin/models/{model}/{command}", admin.command, **documentation.COMMAND)
    _add(app, "GET", "/metrics", metrics)
    app.add_api_route("/", to_documentation, include_in_schema=False)
    app.add_api_route(documentation.PAGE, documentation.page, include_in_schema=False)
    app.mount(documentation.ASSETS, documentation.assets())
    app.openapi = lambda: documentation.openapi(app)  # type: ignore[method-assign]


def _add(app: FastAPI, method: str, path: str, handler: Handler, **documented: Any) -> None:
    extra = documented.pop("openapi_extra", {})
    extra = {**extra, "parameters": [*documentation.path_parameters(path), *extra.get("parameters", [])]}
    documented.setdefault("summary", (handler.__doc__ or "").partition("\n")[0].rstrip("."))
    app.router.add_api_route(
        path,
        handler,
        methods=[method],
        tags=["Open Inference Protocol (KServe v2)" if path.startswith("/v2") else "Understudy"],
        response_class=Response,
        route_class_override=DirectRoute,
        openapi_extra=extra,
        **documented,
    )


async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    return Response(exposition(request.app.state.metrics), media_type="text/plain; version=0.0.4; charset=utf-8")


async def to_documentation() -> Response:
    """The documentation page."""
    return RedirectResponse(documentation.PAGE)
