"""The same rule of access for gRPC: every call passes here before its method is looked up."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

import grpc

from service.access import Access, need_of_rpc, tenant_of_peer
from service.api.edge import request_id_of
from service.api.grpc_refusals import Refusal, refusal_of
from service.errors import ServiceError
from service.journal import Journal, Journey
from service.metrics import Answers
from service.tenants import Tenant

_tenant: Final[ContextVar[Tenant | None]] = ContextVar("tenant", default=None)


class Gatekeeper(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls that may not be made, and writes down for whom the others are.

    Args:
        access: the rule.
        counts: answers by route, method and status, for the metrics.
        journal: is told of every refusal.
    """

    def __init__(self, access: Access, counts: Answers, journal: Journal) -> None:
        self._access = access
        self._counts = counts
        self._journal = journal

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """One call, before it is answered."""
        metadata = dict(details.invocation_metadata)
        authorization, api_key = (_text(metadata.get(name)) for name in ("authorization", "x-api-key"))
        try:
            _tenant.set(self._access.admit(need_of_rpc(details.method), authorization, api_key))
        except ServiceError as error:
            self._counts["access", "gRPC", error.status] += 1
            journey = Journey(request_id_of(_text(metadata.get("x-request-id")).encode()), "gRPC")
            self._journal.end(journey, "access", error.status, error.code)
            return _refuse(refusal_of(error, journey.request_id))
        return await continuation(details)


def tenant_of_call(context: grpc.aio.ServicerContext) -> Tenant:
    """For whom the present call is: the key's tenant, or else the machine that asks."""
    return _tenant.get() or tenant_of_peer(context.peer())


def _refuse(refusal: Refusal) -> Any:
    """A method that refuses at once, whatever the kind of the one that was called: it waits for no message."""

    async def refuse(_messages: Any, context: grpc.aio.ServicerContext) -> None:
        await context.abort(refusal.code, refusal.text, refusal.metadata)

    return grpc.stream_stream_rpc_method_handler(refuse)


def _text(value: str | bytes | None) -> str:
    return value if isinstance(value, str) else ""
