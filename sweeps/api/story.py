"""What happened to a trial, a run or a sweep, in plain sentences with their times. Pure: history in, sentences out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sweeps.wording import clock_text
from tracking.records import Event
from tracking.store.attempts import Attempt
from tracking.store.why import Stay


@dataclass(frozen=True, slots=True)
class Sentence:
    """One thing that happened."""

    at: datetime
    text: str


def tell_run(events: Iterable[Event], attempts: Iterable[Attempt], stays: Iterable[Stay], names: Mapping[str, str]) -> list[Sentence]:
    """The story of a run or of a trial with all its runs.

    Args:
        attempts: of these runs: when a command began stands nowhere else.
        stays: what became of their workers meanwhile.
        names: of workers, by id.
    """
    found = [_of_event(event, names) for event in events]
    for each in attempts:
        if each.started_at is not None:
            # Of a short one the start is reckoned back from its end, by the worker's clock.
            found += [Sentence(max(each.started_at, each.claimed_at), f"The command of attempt {each.attempt} started.")]
    for stay in stays:
        if stay.is_later:
            found.append(Sentence(stay.opened_at, f"Worker {stay.worker_name} was started anew and went on with attempt {stay.attempt}."))
        if stay.is_over and stay.state == "ended" and stay.ended_at is not None:
            found.append(Sentence(stay.ended_at, f"Worker {stay.worker_name} was stopped; attempt {stay.attempt} ran on without it."))
    # Stable: what happened in one transaction keeps its order.
    return sorted(found, key=lambda sentence: sentence.at)


def tell_sweep(events: Iterable[Event], names: Mapping[str, str]) -> list[Sentence]:
    """The story of a sweep: its own moves, and what went wrong with its trials."""
    found = []
    for event in events:
        sentence = _of_event(event, names)
        trial = f"Trial {event.trial_number}: " if event.subject not in {"sweep", "trial"} else ""
        found.append(Sentence(sentence.at, trial + sentence.text))
    return found


def _of_event(event: Event, names: Mapping[str, str]) -> Sentence:
    key = (event.subject, event.event)
    if tell := _TOLD_ALONE.get(key):
        return Sentence(event.at, tell(event))
    text = _TOLD.get(key, "{subject}: {event}{because}.").format(
        subject=event.subject.capitalize(),
        event=event.event,
        trial=event.trial_number,
        attempt=event.attempt,
        worker=_name(event.worker_id, names),
        because=_because(event),
    )
    return Sentence(event.at, text)


def _name(worker_id: str | None, names: Mapping[str, str]) -> str:
    return names.get(worker_id or "") or (f"worker {worker_id[:8]}" if worker_id else "its worker")


def _because(event: Event) -> str:
    """`: exit_status (ValueError: no)`, as far as there is a cause and a detail."""
    detail = event.detail.strip().rstrip(".")
    if event.cause and detail:
        return f": {event.cause} ({detail})"
    return f": {event.cause or detail}" if event.cause or detail else ""


def _requeued(event: Event) -> str:
    text = event.detail.strip().rstrip(".")
    at = event.data.get("not_before")
    until = f"; not before {clock_text(datetime.fromisoformat(at), event.at)}" if isinstance(at, str) else ""
    return f"{text}{until}." if text else f"It waits for another attempt{until}."


def _submitted(event: Event) -> str:
    return f"Submitted by {event.detail}." if event.detail else "Submitted."


_TOLD_ALONE: Final[Mapping[tuple[str, str], Callable[[Event], str]]] = {("sweep", "submit"): _submitted, ("run", "requeue"): _requeued}
_TOLD: Final[Mapping[tuple[str, str], str]] = {
    ("sweep", "pause"): "Paused{because}.",
    ("sweep", "resume"): "Resumed{because}.",
    ("sweep", "stop"): "Stopping{because}.",
    ("sweep", "finish"): "Finished{because}.",
    ("sweep", "fail"): "Failed{because}.",
    ("sweep", "cancel"): "Cancelled{because}.",
    ("sweep", "extend"): "Extended{because}.",
    ("sweep", "retry"): "Retried by hand{because}.",
    ("sweep", "reopen"): "Open again, for no new trials{because}.",
    ("run", "queue"): "Trial {trial} was proposed, and its run waits for a worker.",
    ("run", "place"): "Placed on {worker}.",
    ("run", "unplace"): "Taken back from {worker}{because}.",
    ("run", "claim"): "{worker} claimed it: attempt {attempt} began.",
    ("run", "finish"): "The run finished{because}.",
    ("run", "fail"): "The run failed for good{because}.",
    ("run", "reject"): "The run failed without having run{because}.",
    ("run", "prune"): "The run was pruned{because}.",
    ("run", "cancel"): "The run was cancelled{because}.",
    ("run", "drop"): "The run was cancelled before it began{because}.",
    ("run", "cancel_requested"): "Attempt {attempt} was asked to stop{because}.",
    ("run", "prune_requested"): "Attempt {attempt} was asked to stop early{because}.",
    ("attempt", "succeed"): "Attempt {attempt} succeeded on {worker}.",
    ("attempt", "fail"): "Attempt {attempt} failed on {worker}{because}.",
    ("attempt", "stop"): "Attempt {attempt} was stopped on {worker}{because}.",
    ("attempt", "lose"): "Attempt {attempt} was lost with {worker}{because}.",
    ("trial", "finish"): "Trial {trial} ended as finished, and the search was told.",
    ("trial", "fail"): "Trial {trial} ended as failed{because}; the search was told.",
    ("trial", "prune"): "Trial {trial} ended as pruned, and the search was told.",
    ("trial", "cancel"): "Trial {trial} ended as cancelled, and the search was told.",
    ("trial", "retry"): "Trial {trial} was opened again by hand.",
}


def workers_of(events: Sequence[Event]) -> set[str]:
    """The workers that a history speaks of."""
    return {event.worker_id for event in events if event.worker_id}
