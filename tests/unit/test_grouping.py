"""Many clients' writes in few commits: who shares one, and who suffers when it fails."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tracking.errors import DatabaseAway, InvalidValue, RowLocked, SweepError
from tracking.mlflow_api.grouping import GROUP_MAX_WEIGHT, Grouping
from tracking.store import N_GROUP_WRITERS


class Record:
    """Stands for the record: answers an item with twice itself, refuses odd ones, and can be held or made to fail."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.may_write = threading.Event()
        self.may_write.set()
        self.fail: Callable[[Sequence[int]], SweepError | None] = lambda _: None

    def write(self, items: Sequence[int]) -> Sequence[int | SweepError]:
        """One transaction."""
        self.groups.append(list(items))
        assert self.may_write.wait(60)
        if error := self.fail(items):
            raise error
        return [InvalidValue("odd") if item % 2 else 2 * item for item in items]


def run(record: Record, scene: Callable[[Grouping[int, int]], Awaitable[None]], weight: Callable[[int], int] = lambda _: 1) -> None:
    """Play a scene in a loop of its own."""

    async def play() -> None:
        await asyncio.wait_for(scene(Grouping(record.write, weight)), 60)

    asyncio.run(play())


async def hold(record: Record, grouping: Grouping[int, int]) -> list[asyncio.Task[int]]:
    """Keep every writer busy with an item of its own."""
    record.may_write.clear()
    holding = [asyncio.create_task(grouping.write(0)) for _ in range(N_GROUP_WRITERS)]
    while len(record.groups) < N_GROUP_WRITERS:  # noqa: ASYNC110 - the writers are threads
        await asyncio.sleep(0)
    return holding


def test_grouping_writes_at_once_what_came_while_it_was_busy() -> None:
    """Ten items that wait for a writer share one transaction; each gets its own answer, or its own refusal."""
    record = Record()

    async def scene(grouping: Grouping[int, int]) -> None:
        holding = await hold(record, grouping)
        waiting = [asyncio.create_task(grouping.write(item)) for item in range(10)]
        await asyncio.sleep(0)
        record.may_write.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [answer if isinstance(answer, int) else str(answer) for answer in answers] == [0, "odd", 4, "odd", 8, "odd", 12, "odd", 16, "odd"]
        assert await asyncio.gather(*holding) == [0] * N_GROUP_WRITERS

    run(record, scene)
    assert record.groups[N_GROUP_WRITERS:] == [list(range(10))]


def test_grouping_writes_alone_what_comes_alone() -> None:
    """Nothing waits for company."""
    record = Record()

    async def scene(grouping: Grouping[int, int]) -> None:
        assert [await grouping.write(2), await grouping.write(4)] == [4, 8]

    run(record, scene)
    assert record.groups == [[2], [4]]


def test_grouping_keeps_groups_within_their_weight() -> None:
    """A group ends before the item that would make it too heavy; one that is too heavy by itself goes alone."""
    record = Record()
    weights = {2: GROUP_MAX_WEIGHT // 2, 4: GROUP_MAX_WEIGHT // 2, 6: 1, 8: 10 * GROUP_MAX_WEIGHT, 10: 1}

    async def scene(grouping: Grouping[int, int]) -> None:
        holding = await hold(record, grouping)
        waiting = [asyncio.create_task(grouping.write(item)) for item in (2, 4, 6, 8, 10)]
        await asyncio.sleep(0)
        record.may_write.set()
        await asyncio.gather(*waiting, *holding)

    run(record, scene, lambda item: weights.get(item, 1))
    assert sorted(record.groups[N_GROUP_WRITERS:]) == [[2, 4], [6], [8], [10]]


@pytest.mark.parametrize("error", [InvalidValue("a NUL"), RowLocked("somebody holds it"), ValueError("unforeseen")], ids=lambda error: type(error).__name__)
def test_grouping_writes_each_alone_when_a_group_fails_by_one(error: SweepError) -> None:
    """One that can't be stored, or whose run somebody holds a lock on, fails alone."""
    record = Record()
    record.fail = lambda items: error if 6 in items else None

    async def scene(grouping: Grouping[int, int]) -> None:
        holding = await hold(record, grouping)
        waiting = [asyncio.create_task(grouping.write(item)) for item in (2, 4, 6)]
        await asyncio.sleep(0)
        record.may_write.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert answers == [4, 8, error]
        await asyncio.gather(*holding)

    run(record, scene)
    assert record.groups[N_GROUP_WRITERS] == [2, 4, 6]
    assert sorted(record.groups[N_GROUP_WRITERS + 1 :]) == [[2], [4], [6]]


def test_grouping_tells_all_of_a_group_when_the_record_is_away() -> None:
    """Whether it was written is open: each client is told so, and none is written a second time."""
    record = Record()
    record.fail = lambda items: DatabaseAway("gone") if len(items) > 1 else None

    async def scene(grouping: Grouping[int, int]) -> None:
        holding = await hold(record, grouping)
        waiting = [asyncio.create_task(grouping.write(item)) for item in (2, 4)]
        await asyncio.sleep(0)
        record.may_write.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(answer) for answer in answers] == [DatabaseAway, DatabaseAway]
        await asyncio.gather(*holding)
        assert await grouping.write(8) == 16

    run(record, scene)
    assert record.groups[N_GROUP_WRITERS:] == [[2, 4], [8]]


def test_grouping_goes_on_when_a_client_has_gone() -> None:
    """Whoever does not wait any more is written all the same, and keeps nobody from an answer."""
    record = Record()

    async def scene(grouping: Grouping[int, int]) -> None:
        holding = await hold(record, grouping)
        gone = asyncio.create_task(grouping.write(2))
        stays = asyncio.create_task(grouping.write(4))
        await asyncio.sleep(0)
        gone.cancel()
        record.may_write.set()
        assert await stays == 8
        await asyncio.gather(*holding)

    run(record, scene)
    assert record.groups[N_GROUP_WRITERS:] == [[2, 4]]
