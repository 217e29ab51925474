"""What a lane refuses, in words."""

import math

from service.errors import DeadlineExceeded, EngineFault, OutOfMemory, OverBudget, QueueFull, TooMany
from service.lanes.tickets import Item


def too_many(got: int, limit: int, unit: str) -> TooMany:
    """It would not fit into an empty queue."""
    return TooMany(
        f"The request has {got:,} {unit}; at most {limit:,} may wait.",
        hint="Send several smaller requests.",
        limit=limit,
        got=got,
        unit=unit,
    )


def queue_full(waiting: int, limit: int, unit: str, wait_s: float) -> QueueFull:
    """It does not fit now."""
    detail = f"{waiting:,} {unit} already wait for this model; the limit is {limit:,}."
    return _full(detail, waiting, limit, unit, wait_s)


def share_full(waiting: int, limit: int, unit: str, wait_s: float) -> QueueFull:
    """Others need the rest of the room."""
    detail = f"{waiting:,} {unit} of yours already wait for this model; {limit:,} may, as the rest is for others."
    return _full(detail, waiting, limit, unit, wait_s)


def over_budget(tenant: str, wait_s: float) -> OverBudget:
    """A tenant has used up what it may ask for over time."""
    seconds = max(1, math.ceil(wait_s))
    return OverBudget(
        f"The budget of '{tenant}' is used up for now.",
        hint=f"Ask again in {seconds} s, or ask the operator for a larger one.",
        headers={"Retry-After": str(seconds)},
        retry_after_s=seconds,
    )


def late(timeout_s: float, wait_s: float) -> DeadlineExceeded:
    """Its time is over."""
    return DeadlineExceeded(
        f"The answer was not there after {timeout_s:g} s.",
        hint=f"Give it more time, or send less; about {wait_s:.1f} s of work wait for this model.",
        limit=timeout_s,
        unit="s",
    )


def hopeless(timeout_s: float, needed_s: float) -> DeadlineExceeded:
    """Its time would be over before the engine could be done."""
    return DeadlineExceeded(
        f"The answer takes about {needed_s:.2g} s; it may take {timeout_s:g} s.",
        hint="Give it more time, or send less at once.",
        limit=timeout_s,
        needed_s=needed_s,
        unit="s",
    )


def engine_fault(item: Item) -> EngineFault:
    """The engine fails on this structure alone."""
    return EngineFault(
        f"The engine failed on structures[{item.position}].",
        hint="Report it with the request id; other structures are not affected.",
        index=item.position,
    )


def out_of_memory(item: Item, free: int | None) -> OutOfMemory:
    """The engine has not the memory for this structure alone."""
    there = "" if free is None else f" {free / 2**20:,.0f} MiB were free."
    return OutOfMemory(
        f"structures[{item.position}] ({item.rows:,} atoms, {item.cost:,} neighbour slots) does not fit into the "
        f"engine's memory.{there}",
        hint="Split the system, ask a smaller model, or ask again when less is going on.",
        index=item.position,
        got=item.cost,
        unit="neighbour slots",
        free_bytes=free,
    )


def _full(detail: str, waiting: int, limit: int, unit: str, wait_s: float) -> QueueFull:
    seconds = max(1, math.ceil(wait_s))
    return QueueFull(
        detail,
        hint=f"Ask again in {seconds} s.",
        headers={"Retry-After": str(seconds)},
        limit=limit,
        got=waiting,
        unit=unit,
        retry_after_s=seconds,
    )
