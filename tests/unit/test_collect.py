"""Metrics from standard output: what counts as one, which step it gets, and that pieces and restarts change nothing."""

import math
import re
import threading
import time
from pathlib import Path
from typing import Any, Final
from unittest.mock import Mock

import msgspec
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from tracking.records import Collect, Launch, MetricPoint
from worker import collect as collect_module
from worker.collect import KEY_CHARS, LINE_BYTES, PRINTED_NAMES, CollectState, MetricTail, StdoutCollector, printed_names
from worker.errors import BadPattern
from worker.output import Output


def collect(text: str | bytes, *keys: str, pattern: str | None = None) -> list[tuple[str, float, int]]:
    """All that a collector finds in one piece of output."""
    collector = StdoutCollector(Collect(pattern=pattern), keys)
    data = text.encode() if isinstance(text, str) else text
    return plain(collector.feed(data, 0) + collector.finish(0))


def plain(points: list[MetricPoint]) -> list[tuple[str, float, int]]:
    """Key, value, step."""
    return [(point.key, point.value, point.step) for point in points]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("loss=0.25", 0.25),
        ("loss: 0.25", 0.25),
        ("loss = -1.5e-3,", -1.5e-3),
        ("train done loss=3 (best)", 3.0),
        ("{'loss': 0.25, 'lr': 1}", 0.25),
        ('{"loss": .5}', 0.5),
        ("loss=tensor(0.25, device='cuda:0')", 0.25),
        ("{'loss': np.float64(0.25)}", 0.25),
        ("loss=93%", 93.0),
        ("\x1b[1;32mloss\x1b[0m=\x1b[33m0.25\x1b[0m", 0.25),
        ("loss=0.25.", 0.25),
        ("loss=inf", math.inf),
        ("loss=-Infinity", -math.inf),
    ],
)
def test_collect_reads_value_in_usual_writings(line: str, value: float) -> None:
    """What scripts, dictionaries, tensors and colours make of `loss=0.25`."""
    assert collect(line, "loss") == [("loss", value, 0)]


def test_collect_reads_nan() -> None:
    """NaN is a value like others."""
    ((_, value, _),) = collect("loss=nan", "loss")
    assert math.isnan(value)


@pytest.mark.parametrize(
    "line",
    [
        "val_loss=1",
        "loss",
        "loss=high",
        "loss=1.2.3",
        "loss=12abc",
        "--loss=1",
        "x.loss=1",
        "Loss=1",
        "lossy=1",
        "loss=0x10",
        "loss=information",
        "loss=1,234.5",
        '{"loss": null}',
        '{"loss": true}',
        '{"loss": "low"}',
    ],
)
def test_collect_passes_over_what_only_looks_alike(line: str) -> None:
    """Other keys, words, versions and options are no metric."""
    assert collect(line, "loss") == []


def test_collect_keeps_wanted_keys_only() -> None:
    """Keys that nobody asked for are left alone; keys may hold any character."""
    assert collect("acc=1 val/acc=2 a+b=3 z=4", "val/acc", "a+b") == [("val/acc", 2.0, 0), ("a+b", 3.0, 0)]
    assert collect("loss=1") == []


def test_collect_takes_last_of_a_key_on_a_line() -> None:
    """One point for a key and a line."""
    assert collect("loss=3 -> loss=2", "loss") == [("loss", 2.0, 0)]


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("Epoch 3/10 loss=1", 3),
        ("Epoch [4/10], Step [90/600], loss: 1", 90),
        ("Epoch: [0][ 10/5005]  loss: 1", 0),
        ("Epoch 3:  50%|##### | 5/10 [00:01<00:01, 4.1it/s, loss=1]", 3),
        ("step 3, global_step=7 loss=1", 7),
        ("epoch 2.5 loss=1", 0),
        ("epoch 2nd loss=1", 0),
        ("timestep 3 loss=1", 0),
        ('{"epoch": 2, "step": 7, "loss": 1}', 7),
        ('{"epoch": 2, "step": null, "loss": 1}', 2),
        ('{"at": {"step": 5}, "loss": 1}', 5),
        ('{"at": {"step": 5}, "Epoch": 3, "epoch": 2, "loss": 1}', 2),
        ('{"Epoch": 3, "loss": 1}', 3),
        ('{"msg": "step=5", "loss": 1}', 0),
        ("step=7 loss=1", 7),
        ("epoch: 3/10 loss=1", 3),
        ("loss=1 Epoch=4", 4),
        ("epoch=2 step=90 loss=1", 90),
        ("{'loss': 1, 'epoch': 5.0}", 5),
    ],
)
def test_collect_takes_step_from_the_line(line: str, step: int) -> None:
    """`step` counts before `epoch`, wherever they stand."""
    assert collect(line, "loss") == [("loss", 1.0, step)]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"loss": 0.25, "acc": 93, "lr": 1}', {"loss": 0.25, "acc": 93.0}),
        ('  {"loss": "0.25", "acc": "93%"}  ', {"loss": 0.25, "acc": 93.0}),
        ('{"loss": 2, "message": "was loss=3"}', {"loss": 2.0}),
        ('{"loss": 2, "message": "acc=3"}', {"loss": 2.0}),
        ('{"epoch": 2, "msg": "best so far: loss=99"}', {}),
        ('{"log": [{"acc": 1}, {"acc": 2, "deeper": {"acc": 3}}], "loss": 4}', {"acc": 2.0, "loss": 4.0}),
        ('{"val": {"top": {"acc": 4}}, "loss": NaN}', {"val.top.acc": 4.0, "acc": 4.0, "loss": math.nan}),
        ('{"val.top": {"acc": 4}, "loss": -Infinity}', {"val.top.acc": 4.0, "acc": 4.0, "loss": -math.inf}),
        ('{"val": {"top.acc": 4}, "loss": 1e400}', {"val.top.acc": 4.0, "loss": math.inf}),
        ('{"loss": 1, "loss": 2}', {"loss": 2.0}),
        ('INFO {"loss": 1}', {"loss": 1.0}),
        ('{"loss": 1, "broken": ', {"loss": 1.0}),
        ("{'loss': 1}", {"loss": 1.0}),
        ('[{"loss": 1}]', {"loss": 1.0}),
        ('{"loss": [1, 2]}', {}),
        ('{"loss": ' + "9" * 5000 + "}", {"loss": math.inf}),
        ('{"loss": 1, "x": ' + "[" * 100_000 + "]" * 100_000 + "}", {"loss": 1.0}),
        ("{" * 100_000 + '"loss": 1}', {"loss": 1.0}),
    ],
)
def test_collect_reads_json_lines(line: str, found: dict[str, float]) -> None:
    """Fields, also by their path, and those of objects within; texts are left alone, and what is not valid JSON is searched as text."""
    assert repr(sorted((key, value) for key, value, _ in collect(line, "loss", "acc", "val.top.acc"))) == repr(sorted(found.items()))


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("\x1b[38:5:9mloss\x1b[m=\x1b[1m2\x1b[0m", [2.0]),
        ("\x1b]0;title loss=9\x07loss=2", [2.0]),
        ("\x1b]8;;http://x/loss=9\x1b\\loss\x1b]8;;\x1b\\=2", [2.0]),
        ("loss=1\x1b[2K\x1b[1Aloss=2", [2.0]),
        ("\b\b\b\b 1/9 loss=1\b\b\b 2/9 loss=2", [2.0]),
        ("\x1b(Bloss\x1b(B=2\x1b7\x1b8", [2.0]),
        ("\x1b[?25l\rloss=1\x1b[K\rloss=2\x1b[?25h\n", [1.0, 2.0]),
        ("\x1b[ loss=2 \x1b", []),
        ("\x1b]never ends loss=2", [2.0]),
    ],
)
def test_collect_reads_what_a_terminal_would_show(line: str, values: list[float]) -> None:
    """Colours vanish; moves, titles and links separate words; what is cut off spoils no more than itself."""
    assert [value for _, value, _ in collect(line, "loss")] == values


def test_collect_reads_many_metrics_of_a_line() -> None:
    """A thousand of them, each its own."""
    keys = [f"layer.{number}/norm" for number in range(1000)]
    line = " ".join(f"{key}={number}" for number, key in enumerate(keys))
    assert collect(f"step=4 {line}", *keys) == [(key, float(number), 4) for number, key in enumerate(keys)]
    as_json = "{" + ", ".join(f'"{key}": {number}' for number, key in enumerate(keys)) + ', "step": 4}'
    assert sorted(collect(as_json, *keys)) == sorted((key, float(number), 4) for number, key in enumerate(keys))


@pytest.mark.parametrize(
    "text",
    [
        b"loss=1 epoch" + b" " * LINE_BYTES,
        b"loss=1 " + b"epoch [" * (LINE_BYTES // 7),
        b"loss=1 " + b"step " * (LINE_BYTES // 5),
        b"loss" + b" " * LINE_BYTES,
        b"loss=" + b"9" * LINE_BYTES,
        b"loss=" + b"a." * (LINE_BYTES // 2),
        b"\x1b[" + b";" * LINE_BYTES,
        b"\x1b]" * (LINE_BYTES // 2),
        b"\x1b[ " * (LINE_BYTES // 3),
        b'{"loss": 1, "x": ' + b'{"a":' * (LINE_BYTES // 5) + b"}",
        b"{" + b'"loss": 1, ' * (LINE_BYTES // 11) + b"}",
        b'{"loss": ' + b"9" * (LINE_BYTES - 20) + b"}",
    ],
    ids=lambda text: text[:12].decode(),
)
def test_collect_takes_time_in_proportion_to_a_line(text: bytes) -> None:
    """No line of a megabyte takes a time that grows with its square, which would be minutes."""
    began = time.thread_time()
    collect(text, "loss", "acc")
    assert time.thread_time() - began < 5


def test_collect_counts_steps_of_each_key_when_none_is_named() -> None:
    """Counting goes on after the last named step; a fraction of an epoch names none."""
    text = "loss=1\nloss=2 acc=5\nloss=3 epoch=10\nloss=4 epoch=10.5\n"
    assert collect(text, "loss", "acc") == [("loss", 1.0, 0), ("loss", 2.0, 1), ("acc", 5.0, 0), ("loss", 3.0, 10), ("loss", 4.0, 11)]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("{'loss': 3, 'epoch': 0.5}\n{'loss': 2, 'epoch': 1.0}\n{'loss': 4, 'epoch': 1.5}\n{'loss': 1, 'epoch': 2.0}\n", [0, 1, 2, 3]),
        ("loss: 9\n" * 3 + "Epoch 1/3 loss: 1\n" + "loss: 9\n" * 2 + "Epoch 2/3 loss: 0.5\nEpoch 90 loss: 2\n", [0, 1, 2, 3, 4, 5, 6, 90]),
        ("loss=1 step=5\nloss=2 step=2\nloss=3\nloss=4 step=2\n", [5, 2, 6, 7]),
        ("loss=1 step=5\nloss=2 step=2\nloss=3 step=2\n", [5, 2, 2]),
    ],
    ids=["fractions of epochs", "batches and epochs", "named until one is not", "all named"],
)
def test_collect_counts_on_where_a_named_step_would_go_back(text: str, steps: list[int]) -> None:
    """In a series that has to be counted the last line is the last point; one whose lines all name their steps is left as it is."""
    assert [step for _, _, step in collect(text, "loss")] == steps


def test_collect_keeps_the_order_of_points_of_one_step_in_their_times() -> None:
    """A look at the output has one time: of points with one step and one time the record would take the greatest for the last."""
    collector = StdoutCollector(Collect(), ("loss", "acc"))
    found = collector.feed(b"step=1 loss=9 acc=1\nstep=1 loss=1\nstep=2 loss=8\nstep=1 loss=7\nstep=2 loss=2\n", 50)
    again = StdoutCollector(Collect(), ("loss", "acc"), msgspec.json.decode(msgspec.json.encode(collector.state()), type=CollectState))
    found += again.feed(b"step=2 loss=0\n", 50) + again.feed(b"step=2 loss=3\nstep=3 loss=5\n", 90)
    assert [(point.step, point.value, point.time_ms) for point in found if point.key == "loss"] == [
        (1, 9.0, 50),
        (1, 1.0, 51),
        (2, 8.0, 50),
        (1, 7.0, 52),
        (2, 2.0, 53),
        (2, 0.0, 54),
        (2, 3.0, 90),
        (3, 5.0, 90),
    ]
    assert [point.time_ms for point in found if point.key == "acc"] == [50]


@pytest.mark.parametrize(
    ("collect", "text", "found"),
    [
        (Collect(keys=("acc",)), "acc=1 loss=2 lr=3\n", [("acc", 1.0), ("loss", 2.0)]),
        (Collect(pattern=r"(?P<key>\w+) -> (?P<value>\S+)", keys=("acc",)), "acc -> 1 loss -> 2 lr -> 3\n", [("acc", 1.0), ("loss", 2.0)]),
        (Collect(pattern=r"got (\d)", keys=("acc",)), "got 1\nloss=2 acc=7\n", [("acc", 1.0), ("loss", 2.0)]),
        (Collect(patterns={"acc": r"got (\d)"}), "got 1\nloss=2 acc=7\n", [("acc", 1.0), ("loss", 2.0)]),
        (Collect(patterns={"loss": r"got (\d)"}), "got 1\nloss=2\n", [("loss", 1.0)]),
    ],
    ids=["keys", "pattern", "pattern of one", "patterns", "pattern of its own"],
)
def test_collect_reads_the_sweeps_own_metric_whatever_else_is_asked_for(collect: Collect, text: str, found: list[tuple[str, float]]) -> None:
    """A trial without its objective has failed: that somebody wants another metric too must not lose it."""
    assert [(point.key, point.value) for point in StdoutCollector(collect, ("loss",)).feed(text.encode(), 0)] == found


def test_collect_reads_each_state_of_a_progress_bar() -> None:
    """Carriage returns end lines."""
    assert collect("10% loss=3\r50% loss=2\r\n", "loss") == [("loss", 3.0, 0), ("loss", 2.0, 1)]


def test_collect_bears_invalid_text() -> None:
    """Bytes that are no UTF-8 spoil nothing around them."""
    assert collect(b"\xff\xfe loss=1 \xc3\nloss=2\n", "loss") == [("loss", 1.0, 0), ("loss", 2.0, 1)]


def test_collect_bounds_long_lines() -> None:
    """A line without end is looked at up to a bound, and does not fill the memory; the next line counts again."""
    collector = StdoutCollector(Collect(), ("loss",))
    points = collector.feed(b"loss=1 " + b"x" * LINE_BYTES, 0)
    for _ in range(3):
        points += collector.feed(b"loss=2 " + b"x" * LINE_BYTES, 0)
        assert len(collector._rest) <= LINE_BYTES
    points += collector.feed(b" loss=3\nloss=4\n", 0)
    assert plain(points) == [("loss", 1.0, 0), ("loss", 4.0, 1)]


def test_collect_reads_pattern_of_the_users_own() -> None:
    """Groups `key`, `value` and maybe `step` are what a pattern needs; keys bound it as ever."""
    pattern = r"\[(?P<step>\d+)\] (?P<key>\w+) -> (?P<value>\S+)"
    assert collect("[4] loss -> 0.5\n[5] acc -> 0.7\n[6] loss -> bad\n", "loss", pattern=pattern) == [("loss", 0.5, 4)]
    assert collect("a=1 b=2", pattern=r"(?P<key>\w)=(?P<value>\d)") == [("a", 1.0, 0), ("b", 2.0, 0)]


@pytest.mark.parametrize(
    ("pattern", "text", "keys", "found"),
    [
        # Katib: two groups without names, and maybe others within the second.
        (
            r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)",
            "2024-05-01T10:00:00Z INFO Validation-accuracy=0.98 loss = 2e-1",
            ("Validation-accuracy", "loss"),
            [("Validation-accuracy", 0.98), ("loss", 0.2)],
        ),
        (
            r"{metricName: ([\w|-]+), metricValue: ((-?\d+)(\.\d+)?)}",
            "{metricName: loss, metricValue: 0.5};{metricName: acc, metricValue: -1}",
            (),
            [("loss", 0.5), ("acc", -1.0)],
        ),
        # Guild: its words, and its names of groups.
        (r"^(\key):\s+(\value)$", "loss: 0.5\nacc:  nan\nnote: none\nlr: -1e-5", ("loss", "lr"), [("loss", 0.5), ("lr", -1e-5)]),
        (r"(?P<_key>\w+) is (?P<_val>\value)", "loss is .5 and acc is 3", (), [("loss", 0.5), ("acc", 3.0)]),
        (r"^loss after (?P<step>\step) is (\value)", "loss after 0 is 7", ("loss",), [("loss", 7.0)]),
        # SageMaker: one group for one metric; several, by the names of the groups.
        (r"validation-auc:([0-9\.]+)", "[12]#011train-auc:0.97#011validation-auc:0.91", ("validation:auc",), [("validation:auc", 0.91)]),
        (
            r"#quality_metric: host=\S+, validation score <score>=\((\S+)\)",
            "#quality_metric: host=a-1, validation score <score>=(0.5)",
            ("score",),
            [("score", 0.5)],
        ),
        (r"Train_acc=(?P<acc>.*?);|Loss=(?P<loss>.*?);", "Train_acc=0.9; Loss=0.2;", (), [("acc", 0.9), ("loss", 0.2)]),
        (r"(?P<loss>\S+) (?P<acc>\S+)", "0.5 0.9", ("acc",), [("acc", 0.9)]),
    ],
)
def test_collect_reads_patterns_of_other_tools(pattern: str, text: str, keys: tuple[str, ...], found: list[tuple[str, float]]) -> None:
    """A pattern says by its groups which metric and which value, in each of the usual ways."""
    assert [(key, value) for key, value, _ in collect(text, *keys, pattern=pattern)] == found


def test_collect_reads_each_metric_by_its_own_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several may read one line, with its step, and the sweep's own metric is read beside them; they share the time that one pattern may take."""
    collector = StdoutCollector(Collect(patterns={"a": r"A: (\S+)", "b": r"B(?:ee)?=(\value)", "a.step": r"(?P<step>\d+)/9 (?P<value>\S+)"}), ("loss",))
    text = b"epoch=3 A: 0.5 Bee=2 loss=1\nA: bad B=1\n4/9 7\n"
    assert plain(collector.feed(text, 0)) == [("a", 0.5, 3), ("b", 2.0, 3), ("loss", 1.0, 3), ("b", 1.0, 4), ("a.step", 7.0, 4)]
    monkeypatch.setattr(collect_module, "PATTERN_FEED_S", -1.0)
    assert collector.feed(b"A: 1\n", 0) == []
    assert "was given up" in collector.note


@pytest.mark.parametrize("keys", [(), ("loss", "acc")])
def test_collect_refuses_pattern_of_one_value_when_its_key_is_not_known(keys: tuple[str, ...]) -> None:
    """One group is the value of the only key: with none or several there is no telling whose."""
    with pytest.raises(BadPattern):
        StdoutCollector(Collect(pattern="loss (.*)", keys=keys))


@pytest.mark.parametrize("pattern", ["(", r"(?P<key>\w+)=\d", r"(?P<value>\d)", "loss", r"(?P<step>\d+)"])
def test_collect_refuses_unusable_pattern(pattern: str) -> None:
    """A pattern that can't work is an error, not silence."""
    with pytest.raises(BadPattern):
        StdoutCollector(Collect(pattern=pattern))


CATASTROPHIC = r"(?P<key>(a|aa)+)=(?P<value>\d+)"
"""Takes twice as long for each further letter, over a line of them that fits almost."""
ALMOST = b"a" * 60 + b"!=1\n"


def test_collect_gives_up_pattern_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line has a second and no more; then the attempt goes on without the pattern, says so, and a restart knows it."""
    monkeypatch.setattr(collect_module, "PATTERN_LINE_S", 0.1)
    collector = StdoutCollector(Collect(pattern=CATASTROPHIC))
    assert plain(collector.feed(b"a=1\n", 0)) == [("a", 1.0, 0)]
    assert collector.note == ""
    assert collector.feed(ALMOST, 0) == []
    assert "was given up" in collector.note
    assert collector.feed(b"a=2\n", 0) == []
    again = StdoutCollector(Collect(pattern=CATASTROPHIC), (), collector.state())
    assert again.feed(b"a=3\n", 0) == []
    assert again.note == collector.note


def test_collect_gives_up_pattern_that_takes_long_over_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many lines that each stay just below the limit would keep the output of other attempts waiting as well."""
    monkeypatch.setattr(collect_module, "PATTERN_FEED_S", 0.0)
    collector = StdoutCollector(Collect(pattern=r"(?P<key>\w)=(?P<value>\d)"))
    collector.feed(b"a=1\n" * 100, 0)
    assert "was given up" in collector.note


def test_collect_leaves_other_threads_running_during_a_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """A careless pattern must not keep the worker from renewing its lease."""
    monkeypatch.setattr(collect_module, "PATTERN_LINE_S", 1.0)
    collector = StdoutCollector(Collect(pattern=CATASTROPHIC))
    matching = threading.Thread(target=collector.feed, args=(ALMOST, 0))
    began = time.monotonic()
    matching.start()
    n_turns = 0
    while matching.is_alive():
        matching.join(0.02)
        n_turns += 1
    # Held up by the match, this thread would have had one turn.
    assert time.monotonic() - began > 0.5
    assert n_turns > 5


@pytest.mark.parametrize("step", ["1e300", "9223372036854775808", "-9223372036854775809", "99999999999999999999", "inf", "nan"])
def test_collect_counts_steps_when_the_named_one_fits_no_record(step: str) -> None:
    """A step is a 64-bit number; another one would keep back everything printed with it."""
    assert collect(f"step={step} loss=1\nloss=2", "loss") == [("loss", 1.0, 0), ("loss", 2.0, 1)]


def test_collect_counts_no_further_than_the_record_can() -> None:
    """After the last step there is no other."""
    points = collect("step=9223372036854774784 loss=1\n" + "loss=2\n" * 1100, "loss")
    assert points[-1] == ("loss", 2.0, 2**63 - 1)


def test_collect_leaves_out_keys_that_fit_no_record() -> None:
    """A pattern may find anything: what can't be a key is left out and counted, the rest is kept."""
    collector = StdoutCollector(Collect(pattern=r"(?P<key>[^=]+)=(?P<value>\d)"))
    text = b"k" * (KEY_CHARS + 1) + b"=1\n" + b"k" * KEY_CHARS + b"=2\na\0b=3\nloss=4\n"
    assert plain(collector.feed(text, 0)) == [("k" * KEY_CHARS, 2.0, 0), ("loss", 4.0, 0)]
    assert collector.note.startswith("2 metric values")


def test_collect_is_silent_when_switched_off() -> None:
    """`stdout: false` reads nothing."""
    collector = StdoutCollector(Collect(stdout=False), ("loss",))
    assert collector.feed(b"loss=1\n", 0) == []


TEXT = 'start\nloss=1 step=3\r\nacc: 2\x1b[0m loss=nan\nbar loss=5\r{"loss": 6}\n\nlast loss=7 step=2'


@given(st.lists(st.integers(0, len(TEXT)), max_size=6))
def test_collect_finds_the_same_in_any_pieces(cuts: list[int]) -> None:
    """Where the output is cut into pieces, and where a restart falls, changes nothing."""
    data = TEXT.encode()
    whole = StdoutCollector(Collect(), ("loss", "acc"))
    expected = whole.feed(data, 0) + whole.finish(0)
    collector = StdoutCollector(Collect(), ("loss", "acc"))
    found, position = [], 0
    for cut in sorted(cuts):
        found += collector.feed(data[position:cut], 0)
        # Another life of the worker goes on from the state, which lies at the start of the incomplete line.
        collector = StdoutCollector(Collect(), ("loss", "acc"), collector.state())
        position = collector.offset
    found += collector.feed(data[position:], 0) + collector.finish(0)
    assert repr(plain(found)) == repr(plain(expected))
    assert len(expected) == 6


PIECES: Final = (
    *b'loss|acc|top|/|.|=|:| |1|-2.5e3|nan|\n|\r|{|}|"|,|\\u0073|los\\u0073|\\|\x1b[1m|\x1b]0;x|\x07|\b|\xff|\xc2\xa0'.split(b"|"),
    "ä".encode(),
    b"step=",
    b"epoch 3",
    b"loss=1\n",
    b'{"loss": 1, "val": {"top.acc": 2}}\n',
    b'{"lo\\u0073s": 3}\n',
)


@given(st.lists(st.sampled_from(PIECES), max_size=60), st.sampled_from([("loss",), ("loss", "val.top.acc"), ("top/loss", "ä"), ("loss.",), ('"', " ")]))
@example([b'{"lo\\u0073s": 3}\n'], ("loss",))
@example([b'{"loss": 1, "val": {"top.acc": 2}}\n'], ("val.top.acc",))
@example([b"los", b"\x1b[1m", b"s\xc2\xa0=1\n"], ("loss",))
@example([b"\x1b]0;x", b"\n", b"loss=1\n", b"\x07"], ("loss",))
@example([b"\xffloss=1\n"], ("\N{REPLACEMENT CHARACTER}loss",))
def test_collect_passes_over_no_line_that_holds_a_metric(pieces: list[bytes], keys: tuple[str, ...]) -> None:
    """Searching whole blocks for what a metric can't do without finds what reading every line does."""
    data = b"".join(pieces) + b"\n"
    thorough = StdoutCollector(Collect(), keys)
    thorough._reader.candidates = lambda block: block.split(b"\n")  # type: ignore[union-attr, method-assign]
    expected = [point for line in data.replace(b"\r", b"\n").splitlines(keepends=True) for point in thorough.feed(line, 0)]
    assert repr(plain(StdoutCollector(Collect(), keys).feed(data, 0))) == repr(plain(expected))


@pytest.mark.parametrize(("pattern", "limit_s"), [(None, 1.0), (r"(?P<key>\w+)=(?P<value>\d)", 3.0)], ids=["by key", "by pattern"])
def test_collect_is_fast_with_short_lines_that_hold_nothing(pattern: str | None, limit_s: float) -> None:
    """Hundreds of megabytes of them may lie between a trial's end and its outcome; nor is a pattern to blame for their number."""
    collector = StdoutCollector(Collect(pattern=pattern), ("loss",))
    began = time.thread_time()
    collector.feed(b"y\n" * (8 << 20), 0)
    assert time.thread_time() - began < limit_s
    assert collector.note == ""
    assert plain(collector.feed(b"loss=1\n", 0)) == [("loss", 1.0, 0)]


def test_collect_searches_a_long_output_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is searched no other thread runs, nor is the worker's lease renewed: 256 KiB take a few milliseconds at most."""
    collector = StdoutCollector(Collect(), ("loss",))
    n_searched: list[int] = []
    monkeypatch.setattr(collector._reader, "candidates", lambda block: n_searched.append(len(block)) or [])
    collector.feed(b"no metric here\n" * (1 << 18), 0)
    assert sum(n_searched) == 15 << 18
    assert max(n_searched) <= 1 << 18 | 15


def test_collect_tail_follows_a_growing_file(tmp_path: Path) -> None:
    """Points come as lines are completed, and the last line at the end."""
    path = tmp_path / "stdout"
    tail = MetricTail(path, StdoutCollector(Collect(), ("loss",)))
    assert tail.poll(1) == []
    path.write_bytes(b"loss=1\nlo")
    assert tail.poll(2) == [MetricPoint("loss", 1.0, 0, 2)]
    with path.open("ab") as file:
        file.write(b"ss=2\nloss=3")
    assert tail.poll(3) == [MetricPoint("loss", 2.0, 1, 3)]
    assert tail.finish(4) == [MetricPoint("loss", 3.0, 2, 4)]


PAGE: Final = (Path(__file__).resolve().parents[2] / "docs" / "collecting-metrics.md").read_text(encoding="utf-8")


def test_collect_lists_the_names_that_were_printed() -> None:
    """Whatever has a number, asked for or not; the latest last, and no more than the last hundred."""
    text = b"val-loss=0.3 valloss: 0.2\r\x1b[1mval/Loss\x1b[0m = 1e-3\n{'acc': nan, \"top5\": 7}\nat 12:30 see http://x lr=1,234 name=adam\nval-loss=.1"
    assert printed_names(text) == ("valloss", "val/Loss", "acc", "top5", "val-loss")
    many = printed_names(b" ".join(b"m%d=1" % n for n in range(1000)))
    assert many == tuple(f"m{n}" for n in range(1000 - PRINTED_NAMES, 1000))


@pytest.mark.parametrize("text", [b"a" * 65536, b"a " * 32768, b"a" + b" " * 65536, b"a=" * 32768, b"a=" + b"b." * 32768, b"\x1b[" * 32768])
def test_collect_lists_printed_names_in_time_in_proportion_to_the_output(text: bytes) -> None:
    """Every trial whose objective was not printed pays for it."""
    began = time.thread_time()
    printed_names(text)
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize(
    ("text", "fields", "names"),
    [
        ("valloss=0.3\n", {}, ("valloss",)),
        ("valloss=0.3\nval_loss=0.2\n", {}, ()),
        ("valloss=0.3\n", {"collect": Collect(stdout=False)}, ()),
        ("valloss=0.3\n", {"metric_keys": ()}, ()),
        (None, {}, ()),
    ],
)
def test_output_names_what_was_printed_unless_the_metric_was(tmp_path: Path, text: str | None, fields: dict[str, Any], names: tuple[str, ...]) -> None:
    """Only what may be read from the output, and was not, may have been printed under another name."""
    if text is not None:
        (tmp_path / "stdout").write_text(text)
    output = Output(tmp_path, Launch(**{"metric_keys": ("val_loss",), **fields}), 1 << 20)
    output.ship(Mock(), Mock(), is_final=True)
    assert output.unasked() == names


def test_docs_page_of_collecting_is_true() -> None:
    """Every writing in its table is read as the page says, or not read."""
    rows = [line.replace(r"\|", "or").split("|")[1:3] for line in PAGE.partition("**Steps.**")[0].splitlines() if line.startswith("| `")]
    told = {code: meaning.strip() for codes, meaning in rows for code in re.findall("`([^`]+)`", codes)}
    read = {code: [value for _, value, _ in collect(code, "loss")] for code in told}
    assert [code for code, meaning in told.items() if meaning.startswith("nothing") and read[code]] == []
    quarter = [code for code, meaning in told.items() if meaning.startswith("0.25")]
    assert [code for code in quarter if read[code] != [0.25]] == []
    assert len(quarter) > 6


def test_docs_patterns_of_collecting_work() -> None:
    """The page's patterns find what stands beside them."""
    examples = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "stdout" in block]
    stdout, definitions = (yaml.safe_load(example)["collect"]["stdout"] for example in examples)
    assert collect("[4] loss -> 0.5", "loss", pattern=stdout) == [("loss", 0.5, 4)]
    collector = StdoutCollector(Collect(patterns=definitions))
    assert plain(collector.feed(b"Train_error=0.138318; Valid_error=0.324557;\n", 0)) == [("train:error", 0.138318, 0), ("validation:error", 0.324557, 0)]
    rows = [line.split("|", 3)[3] for line in PAGE.partition("Groups may be")[2].replace(r"\|", "\N{BROKEN BAR}").splitlines()[4:]]
    katib, guild, one, several, named = (code.replace("\N{BROKEN BAR}", "|") for row in rows for code in re.findall("`([^`]+)`", row))
    assert collect("{metricName: loss, metricValue: 0.5}", pattern=katib) == [("loss", 0.5, 0)]
    assert collect("loss is 0.5", pattern=guild) == [("loss", 0.5, 0)]
    assert collect("[12] validation-auc:0.9", "auc", pattern=one) == [("auc", 0.9, 0)]
    assert collect("auc:0.9 err:0.1", pattern=several) == [("auc", 0.9, 0), ("err", 0.1, 0)]
    assert collect("loss -> 0.5", pattern=named) == [("loss", 0.5, 0)]
