"""Why a run that waits is not placed, or not claimed: the first thing that holds it up, and by whom (I5). Pure: records in, sentences out.

What fits where is decided by `scheduler.placement`; a test holds the two together.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sweeps.wording import clock_text, counted, listed, since_text, until_text
from tracking.records import Resources, WorkerView
from tracking.store.why import Holding, Standing, Surroundings

_EPSILON: Final = 1e-6
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Reason:
    """One sentence on where something is.

    Attributes:
        wait: what it waits for, one word for programs; empty where nothing is waited for.
        until: when that ends at the latest, where it is known.
    """

    text: str
    wait: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """The server's settings that say how long things may take. Schedulers and workers have their own, the same unless somebody set them apart."""

    claim_timeout_s: float = 15.0
    reassign_after_s: float = 900.0
    renew_s: float = 5.0
    stop_grace_s: float = 30.0
    infra_retries: int = 3
    has_broker: bool = True


@dataclass(frozen=True, slots=True)
class Scene:
    """The cluster as it is now.

    Attributes:
        workers: with a live session.
        holdings: what they hold.
    """

    surroundings: Surroundings
    workers: Sequence[WorkerView] = ()
    holdings: Sequence[Holding] = ()
    bounds: Bounds = field(default_factory=Bounds)

    @property
    def now(self) -> datetime:
        """The database's clock."""
        return self.surroundings.now


@dataclass(frozen=True, slots=True)
class Wish:
    """What a waiting run asks for."""

    sweep_id: str
    queue: str
    resources: Resources
    parallel: int | None = None
    avoid_workers: Sequence[str] = ()
    n_before: int = 0


def no_scheduler(scene: Scene) -> list[Reason]:
    """That nobody leads, if so: nothing is proposed, placed, judged or told then."""
    around = scene.surroundings
    if around.is_led:
        return []
    last = f"the last one, {around.holder}, is not heard of {since_text(around.renewed_at, scene.now)}" if around.epoch else "none has led yet"
    return [Reason(f"No scheduler leads ({last}): check that `sweep scheduler` runs.", "scheduler")]


def why_not_claimed(standing: Standing, scene: Scene) -> list[Reason]:
    """What a placed run waits for."""
    name = standing.worker_name or "its worker"
    if is_silent(standing, scene.now):
        return [Reason(f"It is placed on {name}, which is gone or not heard of; the scheduler places it anew.", "claim")]
    n_running = sum(other.session_id == standing.session_id and other.state == "running" for other in scene.holdings)
    if standing.slots and n_running >= standing.slots:
        slots = "its slot is" if standing.slots == 1 else f"its {standing.slots} slots are"
        return [Reason(f"It is placed on {name} ahead of time: {slots} busy, and the next that is free is for it.", "slot")]
    if standing.placed_at is None:
        return [Reason(f"It is placed on {name} and waits to be claimed.", "claim")]
    until = standing.placed_at + timedelta(seconds=scene.bounds.claim_timeout_s)
    within = f"within {scene.bounds.renew_s:g} s"
    how = f"if the broker lost the message, the worker finds it {within}" if scene.bounds.has_broker else f"there is no broker: the worker finds it {within}"
    text = f"It is placed on {name} {since_text(standing.placed_at, scene.now)} and waits to be claimed; {how}"
    return [Reason(f"{text}. Not claimed by {until_text(until, scene.now)}, it is placed anew.", "claim", until)]


def is_silent(standing: Standing, now: datetime) -> bool:
    """Whether the session that holds a run is over or has let its lease run out."""
    return standing.session_state != "live" or standing.lease_until is None or standing.lease_until < now


def lacks(worker: WorkerView, resources: Resources) -> list[str]:
    """What a worker has too little of for a run, were it empty, nearest miss first."""
    asked, found = resources, []
    if asked.cpus > worker.cpus + _EPSILON:
        found.append(f"{worker.cpus:g} of {asked.cpus:g} cpus")
    if (asked.memory_bytes or 0) > worker.memory_bytes:
        found.append(f"{_size(worker.memory_bytes)} of {_size(asked.memory_bytes or 0)} of memory")
    if asked.gpus > worker.gpus:
        found.append(f"{worker.gpus} of {counted(asked.gpus, 'gpu')}")
    if asked.image is not None and "docker" not in worker.runtimes:
        found.append("no containers")
    return found


def why_not_placed(wish: Wish, scene: Scene) -> list[Reason]:
    """What keeps a run with this wish from being placed by a scheduler, if there is one; never empty."""
    if not scene.workers:
        return [Reason("No worker is here: start one with `sweep worker`.", "worker")]
    serving = [worker for worker in scene.workers if wish.queue in worker.queues]
    if not serving:
        served = ", ".join(sorted({queue for worker in scene.workers for queue in worker.queues})) or "none"
        text = f"No worker serves queue {wish.queue!r} (served: {served}): start one with `sweep worker --queue {wish.queue} --name NAME`."
        return [Reason(text, "queue")]
    fitting = [worker for worker in serving if not lacks(worker, wish.resources)]
    if not fitting:
        return [Reason(_too_large(wish, serving), "resources")]
    able = [worker for worker in fitting if not (worker.silent or worker.draining or worker.cordoned)]
    if not able:
        return [Reason(f"{worker.name} serves queue {wish.queue!r}, but {_closed(worker, scene.now)}.", "worker") for worker in fitting[:_SHOWN]]
    mine = [other for other in scene.holdings if other.sweep_id == wish.sweep_id]
    ids = {worker.session_id for worker in able}
    n_can_run = sum(worker.slots for worker in able) + sum(other.session_id not in ids for other in mine)
    if wish.parallel is not None and wish.parallel < n_can_run and len(mine) >= wish.parallel:
        trials = listed([str(other.trial_number) for other in mine])
        has = f"{counted(len(mine), 'trial')} of it {'is' if len(mine) == 1 else 'are'} placed or running"
        return [Reason(f"The sweep runs at most {wish.parallel} at a time (limits.parallel), and {has}: {trials}.", "parallel")]
    return _why_not_on(able, wish, scene)


def openings(wish: Wish, scene: Scene) -> list[tuple[WorkerView, int]]:
    """Workers that could take a run with this wish now, each with how many at once, the roomiest first."""
    serving = [worker for worker in scene.workers if wish.queue in worker.queues and not lacks(worker, wish.resources)]
    counts = [(worker, _n_fitting(worker, wish.resources, scene)) for worker in serving if not (worker.silent or worker.draining or worker.cordoned)]
    return sorted(((worker, n) for worker, n in counts if n), key=lambda opening: (-opening[1], opening[0].name))


def _n_fitting(worker: WorkerView, asked: Resources, scene: Scene) -> int:
    """How many such runs have room on a worker now."""
    held = [other for other in scene.holdings if other.session_id == worker.session_id]
    free = (
        (worker.cpus - sum(other.resources.cpus for other in held) + _EPSILON, asked.cpus),
        (worker.memory_bytes - sum(other.resources.memory_bytes or 0 for other in held), asked.memory_bytes or 0),
        (_free_gpus(worker, held), asked.gpus),
    )
    return max(min(worker.slots - len(held), *(int(left // each) for left, each in free if each)), 0)


def _why_not_on(able: Sequence[WorkerView], wish: Wish, scene: Scene) -> list[Reason]:
    others = [worker for worker in able if worker.worker_id not in wish.avoid_workers]
    if not any(_room(worker, wish.resources, scene).is_enough for worker in others or able):
        busy = _all_busy(others or able, wish, scene)
        avoided = [worker.name for worker in able if worker.worker_id in wish.avoid_workers]
        if others and avoided:
            text = f"It failed on {listed(avoided)} by the machinery's fault, and waits for {listed([worker.name for worker in others])}. {busy}"
            return [Reason(text, "other_worker")]
        return [Reason(busy, "slot")]
    first = f"; {counted(wish.n_before, 'waiting run')} of a higher priority {'comes' if wish.n_before == 1 else 'come'} first" if wish.n_before else ""
    return [Reason(f"There is room for it: it is about to be placed{first}. If this stays so, check that `sweep scheduler` runs.", "placing")]


def _too_large(wish: Wish, serving: Sequence[WorkerView]) -> str:
    nearest = min(serving, key=lambda worker: (len(lacks(worker, wish.resources)), _shortage(worker, wish.resources), worker.name))
    missing = listed(lacks(nearest, wish.resources))
    return f"No worker of queue {wish.queue!r} is large enough: a trial asks for {_asked(wish.resources)}. The nearest is {nearest.name}: it has {missing}."


def _shortage(worker: WorkerView, asked: Resources) -> float:
    """How many times larger the worker would have to be, summed over what is missing."""
    pairs = ((asked.cpus, worker.cpus), (asked.memory_bytes or 0, worker.memory_bytes), (asked.gpus, worker.gpus))
    return sum(wanted / max(has, _EPSILON) for wanted, has in pairs if wanted > has)


def _closed(worker: WorkerView, now: datetime) -> str:
    if worker.cordoned:
        return f"is cordoned: {worker.cordoned.rstrip('.')} (that ends by itself after ten minutes, or with `sweep worker uncordon {worker.name}`)"
    if worker.draining:
        return f"is draining (`sweep worker drain {worker.name} --undo` gives it runs again)"
    return f"has not renewed its lease {since_text(worker.renewed_at, now)}"


@dataclass(frozen=True, slots=True)
class _Room:
    """What is left of a worker, against what is asked of it."""

    worker: WorkerView
    n_held: int
    short_of: Sequence[str]

    @property
    def is_enough(self) -> bool:
        return self.n_held < self.worker.slots and not self.short_of


def _room(worker: WorkerView, asked: Resources, scene: Scene) -> _Room:
    held = [other for other in scene.holdings if other.session_id == worker.session_id]
    cpus = worker.cpus - sum(each.resources.cpus for each in held)
    memory = worker.memory_bytes - sum(each.resources.memory_bytes or 0 for each in held)
    gpus = _free_gpus(worker, held)
    short = [f"{max(cpus, 0):g} of {asked.cpus:g} cpus"] if asked.cpus > cpus + _EPSILON else []
    short += [f"{_size(max(memory, 0))} of {_size(asked.memory_bytes or 0)} of memory"] if (asked.memory_bytes or 0) > memory else []
    short += [f"{gpus} of {counted(asked.gpus, 'gpu')}"] if asked.gpus > gpus else []
    return _Room(worker, len(held), short)


def _free_gpus(worker: WorkerView, held: Sequence[Holding]) -> int:
    """How many of its GPUs are free; attempts that it adopted may hold some that it does not offer any more."""
    return len(set(range(worker.gpus)).difference(*(each.gpu_ids for each in held)))


def _all_busy(workers: Sequence[WorkerView], wish: Wish, scene: Scene) -> str:
    ids = {worker.session_id for worker in workers}
    holders = _by_whom([other for other in scene.holdings if other.session_id in ids], wish.sweep_id)
    rooms = [_room(worker, wish.resources, scene) for worker in workers]
    free = [room for room in rooms if room.n_held < room.worker.slots]
    if free:
        told = listed([f"{room.worker.name} has {listed(list(room.short_of))} free" for room in free])
        return f"No worker that fits has room now ({told}): {holders}."
    slots = sum(worker.slots for worker in workers)
    taken = "The only slot of the workers that fit is busy" if slots == 1 else f"All {slots} slots of the workers that fit are busy"
    return f"{taken}: {holders}."


def _by_whom(holdings: Collection[Holding], sweep_id: str) -> str:
    """`sweep brave-otter-7f3a (kim) has 3, this one 1`."""
    counts = Counter((other.sweep_id == sweep_id, other.short_id, other.user_name) for other in holdings)
    shown = [
        f"{'this sweep' if own else f'sweep {short_id}' + (f' ({user})' if user else '')} has {n}"
        for (own, short_id, user), n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return listed(shown) or "nothing is known to hold them"


def _asked(asked: Resources) -> str:
    parts = [f"{asked.cpus:g} cpu{'' if asked.cpus == 1 else 's'}"]
    parts += [f"{_size(asked.memory_bytes)} of memory"] if asked.memory_bytes else []
    parts += [counted(asked.gpus, "gpu")] if asked.gpus else []
    parts += ["containers"] if asked.image else []
    return ", ".join(parts)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.3g} GiB"


def back_off(standing: Standing, detail: str, scene: Scene) -> list[Reason]:
    """That a run waits for its time after an attempt that failed, if it does."""
    if standing.not_before <= scene.now:
        return []
    why = f" {detail}" if detail else ""
    return [Reason(f"It waits until {until_text(standing.not_before, scene.now)} before its next attempt.{why}", "back_off", standing.not_before)]


def silence(standing: Standing, scene: Scene) -> list[Reason]:
    """That the worker of a running attempt is not heard of, if so, and when others get its run."""
    if not is_silent(standing, scene.now) or standing.renewed_at is None:
        return []
    name, now = standing.worker_name or "its worker", scene.now
    what = {
        "ended": f"{name} was stopped in order at {clock_text(standing.session_ended_at or standing.renewed_at, now)} and left it running",
        "fenced": f"{name} was started anew and has yet to take it up again",
    }.get(standing.session_state or "", f"{name} is silent {since_text(standing.renewed_at, now)}")
    at = lost_at(standing.renewed_at, scene)
    text = f"{what}. If it does not come back, the attempt is lost and the run given to another worker at {until_text(at, now)}."
    if scene.surroundings.suspended_until is not None:
        text += " Nobody is given up just now: the cluster was away, and workers speak first."
    return [Reason(text, "worker_back", at)]


def lost_at(renewed_at: datetime, scene: Scene) -> datetime:
    """When a session that says nothing more is given up."""
    return max(renewed_at + timedelta(seconds=scene.bounds.reassign_after_s), scene.surroundings.suspended_until or renewed_at)
