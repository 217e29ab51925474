"""What an operator sees: metrics and KServe's statistics, a log line and the spans of each request."""

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import structlog
import tritonclient.grpc as triton
import yaml
from conftest import in_process
from grpc_gateway import gated, message, run, stub, triton_inputs, until
from tritonclient.grpc import aio as triton_aio
from tritonclient.utils import InferenceServerException
from understudy.inprocess import InProcess
from wires import kserve_binary, malonaldehyde, rest_json

from service.app import Gateway, create_app
from service.journal import Journey
from service.logs import configure
from service.meters import Histogram, Work
from service.settings import Settings
from service.tracing import Traces, exporter_of

M = malonaldehyde()
COINCIDENT = {"numbers": [6, 6], "positions": [[0, 0, 0], [0, 0, 0]]}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture
def watched(repository: Path) -> Iterator[httpx.Client]:
    """A gateway of its own, whose numbers begin at 0."""
    with in_process(Settings(model_repo=repository, workers=1, canary_fraction=0)) as client:
        yield client


def metrics(client: httpx.Client) -> dict[str, float]:
    """Every sample by its name and labels."""
    lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


# ---------------------------------------------------------------- metrics


def test_a_histogram_counts_each_value_under_every_bound_that_is_not_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    assert histogram.cumulative() == [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)]
    assert histogram.sum == 12.0


def test_stages_and_sizes_of_engine_calls_are_measured_apart(watched: httpx.Client) -> None:
    assert rest_json([M, M])(watched).status_code == 200
    there, labels = metrics(watched), '{graph="model.onnx",model="tiny"}'
    for name in ("neighbour_list", "queue", "collate", "engine", "decode"):
        assert there[f"understudy_{name}_seconds_count{labels}"] == 1
    assert there[f"understudy_engine_seconds_sum{labels}"] > 0
    assert there[f"understudy_neighbour_list_seconds_sum{labels}"] > 0
    assert there[f"understudy_batch_structures_sum{labels}"] == 2
    assert there[f"understudy_batch_slots_sum{labels}"] == there[f"understudy_slots_total{labels}"] == 2 * 9 * 8
    assert there['understudy_tenant_slots_total{tenant="without a key"}'] == 2 * 9 * 8
    assert there[f"understudy_oldest_waiting_seconds{labels}"] == 0


def test_refusals_are_counted_by_protocol_and_code_and_models_are_named(watched: httpx.Client) -> None:
    for _ in range(2):
        assert rest_json([COINCIDENT])(watched).status_code == 422
    assert watched.get("/nowhere").status_code == 404
    there = metrics(watched)
    assert there['understudy_refusals_total{code="coincident_atoms",protocol="HTTP"}'] == 2
    assert there['understudy_refusals_total{code="not_found",protocol="HTTP"}'] == 1
    (info,) = [name for name in there if name.startswith("understudy_model_info") and 'model="tiny"' in name]
    assert re.search(r'digest="[0-9a-f]{64}",engine="onnxruntime",model="tiny",version="1"', info)


def test_labels_do_not_grow_with_what_callers_invent(watched: httpx.Client) -> None:
    def invent(n: int) -> int:
        rest_json([M])(watched, f"model-{n}")
        watched.get(f"/path/{n}")
        rest_json([M])(watched, **{"X-Request-Id": f"id-{n}", "X-Key": f"key-{n}"})
        return len(metrics(watched))

    invent(0)
    before = invent(1)
    assert [invent(n) for n in range(2, 12)] == [before] * 10


def test_the_age_of_the_queue_and_the_stage_of_a_departure_are_told(repository: Path) -> None:
    async def scene() -> None:
        async with gated(repository) as here, triton_aio.InferenceServerClient(here.address) as client:
            running = asyncio.create_task(client.infer("tiny", triton_inputs([M])))
            await here.engine_begins()
            waiting = asyncio.create_task(client.infer("tiny", triton_inputs([M])))
            await until(lambda: here.lane.waiting == 1)
            await until(lambda: here.lane.waiting_s > 0.02)
            cancellations = here.journal.cancellations
            waiting.cancel()
            await until(lambda: cancellations["queue"] == 1)
            assert here.lane.waiting_s == 0
            running.cancel()
            await until(lambda: cancellations["run"] == 1)
            here.engine.gate.set()
            with pytest.raises(InferenceServerException):
                await client.infer("nobody", triton_inputs([M]))
            assert here.journal.refusals == {("gRPC", "unknown_model"): 1}

    asyncio.run(scene())


def test_the_stage_of_a_request_is_the_last_that_it_reached() -> None:
    journey, work = Journey("1", "HTTP"), Work(None)
    stages = [journey.stage]
    journey.works.append(work)
    stages.append(journey.stage)
    work.queued = 1.0
    stages.append(journey.stage)
    work.begin(2.0)
    stages.append(journey.stage)
    assert stages == ["body", "encode", "queue", "run"]
    assert work.queue_s == 1.0


# ---------------------------------------------------------------- KServe's statistics


def test_statistics_over_http_and_grpc_are_the_same_and_add_up(repository: Path) -> None:
    running = run(Settings(model_repo=repository, workers=1, canary_fraction=0))
    try:
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{running.ports.http}") as http,
            triton.InferenceServerClient(running.ports.address) as client,
        ):
            for items in ([M], [M] * 3):
                assert kserve_binary(items)(http).status_code == 200
            assert kserve_binary([COINCIDENT])(http).status_code == 422
            (said,) = http.get("/v2/models/tiny/stats").json()["model_stats"]
            assert http.get("/v2/models/tiny/versions/1/stats").json()["model_stats"] == [said]
            assert "statistics" in http.get("/v2").json()["extensions"]
            assert [s["name"] for s in http.get("/v2/models/stats").json()["model_stats"]] == ["anything", "tiny"]
            over_grpc = client.get_inference_statistics("tiny").model_stats[0]
    finally:
        running.stop()
    stats = said["inference_stats"]
    assert (said["inference_count"], said["execution_count"]) == (4, 2)
    assert (stats["success"]["count"], stats["fail"]["count"]) == (2, 1)
    parts = sum(stats[name]["ns"] for name in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert 0 < stats["compute_infer"]["ns"] < parts <= stats["success"]["ns"]
    for name, duration in stats.items():
        there = getattr(over_grpc.inference_stats, name)
        assert (there.count, there.ns) == (duration["count"], duration["ns"])


# ---------------------------------------------------------------- logs


@pytest.fixture
def log(repository: Path) -> Iterator[tuple[httpx.Client, io.StringIO]]:
    """A gateway that logs, and what it wrote."""
    written = io.StringIO()
    settings = Settings(model_repo=repository, workers=1, log_format="json")
    handlers, level = logging.root.handlers[:], logging.root.level
    configure(settings, written)
    try:
        with in_process(settings) as client:
            yield client, written
    finally:
        structlog.reset_defaults()
        logging.root.handlers, logging.root.level = handlers, level


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_each_request_is_one_line_that_says_who_asked_what_and_what_it_took(
    log: tuple[httpx.Client, io.StringIO],
) -> None:
    client, written = log
    assert rest_json([M, M])(client, **{"X-Request-Id": "mine-7"}).status_code == 200
    (line,) = lines(written)
    told = {name: line[name] for name in ("request_id", "protocol", "status", "outcome", "model", "version", "level")}
    assert told == {
        "request_id": "mine-7",
        "protocol": "HTTP",
        "status": 200,
        "outcome": "ok",
        "model": "tiny",
        "version": "1",
        "level": "info",
    }
    assert (line["structures"], line["atoms"], line["slots"], len(line["digest"])) == (2, 18, 144, 12)
    assert 0 < line["engine_ms"] < line["duration_ms"]


def test_a_refusal_has_its_code_and_its_request_id_in_the_log_and_in_the_answer(
    log: tuple[httpx.Client, io.StringIO],
) -> None:
    client, written = log
    problem = rest_json([COINCIDENT])(client, **{"X-Request-Id": "no such id, please"}).json()
    (line,) = lines(written)
    assert (line["outcome"], line["status"]) == ("coincident_atoms", 422)
    assert line["request_id"] == problem["request_id"] != "no such id, please"


def test_health_checks_are_not_told_and_secrets_never(log: tuple[httpx.Client, io.StringIO]) -> None:
    client, written = log
    secret = "s3cr3t-0123456789"
    assert client.get("/v2/health/ready").status_code == 200
    for headers in ({"Authorization": f"Bearer {secret}"}, {"X-API-Key": secret}, {"Cookie": secret}):
        rest_json([M])(client, **headers)
        answer = client.post(f"/v1/predict/tiny?outputs={secret}", content=rest_json([M]).body, headers=headers)
        assert answer.status_code in (400, 401)
    assert secret not in written.getvalue()
    assert all("health" not in line.get("route", "") for line in lines(written))


def test_nothing_is_logged_where_the_settings_say_so(repository: Path, log: tuple[httpx.Client, io.StringIO]) -> None:
    with in_process(Settings(model_repo=repository, workers=1, log_requests=False)) as quiet:
        assert rest_json([M])(quiet).status_code == 200
    assert log[1].getvalue() == ""


# ---------------------------------------------------------------- traces


@pytest.fixture
def spans() -> Any:
    """OpenTelemetry's exporter into memory."""
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    return memory.InMemorySpanExporter()


def traced(settings: Settings, spans: Any) -> tuple[httpx.Client, Gateway]:
    app = create_app(settings)
    client = httpx.Client(transport=InProcess(app), base_url="http://127.0.0.1")
    app.edge.journal.readers.append(Traces(spans, at_once=True))
    return client, app


def test_a_request_has_a_span_with_its_stages_in_the_trace_of_its_caller(repository: Path, spans: Any) -> None:
    client, _ = traced(Settings(model_repo=repository, workers=1), spans)
    with client:
        answer = rest_json([M])(client, traceparent=PARENT, **{"X-Request-Id": "mine-7"})
        assert answer.status_code == 200
    by_name = {span.name: span for span in spans.get_finished_spans()}
    assert set(by_name) == {"predict", "encode", "queue", "batch", "engine", "decode", "engine call"}
    request = by_name["predict"]
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert request.attributes["understudy.request_id"] == "mine-7"
    assert request.attributes["understudy.model"] == "tiny"
    for name, parent in {"encode": request, "queue": request, "batch": request, "engine": by_name["batch"]}.items():
        child = by_name[name]
        assert child.parent.span_id == parent.context.span_id
        assert parent.start_time <= child.start_time <= child.end_time <= parent.end_time
    (link,) = by_name["batch"].links
    assert link.context.span_id == by_name["engine call"].context.span_id


def test_requests_that_shared_an_engine_call_are_linked_to_the_same_span(repository: Path, spans: Any) -> None:
    async def scene() -> None:
        async with gated(repository) as here, triton_aio.InferenceServerClient(here.address) as client:
            here.journal.readers.append(Traces(spans, at_once=True))
            first = asyncio.create_task(client.infer("tiny", triton_inputs([M])))
            await here.engine_begins()
            shared = [asyncio.create_task(client.infer("tiny", triton_inputs([M]))) for _ in range(2)]
            await until(lambda: here.lane.waiting == 2)
            here.engine.gate.set()
            await asyncio.gather(first, *shared)

    asyncio.run(scene())
    links = [span.links[0].context.span_id for span in spans.get_finished_spans() if span.name == "batch"]
    assert len(links) == 3
    assert len(set(links)) == 2


def test_a_trace_goes_on_over_grpc(repository: Path, spans: Any) -> None:
    async def scene() -> None:
        async with gated(repository) as here, grpc.aio.insecure_channel(here.address) as channel:
            here.journal.readers.append(Traces(spans, at_once=True))
            here.engine.gate.set()
            await stub(channel).ModelInfer(message([M]), metadata=[("traceparent", PARENT)])
            await until(lambda: any(span.name == "predict" for span in spans.get_finished_spans()))

    asyncio.run(scene())
    assert {f"{s.context.trace_id:032x}" for s in spans.get_finished_spans() if s.name != "engine call"} == {TRACE}


def test_without_a_setting_there_are_no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert exporter_of(Settings()) is None
    assert exporter_of(Settings(otel_endpoint="http://127.0.0.1:1")) is not None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert exporter_of(Settings()) is not None


# ---------------------------------------------------------------- dashboard and alerts

NAME = re.compile(r"\bunderstudy_[a-z_]+\b")


def test_the_dashboard_and_the_alerts_know_only_metrics_that_there_are(project: Path, watched: httpx.Client) -> None:
    assert rest_json([M])(watched).status_code == 200
    assert rest_json([COINCIDENT])(watched).status_code == 422
    there = {re.split(r"[{ ]", name)[0] for name in metrics(watched)}
    dashboard = json.loads((project / "deploy/grafana/understudy.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((project / "deploy/prometheus/understudy.rules.yaml").read_text())
    asked += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    used = {name for expression in asked for name in NAME.findall(expression)}
    assert len(used) > 15
    assert used - there == set()
