"""What `define_metric` says of a metric: what its steps are counted in, and which of its values the summary keeps."""

from .errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Sequence

OPS = frozenset("min max mean last first copy none best".split())


class Metric:
    """One definition; of a name, or of all names that begin with what stands before `*`."""

    def __init__(self, name: str, step_metric: "Optional[str]", ops: "Sequence[str]") -> None:
        self.name = name
        self.step_metric = step_metric
        self.ops = tuple(ops)

    def matches(self, key: str) -> bool:
        """Whether it speaks of this metric."""
        return key.startswith(self.name[:-1]) if self.name.endswith("*") else key == self.name


class Definitions:
    """All definitions of a run. An exact name goes before a pattern, a longer pattern before a shorter one."""

    def __init__(self) -> None:
        self._metrics: "dict[str, Metric]" = {}
        self._found: "dict[str, Optional[Metric]]" = {}

    def add(self, name: "Any", step_metric: "Any", summary: "Any", goal: "Any") -> Metric:
        """Take a definition; a second one of the same name adds to the first.

        Raises:
            Error: it is none.
        """
        step_metric = step_metric.name if isinstance(step_metric, Metric) else step_metric
        if not name or not isinstance(name, str):
            raise Error("define_metric() requires non-empty name argument")
        if "*" in name[:-1]:
            raise Error(f"Unhandled define_metric() arg: name (glob suffixes only): {name}")
        if step_metric is not None and not isinstance(step_metric, str):
            raise Error(f"Unhandled define_metric() arg: step_metric type: {type(step_metric).__name__}")
        ops = [op.strip().lower() for op in summary.split(",")] if summary else []
        for op in ops:
            if op not in OPS:
                raise Error(f"Unhandled define_metric() arg: summary op: {op}")
        ops = ["max" if op == "best" and str(goal).startswith("max") else "min" if op == "best" else op for op in ops]
        known = self._metrics.get(name)
        metric = Metric(name, step_metric or (known.step_metric if known else None), ops or (known.ops if known else ()))
        self._metrics[name] = metric
        self._found.clear()
        return metric

    def of(self, key: str) -> "Optional[Metric]":
        """What is said of a metric."""
        if key not in self._found:
            fitting = [metric for metric in self._metrics.values() if metric.matches(key)]
            fitting.sort(key=lambda metric: (not metric.name.endswith("*"), len(metric.name)))
            self._found[key] = fitting[-1] if fitting else None
        return self._found[key]


class Kept:
    """The smallest, largest, mean and first value so far of one metric."""

    def __init__(self) -> None:
        self.n = 0
        self.values: "dict[str, float]" = {}

    def take(self, value: float) -> "dict[str, float]":
        """Take a value; those that changed. The mean counts as changed with each."""
        before = dict(self.values)
        self.n += 1
        self.values.setdefault("first", value)
        self.values["min"] = min(value, self.values.get("min", value))
        self.values["max"] = max(value, self.values.get("max", value))
        self.values["mean"] = self.values.get("mean", 0.0) + (value - self.values.get("mean", 0.0)) / self.n
        return {op: one for op, one in self.values.items() if op not in before or one != before[op]}
