"""`wandb.plot`: charts are kept as the table of what they draw."""

from .data_types import Table
from .errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

__all__ = ["CustomChart", "bar", "confusion_matrix", "histogram", "line", "line_series", "plot_table", "scatter"]


class CustomChart(Table):
    """A table, and which chart it was meant for."""

    def __init__(self, chart: str, table: Table, title: "Optional[str]" = None) -> None:
        super().__init__(columns=table.columns, data=table.data)
        self.chart = chart
        self.title = title

    def _facts(self) -> "dict[str, Any]":
        return dict(super()._facts(), chart=self.chart, title=self.title)


def line(table: Table, x: str, y: str, stroke: "Any" = None, title: str = "", **_options: "Any") -> CustomChart:
    """A line."""
    return CustomChart("line", table, title)


def scatter(table: Table, x: str, y: str, title: str = "", **_options: "Any") -> CustomChart:
    """Points."""
    return CustomChart("scatter", table, title)


def bar(table: Table, label: str, value: str, title: str = "", **_options: "Any") -> CustomChart:
    """Bars."""
    return CustomChart("bar", table, title)


def histogram(table: Table, value: str, title: str = "", **_options: "Any") -> CustomChart:
    """Bars of counts."""
    return CustomChart("histogram", table, title)


def line_series(xs: "Any", ys: "Any", keys: "Any" = None, title: str = "", xname: str = "x", **_options: "Any") -> CustomChart:
    """Several lines."""
    lines = [list(one) for one in ys]
    names = list(keys) if keys is not None else [f"line_{place}" for place in range(len(lines))]
    at = list(xs)
    each = [list(one) for one in at] if at and hasattr(at[0], "__iter__") else [at] * len(lines)
    rows = [[x, name, y] for name, values, points in zip(names, lines, each) for x, y in zip(points, values)]
    return CustomChart("line_series", Table(columns=[xname, "lineKey", "lineVal"], data=rows), title)


def confusion_matrix(
    probs: "Any" = None, y_true: "Any" = None, preds: "Any" = None, class_names: "Any" = None, title: str = "", **_options: "Any"
) -> CustomChart:
    """Counts of each pair of what is true and what was predicted."""
    if preds is None:
        rows = [list(one) for one in probs]
        preds = [row.index(max(row)) for row in rows]
    truth, guesses = [int(one) for one in y_true], [int(one) for one in preds]
    names = [str(name) for name in class_names] if class_names is not None else [f"Class_{one + 1}" for one in range(max(truth + guesses) + 1)]
    pairs = list(zip(truth, guesses))
    cells = [[actual, guess, pairs.count((a, g))] for a, actual in enumerate(names) for g, guess in enumerate(names)]
    return CustomChart("confusion_matrix", Table(columns=["Actual", "Predicted", "nPredictions"], data=cells), title)


def plot_table(vega_spec_name: str, data_table: Table, fields: "Any" = None, string_fields: "Any" = None, **_options: "Any") -> CustomChart:
    """A chart of the user's own."""
    return CustomChart(vega_spec_name, data_table, (string_fields or {}).get("title"))


def __getattr__(name: str) -> "Any":
    if name.startswith("__"):
        raise AttributeError(name)
    raise UnsupportedError(f"wandb.plot.{name} is not served by this stand-in: log a wandb.Table of what it would draw (docs: coming from W&B)")
