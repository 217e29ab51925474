"""Structured logs: a line for each request, JSON for machines, colours for a terminal; never a key, never a body."""

import logging
import sys
from typing import Any, Final, TextIO

import orjson
import structlog

from service.journal import Journey
from service.settings import Settings

_REFUSED: Final = 400
_FAULT: Final = 500


def configure(settings: Settings, stream: TextIO = sys.stdout) -> None:
    """Send our own log lines, and those of the libraries, to a stream.

    Args:
        settings: level and format.
        stream: a line of JSON for each event, unless it is a terminal.
    """
    console = settings.log_format == "console" or (settings.log_format == "auto" and stream.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Any] = [structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)]
    last: list[Any] = [structlog.dev.ConsoleRenderer()] if console else [structlog.processors.format_exc_info, _json]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[_plain, *last], foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


def request_log(settings: Settings) -> "RequestLog | None":
    """The log of requests, where logs are configured and the settings want it."""
    return RequestLog() if settings.log_requests and structlog.is_configured() else None


class RequestLog:
    """A line for each request at its end: at info where a model was asked or something was refused, else at debug."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("requests")

    def ended(self, journey: Journey) -> None:
        """Write what is known of a request."""
        if journey.status >= _FAULT:
            tell = self._log.error
        elif journey.works or journey.status >= _REFUSED:
            tell = self._log.info
        else:
            tell = self._log.debug
        tell("request", **_fields(journey))


def _fields(journey: Journey) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": journey.request_id,
        "protocol": journey.protocol,
        "route": journey.route,
        "status": journey.status,
        "outcome": journey.code,
        "duration_ms": _ms(journey.ended - journey.begun),
    }
    if journey.tenant is not None:
        fields["tenant"] = journey.tenant.name
    if journey.works:
        model = journey.works[0].model
        fields |= {
            "model": model.card.name,
            "version": model.card.version,
            "digest": model.stored.digest[:12],
            "structures": journey.structures,
            "atoms": journey.atoms,
            "slots": journey.slots,
            "encode_ms": _ms(sum(work.encoded[1] - work.encoded[0] for work in journey.works)),
            "queue_ms": _ms(sum(work.queue_s for work in journey.works)),
            "engine_ms": _ms(sum(c.stamps.ran - c.stamps.collated for work in journey.works for c in work.calls)),
        }
    return fields


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 3)


def _json(_logger: Any, _name: str, event: Any) -> str:
    return orjson.dumps(event, default=str).decode()


def _plain(_logger: Any, _name: str, event: Any) -> Any:
    """What a library logged, without the record it was made from."""
    record = event.pop("_record")
    event.pop("_from_structlog", None)
    return {**event, "logger": record.name}
