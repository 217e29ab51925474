"""What ends work on another thread when its time is over, or when nobody waits for it any more."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from contract.conduction import Flag, Stopped
from service.lanes import refusals


@contextmanager
def stopping(deadline: float, timeout_s: float) -> Iterator[Flag]:
    """A flag, bool [1], that is set at the deadline and when the block is left, by a caller who leaves too.

    Args:
        deadline: seconds on the event loop's clock.
        timeout_s: that the request was given, for the message.

    Raises:
        DeadlineExceeded: what heeded the flag was stopped by it.
    """
    flag = np.zeros(1, bool)
    alarm = asyncio.get_running_loop().call_at(deadline, flag.fill, True)
    try:
        yield flag
    except Stopped:
        raise refusals.late(timeout_s, 0.0) from None
    finally:
        alarm.cancel()
        flag.fill(True)
