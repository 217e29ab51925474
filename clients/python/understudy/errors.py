"""What can go wrong, as one tree.

UnderstudyError                     everything this package raises on purpose: detail, code, hint, facts
├── InvalidStructure (ValueError)   a structure cannot be sent as it is
├── InvalidImage (ValueError)       a rock image cannot be sent as it is
├── FramingError (ValueError)       a body does not follow the tensor framing
├── AmbiguousModel (ValueError)     no model was named, and none or several could answer
├── BrokenPlugin                    a command of another distribution cannot be imported
├── ModelChanged                    the gateway answers with other weights than it did before
├── NotReachable                    no answer came: name, network, refused connection
│   └── TimedOut                    no answer came in time
├── BadAnswer                       an answer came that is not the gateway's language
└── Refused                         the gateway said no: status, request_id
    ├── BadRequest                  400, 415, 422: malformed, or not physics, or not for this model
    │   └── OutOfDomain             422: the model was not trained for a structure, and such an answer was not wanted
    ├── NotAllowed                  401, 403: no key, or not this key
    ├── NotFound                    404: model, version or route
    ├── DigestMismatch              412: another version of the weights than the one pinned
    ├── TooLarge                    413, 507: over a limit, or more than the engine's memory
    ├── Busy                        429: queue or budget full
    ├── Unavailable                 503: not ready, draining, engine away
    ├── DeadlineExceeded            504: the deadline passed, or cannot be met
    └── ServerFault                 any other 5xx: report it with the request_id
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class UnderstudyError(Exception):
    """Base of all errors of this package.

    Attributes:
        detail: what was wrong, and where.
        code: a stable name to branch on, in snake_case.
        hint: what to do about it; may be empty.
        facts: the typed particulars, such as `index`, `field`, `atoms`, `limit`, `got`.
    """

    code: str = "understudy_error"

    def __init__(
        self, detail: str, *, code: str | None = None, hint: str = "", facts: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(detail, hint)
        self.detail = detail
        self.code = code or type(self).code
        self.hint = hint
        self.facts = dict(facts or {})

    def __str__(self) -> str:
        return f"{self.detail} {self.hint}".strip()


class InvalidStructure(UnderstudyError, ValueError):
    """A structure cannot be sent as it is; facts hold its `index` and the `field`."""

    code = "invalid_structure"


class InvalidImage(UnderstudyError, ValueError):
    """A rock image cannot be read, or not be sent as it is."""

    code = "invalid_image"


class FramingError(UnderstudyError, ValueError):
    """A body does not follow the tensor framing.

    Attributes:
        tensor: the tensor's name, where one is to blame.
        expected, got: what the rule asks for and what came, where both are known.
    """

    code = "malformed_body"

    def __init__(
        self,
        code: str,
        detail: str,
        hint: str = "",
        *,
        tensor: str | None = None,
        expected: Any = None,
        got: Any = None,
    ) -> None:
        facts = {"tensor": tensor, "expected": expected, "got": got}
        super().__init__(detail, code=code, hint=hint, facts={k: v for k, v in facts.items() if v is not None})
        self.tensor = tensor
        self.expected = expected
        self.got = got


class AmbiguousModel(UnderstudyError, ValueError):
    """No model was named, and the choice is not obvious; facts hold `models`."""

    code = "ambiguous_model"


class BrokenPlugin(UnderstudyError):
    """A command that another distribution adds cannot be imported."""

    code = "broken_plugin"


class ModelChanged(UnderstudyError):
    """The gateway answers with other weights than it did before; facts hold `expected` and `got` digests."""

    code = "model_changed"


class NotReachable(UnderstudyError):
    """No answer came from the gateway."""

    code = "not_reachable"


class TimedOut(NotReachable):
    """No answer came from the gateway in time."""

    code = "timed_out"


class BadAnswer(UnderstudyError):
    """Something answered, but not in the gateway's language: another server, a proxy's page, a cut-off body."""

    code = "bad_answer"


class Refused(UnderstudyError):
    """The gateway answered with a problem (RFC 9457).

    Attributes:
        status: the HTTP status.
        request_id: quote it when reporting; may be None.
        retry_after_s: seconds after which the gateway expects to be able to answer, or None.
    """

    code = "refused"
    statuses: ClassVar[tuple[int, ...]] = ()

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str | None = None,
        hint: str = "",
        facts: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail, code=code, hint=hint, facts=facts)
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class BadRequest(Refused):
    """The request is malformed, not physics, or not for this model."""

    statuses = (400, 415, 422)


class OutOfDomain(BadRequest):
    """The model was not trained for a structure; facts hold `reasons`, `atoms` and `index`."""

    code = "out_of_domain"


class NotAllowed(Refused):
    """The key is missing, wrong, or not allowed to do this."""

    statuses = (401, 403)


class NotFound(Refused):
    """No such model, version or route."""

    statuses = (404,)


class DigestMismatch(Refused):
    """The gateway serves other weights than the ones pinned."""

    statuses = (412,)


class TooLarge(Refused):
    """Over a limit, or more than the engine's memory; facts hold `got`, `unit` and what is known of `limit`."""

    statuses = (413, 507)


class Busy(Refused):
    """The queue, or the caller's budget, is full."""

    statuses = (429,)


class Unavailable(Refused):
    """Not ready, draining, or the engine is away."""

    statuses = (503,)


class DeadlineExceeded(Refused):
    """The deadline passed, or cannot be met."""

    statuses = (504,)


class ServerFault(Refused):
    """The gateway's own fault; report it with the request_id."""


def refusal_class(status: int, code: str = "") -> type[Refused]:
    """The class of a refusal with this HTTP status, and this code where there is one."""
    if code == OutOfDomain.code:
        return OutOfDomain
    for kind in Refused.__subclasses__():
        if status in kind.statuses:
            return kind
    return ServerFault if status >= 500 else Refused
