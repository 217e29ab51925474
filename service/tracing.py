"""OpenTelemetry traces, where an operator wants them: each request's spans, made from its stamps when it is over.

A request is one span, in the caller's trace if it came with one (W3C `traceparent`), with the children encode, queue,
batch (linked to the span of the engine call that it shared), engine and decode. Nothing is done while a request is on
its way, and without a setting nothing at all.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from service.journal import Journey
from service.meters import Call, Work
from service.settings import Settings
from service.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACES_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_FAULT: Final = 500


def exporter_of(settings: Settings) -> "SpanExporter | None":
    """Where spans go: to the collector that the settings or OpenTelemetry's own variables name; None for nowhere.

    Raises:
        ModuleNotFoundError: OpenTelemetry is not installed, saying what to install.
    """
    if settings.otel_endpoint is None and not (os.environ.get(ENDPOINT) or os.environ.get(_TRACES_ENDPOINT)):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Traces are asked for, but OpenTelemetry is not installed: pip install -e clients/python -e '.[otel]'",
            name=error.name,
        ) from None
    if settings.otel_endpoint is None:
        return OTLPSpanExporter()
    return OTLPSpanExporter(endpoint=f"{settings.otel_endpoint.rstrip('/')}/v1/traces")


class Traces:
    """Makes the spans of each request.

    Args:
        exporter: takes them; in the background, so that no request waits for it.
        at_once: hand each span over by itself, for tests.
    """

    def __init__(self, exporter: "SpanExporter", at_once: bool = False) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "understudy")})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor((SimpleSpanProcessor if at_once else BatchSpanProcessor)(exporter))
        self._tracer = self._provider.get_tracer("understudy", VERSION)
        self._propagator = TraceContextTextMapPropagator()
        self._trace = trace

    def ended(self, journey: Journey) -> None:
        """Make the spans of a request that asked a model."""
        if not journey.works:
            return
        parent = self._propagator.extract(journey.parent)
        span = self._start(
            journey, "predict", journey.begun, parent, _attributes(journey), kind=self._trace.SpanKind.SERVER
        )
        if journey.status >= _FAULT:
            span.set_status(self._trace.StatusCode.ERROR, journey.code)
        inside = self._trace.set_span_in_context(span)
        for work in journey.works:
            self._work(journey, work, inside)
        span.end(_wall(journey, journey.ended))

    def close(self) -> None:
        """Hand over what is left."""
        self._provider.shutdown()

    def _work(self, journey: Journey, work: Work, inside: Any) -> None:
        """What one model did for a request."""
        self._child(journey, "encode", *work.encoded, inside)
        if work.queued:
            self._child(journey, "queue", work.queued, work.begun or work.ended, inside)
        for call in work.calls:
            link = self._trace.Link(self._shared(journey, call, work))
            begun, collated, ran, decoded = call.stamps
            facts = {"understudy.batch.structures": call.samples, "understudy.batch.slots": call.slots}
            batch = self._start(journey, "batch", begun, inside, facts, links=[link])
            within = self._trace.set_span_in_context(batch)
            self._child(journey, "engine", collated, ran, within)
            self._child(journey, "decode", ran, decoded, within)
            batch.end(_wall(journey, decoded))

    def _shared(self, journey: Journey, call: Call, work: Work) -> Any:
        """The context of an engine call's own span; whoever of its requests ends first makes it."""
        if call.context is None:
            facts = {"understudy.model": work.model.card.name, "understudy.batch.structures": call.samples}
            span = self._start(journey, "engine call", call.stamps.begun, self._propagator.extract({}), facts)
            span.end(_wall(journey, call.stamps.decoded))
            call.context = span.get_span_context()
        return call.context

    def _child(self, journey: Journey, name: str, begun: float, ended: float, inside: Any) -> None:
        self._start(journey, name, begun, inside, {}).end(_wall(journey, ended))

    def _start(
        self, journey: Journey, name: str, begun: float, context: Any, facts: Mapping[str, Any], **more: Any
    ) -> Any:
        return self._tracer.start_span(
            name, context=context, start_time=_wall(journey, begun), attributes=dict(facts), **more
        )


def _wall(journey: Journey, stamp: float) -> int:
    """A monotonic stamp as nanoseconds of the clock on the wall, as it was when the request began."""
    return journey.wall_ns + round(1e9 * (stamp - journey.begun))


def _attributes(journey: Journey) -> dict[str, Any]:
    model = journey.works[0].model
    return {
        "understudy.request_id": journey.request_id,
        "understudy.model": model.card.name,
        "understudy.model.version": model.card.version,
        "understudy.model.digest": model.stored.digest,
        "understudy.structures": journey.structures,
        "understudy.atoms": journey.atoms,
        "understudy.slots": journey.slots,
        "understudy.outcome": journey.code,
        "network.protocol.name": journey.protocol.lower(),
        "http.route": journey.route,
        "http.response.status_code": journey.status,
    }
