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
    found = [sentence for event in events if (sentence := _of_event(event, names))]
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
        if sentence is not None:
            trial = f"Trial {event.trial_number}: " if event.subject not in {"sweep", "trial"} else ""
            found.append(Sentence(sentence.at, trial + sentence.text))
    return found


def _of_event(event: Event, names: Mapping[str, str]) -> Sentence | None:
    tell = _TOLD.get((event.subject, event.event))
    text = tell(event, _name(event.worker_id, names)) if tell is not None else f"{event.subject.capitalize()}: {event.event}{_because(event)}."
    return Sentence(event.at, text) if text else None


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


_Tell = Callable[[Event, str], str]
_TOLD: Final[Mapping[tuple[str, str], _Tell]] = {
    ("sweep", "submit"): lambda e, _: _submitted(e),
    ("sweep", "pause"): lambda e, _: f"Paused{_because(e)}.",
    ("sweep", "resume"): lambda e, _: f"Resumed{_because(e)}.",
    ("sweep", "stop"): lambda e, _: f"Stopping{_because(e)}.",
    ("sweep", "finish"): lambda e, _: f"Finished{_because(e)}.",
    ("sweep", "fail"): lambda e, _: f"Failed{_because(e)}.",
    ("sweep", "cancel"): lambda e, _: f"Cancelled{_because(e)}.",
    ("sweep", "extend"): lambda e, _: f"Extended{_because(e)}.",
    ("run", "queue"): lambda e, _: f"Trial {e.trial_number} was proposed, and its run waits for a worker.",
    ("run", "place"): lambda _, w: f"Placed on {w}.",
    ("run", "unplace"): lambda e, w: f"Taken back from {w}{_because(e)}.",
    ("run", "claim"): lambda e, w: f"{w} claimed it: attempt {e.attempt} began.",
    ("run", "requeue"): lambda e, _: _requeued(e),
    ("run", "finish"): lambda e, _: f"The run finished{_because(e)}.",
    ("run", "fail"): lambda e, _: f"The run failed for good{_because(e)}.",
    ("run", "reject"): lambda e, _: f"The run failed without having run{_because(e)}.",
    ("run", "prune"): lambda e, _: f"The run was pruned{_because(e)}.",
    ("run", "cancel"): lambda e, _: f"The run was cancelled{_because(e)}.",
    ("run", "drop"): lambda e, _: f"The run was cancelled before it began{_because(e)}.",
    ("run", "cancel_requested"): lambda e, _: f"Attempt {e.attempt} was asked to stop{_because(e)}.",
    ("run", "prune_requested"): lambda e, _: f"Attempt {e.attempt} was asked to stop early{_because(e)}.",
    ("attempt", "succeed"): lambda e, w: f"Attempt {e.attempt} succeeded on {w}.",
    ("attempt", "fail"): lambda e, w: f"Attempt {e.attempt} failed on {w}{_because(e)}.",
    ("attempt", "stop"): lambda e, w: f"Attempt {e.attempt} was stopped on {w}{_because(e)}.",
    ("attempt", "lose"): lambda e, w: f"Attempt {e.attempt} was lost with {w}{_because(e)}.",
    ("trial", "finish"): lambda e, _: f"Trial {e.trial_number} ended as finished, and the search was told.",
    ("trial", "fail"): lambda e, _: f"Trial {e.trial_number} ended as failed{_because(e)}; the search was told.",
    ("trial", "prune"): lambda e, _: f"Trial {e.trial_number} ended as pruned, and the search was told.",
    ("trial", "cancel"): lambda e, _: f"Trial {e.trial_number} ended as cancelled, and the search was told.",
    ("trial", "retry"): lambda e, _: f"Trial {e.trial_number} was opened again by hand.",
}


def workers_of(events: Sequence[Event]) -> set[str]:
    """The workers that a history speaks of."""
    return {event.worker_id for event in events if event.worker_id}
