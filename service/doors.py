"""Ports beside HTTP: each is open while the gateway is ready, and tells the operator so in one line."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

from service.access import Access
from service.metrics import Answers
from service.plane import Plane
from service.settings import Settings

Door: TypeAlias = Callable[[Plane, Settings, Answers, Access], AbstractAsyncContextManager[str]]
"""Opened with what answers, the settings, the counts of answers and who may ask; gives a line for the operator."""


@asynccontextmanager
async def grpc_door(plane: Plane, settings: Settings, counts: Answers, access: Access) -> AsyncIterator[str]:
    """The Open Inference Protocol over gRPC; without it, if its libraries do not load, HTTP is served all the same.

    Raises:
        PortTaken: the port that somebody chose on purpose is taken; without the usual one HTTP is served alone.
    """
    if settings.grpc_port is None:
        yield "gRPC is switched off"
        return
    try:
        from service.api.grpc_server import GRACE_S, PortTaken, start
    except Exception as error:  # noqa: BLE001 (missing, or refused by the protobuf that is there: each its own class)
        yield f"gRPC is off: {error}. To get it: pip install 'tritonclient[grpc]>=2.60' 'protobuf>=6.33.5,<7'"
        return
    try:
        server, port = await start(plane, counts, settings.address(settings.grpc_port), access)
    except PortTaken as error:
        if "grpc_port" in settings.model_fields_set:
            raise
        yield f"gRPC is off: {error}; choose another with --grpc-port or UNDERSTUDY_GRPC_PORT"
        return
    try:
        yield f"gRPC at {settings.address(port)}"
    finally:
        await server.stop(GRACE_S)
