"""Many messages in one call: worked on at once, answered in their order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def in_order(
    messages: AsyncIterator[T], answer: Callable[[T], Awaitable[R]], ahead: int
) -> AsyncGenerator[R, None]:
    """The answers to messages, in the order of the messages.

    Closing this iterator cancels what is being worked on.

    Args:
        messages: they are read as they are worked on, so that a fast sender waits.
        answer: does not raise; a refusal is an answer too.
        ahead: messages that may wait behind the one that is answered next.

    Raises:
        Exception: whatever `messages` raises, after the answers to those before.
    """
    begun: asyncio.Queue[asyncio.Future[R] | None] = asyncio.Queue(ahead)
    running: set[asyncio.Future[R]] = set()

    async def read() -> None:
        try:
            async for message in messages:
                task = asyncio.ensure_future(answer(message))
                running.add(task)
                task.add_done_callback(running.discard)
                await begun.put(task)
            await begun.put(None)
        except Exception as error:  # noqa: BLE001 (it is raised where the answers are read)
            await begun.put(_failed(error))

    reader = asyncio.ensure_future(read())
    try:
        while (task := await begun.get()) is not None:
            yield await task
    finally:
        reader.cancel()
        for task in running:
            task.cancel()


def _failed(error: Exception) -> "asyncio.Future[R]":
    future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future
