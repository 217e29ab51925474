"""The gRPC port: start, and the limits of messages, metadata and connections."""

import os
from typing import Any, Final

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what happens is told by exceptions, not by lines of its C library

import grpc
from tritonclient.grpc import service_pb2 as pb

from contract.errors import UnderstudyError
from service.access import Access
from service.api.grpc_access import Gatekeeper
from service.api.grpc_tensors import reader_of
from service.api.kserve_grpc import InferenceService
from service.metrics import Answers
from service.plane import Plane
from service.settings import Limits

GRACE_S: Final = 30.0
_METADATA_BYTES: Final = 32 * 1024
_MINUTE_MS: Final = 60_000


class PortTaken(UnderstudyError):
    """Nobody can listen on the address that was asked for."""


async def start(plane: Plane, counts: Answers, address: str, access: Access) -> tuple[grpc.aio.Server, int]:
    """Answer gRPC calls from now on.

    Args:
        plane: answers.
        counts: answers by route, method and status.
        address: host and port; port 0 for one that is free.
        access: lets calls in, or refuses them.

    Returns:
        The server, to be stopped with `GRACE_S`, and its port.

    Raises:
        PortTaken
    """
    server = grpc.aio.server(interceptors=[Gatekeeper(access, counts, plane.journal)], options=_options(plane.limits))
    server.add_generic_rpc_handlers((_handlers(InferenceService(plane, counts, plane.limits.stream_idle_s)),))
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError:
        raise PortTaken(f"gRPC cannot listen on {address}: the port is taken, or the address is not ours") from None
    await server.start()
    return server, bound


def _handlers(service: InferenceService) -> grpc.GenericRpcHandler:
    """Each method of the protocol; as the generated registration does it, but for messages that cannot be read."""
    described = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    methods = {}
    for method in described.methods:
        handler = (
            grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_unary_rpc_method_handler
        )
        request, response = (getattr(pb, kind.name) for kind in (method.input_type, method.output_type))
        methods[method.name] = handler(getattr(service, method.name), reader_of(request), response.SerializeToString)
    return grpc.method_handlers_generic_handler(described.full_name, methods)


def _options(limits: Limits) -> list[tuple[str, Any]]:
    """Channel arguments; source: https://grpc.github.io/grpc/core/group__grpc__arg__keys.html."""
    return [
        ("grpc.max_receive_message_length", limits.binary_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", limits.calls_per_connection),
        ("grpc.max_metadata_size", _METADATA_BYTES),  # beyond the first some calls are refused, beyond the second all
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        (
            "grpc.keepalive_time_ms",
            2 * _MINUTE_MS,
        ),  # a caller whose machine has vanished is noticed, its work cancelled
        ("grpc.keepalive_timeout_ms", _MINUTE_MS // 3),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # what a caller's own keep-alive may do
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_idle_ms", 30 * _MINUTE_MS),
        ("grpc.max_connection_age_ms", 60 * _MINUTE_MS),  # new calls open a new connection; running ones end here
        ("grpc.so_reuseport", 0),  # two gateways on one port would share its callers by chance
    ]
