"""Which worker runs what: one pure function over what waits, what is held, and who is there (D3)."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tracking.records import Resources, WorkerView
from tracking.store.queue import HeldRun, LongPlaced, Placement, QueuedRun

# Cores are fractions; sums of them are not exact.
_EPSILON: Final = 1e-6


@dataclass(slots=True)
class _Seat:
    """A worker with what is left of it."""

    worker: WorkerView
    n_held: int = 0
    free_cpus: float = 0.0
    free_memory_bytes: int = 0
    free_gpus: set[int] = field(default_factory=set)
    sweeps: set[str | None] = field(default_factory=set)

    @classmethod
    def of(cls, worker: WorkerView) -> "_Seat":
        return cls(worker, 0, worker.cpus, worker.memory_bytes, set(range(worker.gpus)))

    def hold(self, sweep_id: str | None, resources: Resources, gpu_ids: Iterable[int]) -> None:
        self.n_held += 1
        self.free_cpus -= resources.cpus
        self.free_memory_bytes -= resources.memory_bytes or 0
        self.free_gpus.difference_update(gpu_ids)
        self.sweeps.add(sweep_id)

    def has_room_for(self, run: QueuedRun) -> bool:
        needs = run.resources
        return (
            self.n_held < self.worker.slots
            and needs.cpus <= self.free_cpus + _EPSILON
            and (needs.memory_bytes or 0) <= self.free_memory_bytes
            and needs.gpus <= len(self.free_gpus)
        )

    def may_take_ahead(self, run: QueuedRun) -> bool:
        """One more a slot may wait at the worker when runs are short and alike: what ends frees just what it needs."""
        return run.resources.gpus == 0 and self.worker.slots <= self.n_held < 2 * self.worker.slots and self.sweeps == {run.sweep_id}


def can_serve(worker: WorkerView, queue: str, resources: Resources) -> bool:
    """Whether a worker could run this at all, were it empty."""
    return (
        queue in worker.queues
        and (resources.image is None or "docker" in worker.runtimes)
        and resources.cpus <= worker.cpus + _EPSILON
        and (resources.memory_bytes or 0) <= worker.memory_bytes
        and resources.gpus <= worker.gpus
    )


def is_open(worker: WorkerView) -> bool:
    """Whether a worker takes anything new."""
    return worker.state == "live" and not (worker.silent or worker.draining or worker.cordoned)


def choose_placements(
    waiting: Sequence[QueuedRun], held: Iterable[HeldRun], workers: Iterable[WorkerView], short_sweeps: Collection[str] = ()
) -> list[Placement]:
    """Place as many waiting runs as fit.

    Order: priority; then the user who holds least, then the sweep that holds least (fair share); then age. A run
    goes to the emptiest worker that fits, away from those it failed on while there is another, the latest above all. A run that fits
    nowhere holds up nobody else.

    Args:
        waiting: runs to place, by priority and age.
        held: runs that are placed or running.
        workers: all with a live session.
        short_sweeps: sweeps whose runs are so short that one may be placed ahead per slot.
    """
    held = tuple(held)
    seats = _seats(held, workers)
    by_user: dict[str, float] = defaultdict(float)
    by_sweep: dict[str | None, int] = defaultdict(int)
    held_at: dict[str | None, Counter[str]] = defaultdict(Counter)
    for other in held:
        by_user[other.user_name] += other.resources.cpus
        by_sweep[other.sweep_id] += 1
        held_at[other.sweep_id][other.session_id] += 1
    lanes = _lanes(waiting)
    chosen: list[Placement] = []
    while lanes:
        lane = min(lanes, key=lambda lane: _turn(lane[0], by_user, by_sweep))
        run = lane[0]
        seat = None
        able = [seat for seat in seats.values() if can_serve(seat.worker, run.queue, run.resources)]
        if not _is_at_limit(run, by_sweep[run.sweep_id], _n_can_run(able, held_at[run.sweep_id])):
            seat = _best_seat(run, able, ahead=run.sweep_id in short_sweeps)
        if seat is None:
            # All of a lane ask for the same: what doesn't fit for one doesn't fit for the next.
            lanes.remove(lane)
            continue
        gpu_ids = tuple(sorted(seat.free_gpus)[: run.resources.gpus])
        seat.hold(run.sweep_id, run.resources, gpu_ids)
        by_user[run.user_name] += run.resources.cpus
        by_sweep[run.sweep_id] += 1
        chosen.append(Placement(run.run_id, seat.worker.session_id, seat.worker.worker_id, gpu_ids))
        lane.pop(0)
        if not lane:
            lanes.remove(lane)
    return chosen


def choose_moves(placed: Iterable[LongPlaced], held: Iterable[HeldRun], workers: Iterable[WorkerView]) -> list[LongPlaced]:
    """Name the runs that stand behind others on a full worker while another worker has room for them now.

    Args:
        placed: runs placed long ago, oldest first; the room that one will take is gone for the next.
        held: runs that are placed or running, these included.
        workers: all with a live session.
    """
    seats = _seats(held, workers)
    moves: list[LongPlaced] = []
    for each in placed:
        run = each.run
        others = (seat for session_id, seat in seats.items() if session_id != each.session_id)
        able = [seat for seat in others if can_serve(seat.worker, run.queue, run.resources) and seat.worker.worker_id not in run.avoid_workers]
        seat = _best_seat(run, able, ahead=False)
        if seat is not None:
            seat.hold(run.sweep_id, run.resources, sorted(seat.free_gpus)[: run.resources.gpus])
            moves.append(each)
    return moves


def _seats(held: Iterable[HeldRun], workers: Iterable[WorkerView]) -> dict[str, _Seat]:
    """The workers that are open, by session, with what is held taken off."""
    seats = {worker.session_id: _Seat.of(worker) for worker in workers if is_open(worker)}
    for run in held:
        if run.session_id in seats:
            seats[run.session_id].hold(run.sweep_id, run.resources, run.gpu_ids)
    return seats


def _lanes(waiting: Iterable[QueuedRun]) -> list[list[QueuedRun]]:
    """Runs that are alike, in order. Those with workers to avoid stand apart."""
    lanes: dict[tuple[str, int, str, tuple[str, ...]], list[QueuedRun]] = {}
    for run in waiting:
        lanes.setdefault((run.sweep_id, run.priority, run.queue, run.avoid_workers), []).append(run)
    return list(lanes.values())


def _turn(run: QueuedRun, by_user: dict[str, float], by_sweep: dict[str | None, int]) -> tuple[float, ...]:
    return (-run.priority, by_user[run.user_name], by_sweep[run.sweep_id], run.created_at.timestamp())


def _n_can_run(able: Sequence[_Seat], held_at: Mapping[str, int]) -> int:
    """How many runs of a sweep can run at once: one a slot, and those on workers that take nothing new any more."""
    ids = {seat.worker.session_id for seat in able}
    return sum(seat.worker.slots for seat in able) + sum(n for session_id, n in held_at.items() if session_id not in ids)


def _is_at_limit(run: QueuedRun, n_active: int, n_can_run: int) -> bool:
    # Where the slots are the tighter limit they alone decide; placing ahead then breaks no promise.
    return run.parallel is not None and run.parallel < n_can_run and n_active >= run.parallel


def _best_seat(run: QueuedRun, able: Sequence[_Seat], *, ahead: bool) -> _Seat | None:
    # Where it failed on all of them, the one of longest ago is the best guess.
    shunned = (run.avoid_workers[n:] for n in range(len(run.avoid_workers) + 1))
    preferred = next(filter(None, ([seat for seat in able if seat.worker.worker_id not in ids] for ids in shunned)), [])
    fitting = [seat for seat in preferred if seat.has_room_for(run)]
    if not fitting and ahead:
        fitting = [seat for seat in preferred if seat.may_take_ahead(run)]
    if not fitting:
        return None
    return min(fitting, key=lambda seat: (seat.n_held / seat.worker.slots, seat.worker.name))
