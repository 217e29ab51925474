"""Who may ask for what, and for whom."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from service.tenants import NOBODY, Tenant, tenant_at


def tenant_of(scope: Mapping[str, Any]) -> Tenant:
    """For whom an HTTP request is asked: without a key the address of the machine that asks."""
    client = scope.get("client")
    return tenant_at(client[0]) if client else NOBODY


def tenant_of_peer(peer: str) -> Tenant:
    """The same for a gRPC call, by its peer such as `ipv4:10.0.0.7:50123` or `ipv6:%5B::1%5D:50123`."""
    kind, _, address = peer.partition(":")
    host = unquote(address).rpartition(":")[0].strip("[]")
    return tenant_at(host) if kind in ("ipv4", "ipv6") and host else NOBODY
