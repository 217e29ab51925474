"""The Open Inference Protocol (KServe v2) over gRPC, by tritonclient's own generated stubs.

It only translates, as kserve_http does: the same tensors, outputs and refusals, the same plane. What HTTP tells in the
body of a refusal comes in the trailing metadata `problem-bin`, because callers of gRPC see a code and a text.
Source: https://github.com/kserve/open-inference-protocol.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, TypeAlias

import grpc
import orjson
from google.protobuf.json_format import ParseDict
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc import service_pb2 as pb

from service.api.edge import log_fault, request_id_of
from service.api.framed import apart_if_large
from service.api.grpc_access import tenant_of_call
from service.api.grpc_refusals import Refusal, refusal_of
from service.api.grpc_tensors import read_inputs, read_request, refuse_unreadable, write_response
from service.api.kserve import (
    NAME,
    answered_parameters,
    answered_tensors,
    config_of,
    index_of,
    metadata_of,
    read_asked,
    refuse_missing,
    statistics_of,
)
from service.api.kserve_fields import NAMES as FIELD_NAMES
from service.api.kserve_fields import answer_field
from service.api.streams import in_order
from service.errors import DeadlineExceeded, NotServed, UnknownModel
from service.journal import Journey, current
from service.metrics import Answers
from service.models import FieldModel, Served
from service.plane import Plane
from service.receipts import receipt_of
from service.version import VERSION

Context: TypeAlias = grpc.aio.ServicerContext

SERVICE: Final = "/inference.GRPCInferenceService/"
EXTENSIONS: Final = ["model_configuration", "statistics"]
MESSAGE: Final = SERVICE + "ModelStreamInfer/message"
AHEAD: Final = 8


def _call(method: Callable[[Any, Any, Context], Awaitable[Any]]) -> Callable[[Any, Any, Context], Awaitable[Any]]:
    """One call: its request id, its place in the metrics, and every error as a status with a text."""
    name = method.__name__
    route = "other" if name.startswith("_") else SERVICE + name

    @functools.wraps(method)
    async def answer(self: "InferenceService", request: Any, context: Context) -> Any:
        journey = self.begin(context)
        context.set_trailing_metadata((("x-request-id", journey.request_id),))
        status, code = 200, "ok"
        try:
            refuse_unreadable(request)
            return await method(self, request, context)
        except asyncio.CancelledError:
            status, code = 499, "caller_left"
            raise
        except Exception as error:  # noqa: BLE001 (the edge: a refusal, or an internal error that is logged)
            log_fault(error, journey.request_id)
            refusal = refusal_of(error, journey.request_id)
            status, code = refusal.status, refusal.problem["code"]
            await context.abort(refusal.code, refusal.text, refusal.metadata)
        finally:
            self.counts[route, "gRPC", status] += 1
            self.plane.journal.end(journey, route, status, code)

    return answer


class InferenceService:
    """The methods of `inference.GRPCInferenceService`; their names are the protocol's.

    Args:
        plane: answers.
        counts: answers by route, method and status, for the metrics.
        idle_s: seconds a stream may stay open without a message.
    """

    def __init__(self, plane: Plane, counts: Answers, idle_s: float) -> None:
        self.plane = plane
        self.counts = counts
        self.idle_s = idle_s

    def begin(self, context: Context) -> Journey:
        """A call, or a message of a stream, begins."""
        metadata = dict(context.invocation_metadata() or ())
        given = metadata.get("x-request-id", "")
        request_id = request_id_of(given.encode() if isinstance(given, str) else given)
        traced = [name for name in ("traceparent", "tracestate") if name in metadata]
        journey = Journey(request_id, "gRPC", {name: str(metadata[name]) for name in traced})
        current.set(journey)
        return journey

    @_call
    async def ServerLive(self, request: Any, context: Context) -> Any:
        """Whether the process answers."""
        return pb.ServerLiveResponse(live=True)

    @_call
    async def ServerReady(self, request: Any, context: Context) -> Any:
        """Whether some model is loaded and warm and its engine is there; before that nobody listens here."""
        return pb.ServerReadyResponse(ready=any(self.plane.models) and self.plane.engine_is_there())

    @_call
    async def ModelReady(self, request: Any, context: Context) -> Any:
        """Whether a model can be asked; of one that is not there the answer is no, as Triton's is."""
        try:
            self._model(request)
        except UnknownModel:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self.plane.engine_is_there())

    @_call
    async def ServerMetadata(self, request: Any, context: Context) -> Any:
        """Name, version and extensions of the gateway."""
        return pb.ServerMetadataResponse(name=NAME, version=VERSION, extensions=EXTENSIONS)

    @_call
    async def ModelMetadata(self, request: Any, context: Context) -> Any:
        """A model's versions and tensors."""
        return pb.ModelMetadataResponse(**metadata_of(self._model(request), self.plane.models))

    @_call
    async def ModelConfig(self, request: Any, context: Context) -> Any:
        """A model as Triton's configuration describes one; load testers ask for it."""
        plain = orjson.loads(orjson.dumps(config_of(self._model(request))))
        return pb.ModelConfigResponse(config=ParseDict(plain, model_config_pb2.ModelConfig()))

    @_call
    async def RepositoryIndex(self, request: Any, context: Context) -> Any:
        """Every version that is known, and whether it can be asked."""
        if request.repository_name:
            raise UnknownModel(
                f"There is no repository '{request.repository_name[:60]}'.", hint="Leave repository_name empty."
            )
        return pb.RepositoryIndexResponse(models=index_of(self.plane.models, request.ready))

    @_call
    async def ModelStatistics(self, request: Any, context: Context) -> Any:
        """Requests, structures, engine calls and their times since it was loaded, of a version or of all."""
        models = [self._model(request)] if request.name else list(self.plane.models.every())
        return pb.ModelStatisticsResponse(model_stats=[pb.ModelStatistics(**statistics_of(model)) for model in models])

    @_call
    async def ModelInfer(self, request: Any, context: Context) -> Any:
        """Energies, forces and what else is asked for, of concatenated structures."""
        return await self._infer(request, context)

    @_call
    async def ModelStreamInfer(self, _requests: Any, context: Context) -> None:
        """The same for each message, answered in their order; one that is refused says so, and the stream goes on."""

        async def answer(request: Any) -> Any:
            return await self._stream_answer(request, context)

        async with aclosing(in_order(_messages(context, self.idle_s), answer, AHEAD)) as answers:
            async for message in answers:
                await context.write(message)

    @_call
    async def _not_served(self, request: Any, context: Context) -> Any:
        raise NotServed(
            "This part of the protocol is not served here: models are loaded, traced and logged by the operator.",
            hint="ModelInfer, ModelStreamInfer, metadata, configuration, index and statistics are served.",
        )

    RepositoryModelLoad = RepositoryModelUnload = _not_served
    SystemSharedMemoryStatus = SystemSharedMemoryRegister = SystemSharedMemoryUnregister = _not_served
    CudaSharedMemoryStatus = CudaSharedMemoryRegister = CudaSharedMemoryUnregister = _not_served
    TraceSetting = LogSettings = _not_served

    def _model(self, request: Any) -> Served:
        return self.plane.models.get(request.name, request.version or None)

    async def _infer(self, request: Any, context: Context) -> Any:
        limits = self.plane.limits
        served = self.plane.models.get(request.model_name, request.model_version or None)
        if isinstance(served, FieldModel):
            return await self._infer_field(served, request, context)
        model = self.plane.models.potential(served.card.name, served.version)
        framed = await apart_if_large(request.ByteSize(), lambda: read_request(request, limits))
        asked = read_asked(framed.head, model, limits.id_bytes)
        refuse_missing(asked, framed.structures)
        timeout_s = _earlier(asked.timeout_s, context.time_remaining())
        options = asked.options(context.peer(), tenant_of_call(context), timeout_s)
        answer = await self.plane.predict(model, framed.structures, options)
        parameters = answered_parameters(answer, receipt_of(answer))
        return write_response(model, asked, parameters, answered_tensors(answer, asked))

    async def _infer_field(self, model: FieldModel, request: Any, context: Context) -> Any:
        limits = self.plane.limits
        head, tensors = await apart_if_large(request.ByteSize(), lambda: read_inputs(request, limits, FIELD_NAMES))
        asked = replace(read_asked(head, model, limits.id_bytes), as_json=frozenset())
        timeout_s = _earlier(asked.timeout_s, context.time_remaining())
        who = (context.peer(), tenant_of_call(context))
        reply = await answer_field(self.plane, model, tensors, asked, who, timeout_s)
        return write_response(model, asked, reply.parameters, reply.tensors)

    async def _stream_answer(self, request: Any, context: Context) -> Any:
        """The answer to one message of a stream, or its refusal."""
        journey, status, code = self.begin(context), 200, "ok"
        try:
            refuse_unreadable(request)
            response = pb.ModelStreamInferResponse(infer_response=await self._infer(request, context))
        except Exception as error:  # noqa: BLE001 (the edge, as above)
            log_fault(error, journey.request_id)
            refusal = refusal_of(error, journey.request_id)
            status, code = refusal.status, refusal.problem["code"]
            response = _stream_refusal(request, refusal)
        except asyncio.CancelledError:
            status, code = 499, "caller_left"
            raise
        finally:
            self.counts[MESSAGE, "gRPC", status] += 1
            self.plane.journal.end(journey, MESSAGE, status, code)
        response.infer_response.parameters["triton_final_response"].bool_param = True
        return response


async def _messages(context: Context, idle_s: float) -> AsyncIterator[Any]:
    """The messages of a stream.

    Raises:
        DeadlineExceeded: the caller sends nothing, nor says that there is nothing more.
    """
    while True:
        try:
            async with asyncio.timeout(idle_s):
                message = await context.read()
        except TimeoutError:
            raise DeadlineExceeded(
                f"The stream had no message for {idle_s:g} s.", hint="Open another.", limit=idle_s, unit="s"
            ) from None
        if message is grpc.aio.EOF:
            return
        yield message


def _stream_refusal(request: Any, refusal: Refusal) -> Any:
    response = pb.ModelStreamInferResponse(error_message=refusal.text)
    response.infer_response.model_name, response.infer_response.id = request.model_name, request.id
    response.infer_response.parameters["us_code"].string_param = refusal.problem["code"]
    return response


def _earlier(timeout_s: float | None, remaining_s: float | None) -> float | None:
    """The earlier of a parameter and a deadline, in seconds.

    Raises:
        DeadlineExceeded: it is over.
    """
    known = [seconds for seconds in (timeout_s, remaining_s) if seconds is not None]
    if known and min(known) <= 0.0:
        raise DeadlineExceeded("The deadline of the call is over.", hint="Give it more time.", limit=0, unit="s")
    return min(known, default=None)
