"""What the gateway refuses, beside what `contract.errors` says of structures and models.

ServiceError                       code, status, title, detail, hint, facts, headers
├── BadRequest (400)               the request cannot be read
│   ├── InvalidHost
│   ├── MalformedHttp
│   ├── BrokenCompression
│   ├── TooManyChunks
│   ├── MalformedJson
│   ├── MalformedXyz
│   ├── MissingField
│   ├── UnknownField
│   ├── UnknownOutput
│   └── NoTeacher
├── NoKey (401)                    no key, or none that is good here
├── Forbidden (403)                not with this key
├── UnknownModel (404)             no such model or version
├── UnknownUpload (404)            none of this caller's, or it has expired
├── HeadTooSlow (408)
├── BodyTooSlow (408)
├── Conflict (409)                 a command that cannot be carried out as things stand; nothing has changed
│   ├── LoadFailed                 a version that must not be served
│   └── NotPromoted                a version that may not answer those who name none
├── OtherDigest (412)              other weights are served than the caller named
├── BodyTooLarge (413)
├── TooMany (413)                  structures or atoms in one request
├── UnsupportedEncoding (415)
├── UnsupportedMediaType (415)
├── UnsupportedElement (422)       an element that the model does not know
├── BadImage (422)                 an image that does not say what is pore, or cannot be read as one
├── OtherInput (422)               not the structures of a receipt
├── OutOfDomain (422)              the model was not trained for it, and the caller wants no such answer
├── HeadTooLarge (431)
├── QueueFull (429)                ask again later
├── OverBudget (429)               the tenant has had what it may have for now
├── CallerLeft (499)               nobody is there to be answered
├── NotServed (501)                a part of a protocol that is not served here
├── NotReady (503)                 starting, or shutting down
├── EngineAway (503)               no server that could run the model answers
├── DeadlineExceeded (504)
├── OutOfMemory (507)              the engine has not the memory for this structure
├── SpoolFull (507)                the gateway has not the room on its disk
└── Fault (500)                    ours
    ├── EngineFault                the engine failed on this structure
    └── NonFiniteAnswer            the model gave NaN or infinity
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from contract.errors import UnderstudyError


class ServiceError(UnderstudyError):
    """A request that gets no prediction.

    Args:
        detail: what is wrong and where.
        hint: what to do about it.
        headers: HTTP headers that belong to the refusal.
        facts: typed particulars (field, index, atoms, limit, got, unit).
    """

    code: ClassVar[str] = "service_error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Service error"

    def __init__(self, detail: str, *, hint: str, headers: Mapping[str, str] | None = None, **facts: Any) -> None:
        super().__init__(f"{detail} {hint}")
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})
        self.facts = facts


class BadRequest(ServiceError):
    """The request cannot be read."""

    code = "bad_request"
    status = 400
    title = "Bad request"


class InvalidHost(BadRequest):
    """The `Host` header names no host, or one that this gateway does not answer for."""

    code = "invalid_host"
    title = "Invalid host"


class MalformedHttp(BadRequest):
    """Not HTTP/1.1, or with a Content-Length that is none."""

    code = "malformed_http"
    title = "Malformed HTTP"


class BrokenCompression(BadRequest):
    """The body does not decompress: broken, cut off, or more than one member."""

    code = "broken_compression"
    title = "Broken compression"


class TooManyChunks(BadRequest):
    """The body came in too many pieces."""

    code = "too_many_chunks"
    title = "Too many chunks"


class MalformedJson(BadRequest):
    """Not JSON, or JSON of another kind than was asked for."""

    code = "malformed_json"
    title = "Malformed JSON"


class MalformedXyz(BadRequest):
    """Not extended XYZ."""

    code = "malformed_xyz"
    title = "Malformed extended XYZ"


class MissingField(BadRequest):
    """Something that must be given is not."""

    code = "missing_field"
    title = "Missing field"


class UnknownField(BadRequest):
    """Something is given that is not known here; it may be misspelt."""

    code = "unknown_field"
    title = "Unknown field"


class UnknownOutput(BadRequest):
    """An output was asked for that this model does not have."""

    code = "unknown_output"
    title = "Unknown output"


class NoTeacher(BadRequest):
    """A teacher was asked for that a model does not have, or that is not served here."""

    code = "no_teacher"
    title = "No teacher"


class NoKey(ServiceError):
    """No key, or none that is good here."""

    code = "no_key"
    status = 401
    title = "A key is needed"


class Forbidden(ServiceError):
    """Not with this key."""

    code = "forbidden"
    status = 403
    title = "Not allowed"


class UnknownModel(ServiceError):
    """No such model or version."""

    code = "unknown_model"
    status = 404
    title = "Unknown model"


class UnknownUpload(ServiceError):
    """No such upload of this caller."""

    code = "unknown_upload"
    status = 404
    title = "No such upload"


class HeadTooSlow(ServiceError):
    """The head did not arrive in time."""

    code = "head_too_slow"
    status = 408
    title = "Head too slow"


class BodyTooSlow(ServiceError):
    """The body did not arrive in time."""

    code = "body_too_slow"
    status = 408
    title = "Body too slow"


class Conflict(ServiceError):
    """A command that cannot be carried out as things stand; nothing has changed."""

    code = "conflict"
    status = 409
    title = "Not possible now"


class LoadFailed(Conflict):
    """A version that must not be served: its files, its graph or its answers are not what they should be."""

    code = "load_failed"
    title = "Version not loaded"


class NotPromoted(Conflict):
    """A version that may not answer those who name none."""

    code = "not_promoted"
    title = "Version not promoted"


class OtherDigest(ServiceError):
    """Other weights are served than those that the caller named, or that gave the answer of a receipt."""

    code = "digest_mismatch"
    status = 412
    title = "Other weights"


class BodyTooLarge(ServiceError):
    """The body is over its limit."""

    code = "body_too_large"
    status = 413
    title = "Body too large"


class TooMany(ServiceError):
    """More structures or atoms than one request may hold."""

    code = "request_too_large"
    status = 413
    title = "Request too large"


class UnsupportedEncoding(ServiceError):
    """A content coding other than gzip and deflate."""

    code = "unsupported_encoding"
    status = 415
    title = "Unsupported content coding"


class UnsupportedMediaType(ServiceError):
    """A media type that is not read here."""

    code = "unsupported_media_type"
    status = 415
    title = "Unsupported media type"


class UnsupportedElement(ServiceError):
    """An element that the model does not know."""

    code = "unsupported_element"
    status = 422
    title = "Element unknown to this model"


class BadImage(ServiceError):
    """An image that does not say what is pore, or cannot be read as one."""

    code = "bad_image"
    status = 422
    title = "Image not understood"


class OtherInput(ServiceError):
    """The structures are not those that a receipt belongs to."""

    code = "input_mismatch"
    status = 422
    title = "Other input"


class OutOfDomain(ServiceError):
    """The model was not trained for a structure, and the caller asked for no answer in that case."""

    code = "out_of_domain"
    status = 422
    title = "Out of the model's domain"


class HeadTooLarge(ServiceError):
    """The head of a request is over its limit."""

    code = "head_too_large"
    status = 431
    title = "Head too large"


class QueueFull(ServiceError):
    """More waits for this model than it can soon answer."""

    code = "queue_full"
    status = 429
    title = "Queue full"


class OverBudget(ServiceError):
    """The tenant has had what it may have for now."""

    code = "over_budget"
    status = 429
    title = "Budget used up"


class CallerLeft(ServiceError):
    """The connection was closed before the answer was there; the status is only seen in metrics."""

    code = "caller_left"
    status = 499
    title = "Caller left"


class NotServed(ServiceError):
    """A part of a protocol that is not served here."""

    code = "not_served"
    status = 501
    title = "Not served"


class NotReady(ServiceError):
    """Starting, or shutting down."""

    code = "not_ready"
    status = 503
    title = "Not ready"


class EngineAway(ServiceError):
    """No server that could run the model answers."""

    code = "engine_away"
    status = 503
    title = "Engine away"


class DeadlineExceeded(ServiceError):
    """The request's time was over before its answer was there."""

    code = "deadline_exceeded"
    status = 504
    title = "Deadline exceeded"


class SpoolFull(ServiceError):
    """What is too large for memory finds no room on the gateway's disk."""

    code = "spool_full"
    status = 507
    title = "No room on disk"


class OutOfMemory(ServiceError):
    """A single structure does not fit into the engine's memory."""

    code = "out_of_memory"
    status = 507
    title = "Not enough memory"


class Fault(ServiceError):
    """A fault of the gateway or a model, not of the caller."""

    code = "internal_error"
    title = "Internal error"


class EngineFault(Fault):
    """The engine failed on a structure."""

    code = "engine_fault"
    title = "Engine fault"


class NonFiniteAnswer(Fault):
    """The model gave NaN or infinity."""

    code = "non_finite_answer"
    title = "The model gave no finite number"
