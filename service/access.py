"""Who may ask for what, and for whom: one rule for HTTP and gRPC, which denies whatever it does not know.

With a keys file everything but health needs a key. Without one the gateway is open, and therefore listens on the
loopback address only, unless its operator says `--open`.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import unquote

from contract.errors import UnderstudyError
from service.errors import Forbidden, NoKey
from service.keys import KeyRing
from service.settings import Settings
from service.tenants import NOBODY, Tenant, tenant_at

Need = Literal["nothing", "use", "watch", "operate"]
"""What a route takes: nothing (health), the right to use models, to see what others do, to change what is served."""

TENANT: Final = "understudy_tenant"
_GRANTED: Final[Mapping[str, frozenset[Need]]] = {
    "user": frozenset({"use"}),
    "operator": frozenset({"use", "watch", "operate"}),
}
_ON_LOOPBACK: Final[frozenset[Need]] = frozenset({"use", "watch", "operate"})
_OPEN_TO_ALL: Final[frozenset[Need]] = frozenset({"use", "watch"})

# What changes nothing that is served, by any method; every other POST, and every other method but GET, operates.
_USED_BY_POST: Final = (
    *("/v1/predict/", "/v1/fields/", "/v1/uploads", "/v1/plan", "/v1/replay", "/v1/jobs"),
    "/v2/repository/index",
)
_HEALTH: Final = frozenset({"/v2/health/live", "/v2/health/ready"})
_RPC_HEALTH: Final = frozenset({"ServerLive", "ServerReady"})
_RPC_USE: Final = frozenset(
    {"ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig", "ModelInfer", "ModelStreamInfer"}
    | {"RepositoryIndex", "ModelStatistics"}
)


class Unprotected(UnderstudyError):
    """The gateway would be open to a network, and nobody said that it should be."""


def need_of(method: str, path: str) -> Need:
    """What an HTTP request takes.

    Args:
        method: upper case.
        path: `scope["path"]`, as the router matches it, never a URL put together from headers.
    """
    if method in ("GET", "HEAD", "OPTIONS"):
        if path in _HEALTH:
            return "nothing"
        return "operate" if path.startswith("/v1/admin") else "watch" if path.startswith("/metrics") else "use"
    if path.startswith(_USED_BY_POST) or (path.startswith("/v2/models/") and path.endswith("/infer")):
        return "use"
    return "operate"


def need_of_rpc(method: str) -> Need:
    """What a gRPC call takes, by its full name such as `/inference.GRPCInferenceService/ModelInfer`."""
    name = method.rpartition("/")[2]
    return "nothing" if name in _RPC_HEALTH else "use" if name in _RPC_USE else "operate"


class Access:
    """Lets requests in, or refuses them.

    Args:
        keys: of the tenants; None: nobody needs one.
        anonymous: what may be done without keys.
    """

    def __init__(self, keys: KeyRing | None, anonymous: frozenset[Need] = _ON_LOOPBACK) -> None:
        self._keys = keys
        self._anonymous = anonymous

    @classmethod
    def of(cls, settings: Settings) -> "Access":
        """As the settings say.

        Raises:
            Unprotected: it would be open to a network.
            KeysFileError: the keys cannot be read.
        """
        if settings.keys_file is not None:
            return cls(KeyRing(settings.keys_file))
        if settings.on_loopback:
            return cls(None)
        if not settings.open:
            raise Unprotected(
                f"{settings.host} can be reached by others, and there are no keys. Make some with 'understudy key new "
                "TENANT --file keys.toml' and name the file by UNDERSTUDY_KEYS_FILE or --keys-file; or say --open "
                "(UNDERSTUDY_OPEN=true) where everybody may ask"
            )
        return cls(None, _OPEN_TO_ALL)

    def admit(self, need: Need, authorization: str, api_key: str) -> Tenant | None:
        """For whom a request is asked; None for somebody without a key.

        Args:
            need: what it takes.
            authorization: of its headers or metadata; empty if it has none.
            api_key: likewise.

        Raises:
            NoKey: it takes a key, and there is none that is good.
            Forbidden: it takes more than this key, or somebody without one, may.
        """
        if self._keys is None:
            if need != "nothing" and need not in self._anonymous:
                raise _forbidden("an operator's key, and this gateway has no keys")
            return None
        if need == "nothing":
            return None
        found = self._keys.find(_token(authorization, api_key))
        if found is None:
            raise NoKey(
                "The request has no key that is good here.",
                hint="Send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'; the gateway's operator has keys to give.",
                headers={"WWW-Authenticate": 'Bearer realm="understudy"'},
            )
        key, tenant = found
        if need not in _GRANTED[key.role]:
            raise _forbidden("an operator's key")
        return tenant


def admit_http(access: Access, scope: Any) -> None:
    """Let an HTTP request in and write down for whom; its key goes no further, so that nothing can log it.

    Raises:
        NoKey, Forbidden
    """
    authorization = api_key = b""
    kept = []
    for header in scope["headers"]:
        if header[0] == b"authorization":
            authorization = header[1]
        elif header[0] == b"x-api-key":
            api_key = header[1]
        else:
            kept.append(header)
    if authorization or api_key:
        scope["headers"] = kept
    need = need_of(scope["method"], scope["path"])
    scope[TENANT] = access.admit(need, authorization.decode("latin-1"), api_key.decode("latin-1"))


def tenant_of(scope: Mapping[str, Any]) -> Tenant:
    """For whom an HTTP request is asked: the key's tenant, or else the machine that asks."""
    tenant: Tenant | None = scope.get(TENANT)
    if tenant is not None:
        return tenant
    client = scope.get("client")
    return tenant_at(client[0]) if client else NOBODY


def tenant_of_peer(peer: str) -> Tenant:
    """The machine that asks by gRPC, from its peer such as `ipv4:10.0.0.7:50123` or `ipv6:%5B::1%5D:50123`."""
    kind, _, address = peer.partition(":")
    host = unquote(address).rpartition(":")[0].strip("[]")
    return tenant_at(host) if kind in ("ipv4", "ipv6") and host else NOBODY


def _token(authorization: str, api_key: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else api_key.strip()


def _forbidden(what: str) -> Forbidden:
    return Forbidden(f"This takes {what}.", hint="Ask the gateway's operator.")
