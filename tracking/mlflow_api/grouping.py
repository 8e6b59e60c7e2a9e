"""Many clients' writes in few commits: whoever comes while a commit is under way shares the next one (D6)."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from starlette.concurrency import run_in_threadpool

from tracking.errors import DatabaseAway, RowLocked, SweepError
from tracking.store import N_GROUP_WRITERS

GROUP_MAX_WEIGHT: Final = 16_000

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Write = Callable[[Sequence[Item]], Sequence[Answer | SweepError]]
"""Writes all items in one transaction; answers each with its answer or what it is refused for."""


@dataclass(slots=True)
class _Waiting(Generic[Item, Answer]):
    item: Item
    weight: int
    told: asyncio.Future[Answer]


class Grouping(Generic[Item, Answer]):
    """Writes items in groups. Belongs to one event loop.

    Args:
        write: blocks; called in threads.
        weight: of an item; a group holds up to `GROUP_MAX_WEIGHT`, or one item.
    """

    def __init__(self, write: Write[Item, Answer], weight: Callable[[Item], int]) -> None:
        self._write = write
        self._weight = weight
        self._waiting: deque[_Waiting[Item, Answer]] = deque()
        self._n_free = N_GROUP_WRITERS
        # What waits for a lock must not take the connections from those that wait for none.
        self._few = asyncio.Semaphore(N_GROUP_WRITERS)
        self._writers = ThreadPoolExecutor(N_GROUP_WRITERS, "grouping")

    async def write(self, item: Item) -> Answer:
        """The answer to an item, once it is committed.

        Raises:
            SweepError: it is refused, or could not be written; `DatabaseAway` leaves open which.
        """
        waiting = _Waiting[Item, Answer](item, self._weight(item), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._write_next()
        return await waiting.told

    def _write_next(self) -> None:
        while self._n_free and self._waiting:
            group: list[_Waiting[Item, Answer]] = []
            weight = 0
            while self._waiting and (not group or weight + self._waiting[0].weight <= GROUP_MAX_WEIGHT):
                group.append(self._waiting.popleft())
                weight += group[-1].weight
            self._n_free -= 1
            writing = asyncio.get_running_loop().run_in_executor(self._writers, self._write, [each.item for each in group])
            writing.add_done_callback(lambda done, group=group: self._tell(group, done))  # type: ignore[misc]

    def _tell(self, group: Sequence[_Waiting[Item, Answer]], writing: asyncio.Future[Sequence[Answer | SweepError]]) -> None:
        self._n_free += 1
        self._write_next()
        error = writing.exception()
        if error is None:
            for each, answer in zip(group, writing.result(), strict=True):
                _settle(each.told, answer)
        elif len(group) == 1 or (isinstance(error, DatabaseAway) and not isinstance(error, RowLocked)):
            for each in group:
                _settle(each.told, error)
        else:
            # One of them can't be stored, or somebody holds a lock on what it is about: the others are not to suffer.
            for each in group:
                alone = asyncio.ensure_future(self._write_alone(each.item))
                alone.add_done_callback(lambda done, each=each: _settle(each.told, done.exception() or done.result()))  # type: ignore[misc]

    async def _write_alone(self, item: Item) -> Answer | SweepError:
        async with self._few:
            return (await run_in_threadpool(self._write, [item]))[0]


def _settle(told: asyncio.Future[Answer], answer: Answer | BaseException) -> None:
    if told.done():  # its client has gone
        return
    if isinstance(answer, BaseException):
        told.set_exception(answer)
    else:
        told.set_result(answer)
