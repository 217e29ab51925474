"""What a caller may choose beside the model and the structures: the same names in every client, and on the wire."""

from collections.abc import Collection
from typing import Any, TypedDict

from understudy.wire import Check, Escalate, OnOutOfDomain, OptionalOutput, Priority


class PredictOptions(TypedDict, total=False):
    """Arguments of `Client.predict` that go to the gateway; what is left out, or None, is the gateway's default."""

    outputs: Collection[OptionalOutput]
    version: str | None
    deterministic: bool
    on_out_of_domain: OnOutOfDomain
    model_digest: str | None
    check: Check | None
    escalate: Escalate
    priority: Priority


def head_of(options: PredictOptions) -> dict[str, Any]:
    """Options as the head of a request.

    Raises:
        TypeError: an option that there is not.
    """
    if unknown := options.keys() - PredictOptions.__optional_keys__:
        raise TypeError(f"predict() takes no '{min(unknown)}'; options: {', '.join(PredictOptions.__annotations__)}.")
    said: dict[str, Any] = {**options, "outputs": sorted(options.get("outputs", ()))}
    return {name: value for name, value in said.items() if value is not None and value is not False and value != []}
