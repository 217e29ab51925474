"""The application: settings in, FastAPI out. Started, it has loaded, verified and warmed every model."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from contract.errors import UnderstudyError
from contract.repository import ModelRepository
from service.access import Access
from service.api import documentation
from service.api.edge import REFUSALS, Edge, handle_refusal
from service.api.routes import BUSY, add_routes
from service.doors import Door
from service.engines import Engine
from service.followers import Follower
from service.followers.canary import Canary
from service.followers.harvester import Harvester
from service.followers.shadow import Shadows
from service.followers.teacher import TeacherCheck, every_place, flagged_places
from service.harvest import Harvest, HarvestUnusable
from service.journal import Journal
from service.lanes import Turns
from service.learning_metrics import Learning
from service.logs import request_log
from service.metrics import Answers, registry_of
from service.models import Models, load_model, load_models
from service.operator import Operator
from service.plane import Exchange, Plane
from service.settings import Settings
from service.spool import Spool
from service.tracing import Traces, exporter_of
from service.version import VERSION
from service.version_metrics import VersionMetrics
from service.workers import ThreadWorkers


@dataclass(frozen=True, slots=True)
class Started:
    """What a gateway that is ready can say of itself.

    Attributes:
        doors: a line for each port beside HTTP.
    """

    settings: Settings
    engine: Engine
    models: Models
    doors: Sequence[str] = ()


class Gateway(FastAPI):
    """FastAPI behind the edge."""

    edge: Edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, first to the edge."""
        scope["app"] = self
        await self.edge(scope, receive, send)

    async def framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What the edge does not answer itself."""
        await super().__call__(scope, receive, send)


def create_app(
    settings: Settings, on_ready: Callable[[Started], None] | None = None, doors: Sequence[Door] = ()
) -> Gateway:
    """The gateway as an ASGI application.

    Args:
        settings: see `service.settings`.
        on_ready: called once, when every model is loaded and warm.
        doors: ports to open beside this application, such as gRPC's; whoever runs the application opens HTTP's.

    Raises:
        Unprotected, KeysFileError: at once, when it would be open to a network, or its keys cannot be read.
        RepositoryError: on start-up, when a model must not be served.
    """
    answers: Answers = Counter()
    access = Access.of(settings)
    journal = Journal()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with _opened(app, settings, answers, access, journal, doors) as started:
                app.state.ready = True
                if on_ready is not None:
                    on_ready(started)
                yield
                app.state.ready = False
        except (UnderstudyError, ModuleNotFoundError) as error:
            app.state.failure = error
            raise
        finally:
            app.state.ready = False

    app = Gateway(
        title="Understudy",
        version=VERSION,
        description=documentation.DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        exception_handlers=dict.fromkeys((HTTPException, *REFUSALS), handle_refusal),
    )
    add_routes(app)
    app.edge = Edge(app.framework, BUSY, settings.hosts(), answers, access, journal)
    return app


@asynccontextmanager
async def _opened(
    app: FastAPI, settings: Settings, answers: Answers, access: Access, journal: Journal, doors: Sequence[Door]
) -> AsyncIterator[Started]:
    """What answers, opened in order and closed in the opposite one; the routes find it in the application's state."""
    async with AsyncExitStack() as opened:
        if (log := request_log(settings)) is not None:
            journal.readers.append(log)
        if (exporter := exporter_of(settings)) is not None:
            journal.readers.append(traces := Traces(exporter))
            opened.callback(traces.close)
        engine = open_engine(settings)
        opened.callback(engine.close)
        encoders = ThreadPoolExecutor(settings.workers, "understudy-encoder")
        opened.callback(encoders.shutdown)
        workers = ThreadWorkers(settings.calls(), asyncio.get_running_loop())
        opened.push_async_callback(asyncio.to_thread, workers.close)
        repository, turns = ModelRepository(settings.model_repo), Turns(workers)
        models = await asyncio.to_thread(load_models, repository, engine, turns, settings.limits)
        spool = Spool(settings.spool, settings.spool_bytes)
        plane = Plane(
            models=models,
            limits=settings.limits,
            encoders=encoders,
            concurrency=workers.count,
            parallelism=settings.parallelism(),
            journal=journal,
            engine_is_there=engine.is_there,
            spool=spool,
        )
        harvest = None if settings.harvest is None else await asyncio.to_thread(open_harvest, settings)
        canary, shadows = Canary(plane, settings.canary_fraction), Shadows(plane, settings.shadow)
        for follower in (canary, *learners(plane, settings, harvest), shadows):
            plane.followers.add(follower)
        opener = partial(load_model, engine=engine, turns=turns, limits=settings.limits)
        operator = await opened.enter_async_context(Operator(repository, models, opener, shadows))
        metrics = registry_of(answers, lambda: models, canary, journal)
        metrics.register(Learning(plane, harvest))
        metrics.register(VersionMetrics(operator))
        app.state.plane, app.state.operator, app.state.metrics = plane, operator, metrics
        lines = [await opened.enter_async_context(door(plane, settings, answers, access)) for door in doors]
        opened.callback(plane.uploads.close)
        opened.push_async_callback(plane.followers.close)
        yield Started(settings, engine, models, lines)


def learners(plane: Plane, settings: Settings, harvest: Harvest | None) -> Iterator[Follower[Exchange]]:
    """Who learns from live traffic: teachers, of a sampled share and of whatever is flagged, and the harvest."""
    harvester = None if harvest is None else Harvester(harvest)
    hear, share = None if harvester is None else harvester.hear, settings.teacher_share
    if settings.teacher_fraction:
        yield TeacherCheck(plane, "sampled", every_place, settings.teacher_fraction, share, hear)
        yield TeacherCheck(plane, "flagged", flagged_places, 1.0, share, hear)
    if harvester is not None:
        yield harvester


def open_harvest(settings: Settings) -> Harvest:
    """The harvest that the settings name.

    Raises:
        HarvestUnusable: its folder cannot be made or read.
    """
    folder = settings.harvest or Path("harvest")
    try:
        return Harvest(folder, settings.harvest_bytes, settings.harvest_structures)
    except (OSError, ValueError) as error:
        raise HarvestUnusable(f"UNDERSTUDY_HARVEST={folder} cannot be used: {error}") from error


def open_engine(settings: Settings) -> Engine:
    """The engine that the settings name.

    Raises:
        ModuleNotFoundError: it is not installed, saying what to install.
        EngineUnavailable: the device or the server that it needs is not there.
    """
    if settings.engine == "triton":
        from service.engines.triton import Triton

        return Triton(settings.triton_urls(), settings.triton_calls, settings.limits.timeout_s)
    if settings.engine == "torchscript":
        with _or_say_how("torch", "PyTorch", "-e clients/python -e '.[torchscript]'"):
            from service.engines.torchscript import TorchScript
        return TorchScript(settings.workers, settings.device)
    with _or_say_how("onnxruntime", "ONNX Runtime", "-e clients/python -e '.[cpu]', or '.[gpu]' for an NVIDIA GPU"):
        from service.engines.onnxruntime import OnnxRuntime
    return OnnxRuntime(settings.workers, settings.device)


@contextmanager
def _or_say_how(module: str, name: str, install: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ModuleNotFoundError(f"{name} is not installed: pip install {install}", name=module) from None
