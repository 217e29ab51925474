"""How much memory something takes at its peak: sizes that are looked at all the time while it runs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def peaks(**gauges: Callable[[], float]) -> Iterator[dict[str, float]]:
    """The largest value of each gauge, by its name; complete after the block."""
    largest = dict.fromkeys(gauges, 0.0)
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            for name, gauge in gauges.items():
                largest[name] = max(largest[name], gauge())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield largest
    finally:
        over.set()
        looking.join()


def anonymous_mb() -> float:
    """What the process holds that is no page of a file."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024 / 1e6
