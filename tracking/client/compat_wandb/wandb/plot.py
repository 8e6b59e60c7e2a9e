"""`wandb.plot`: charts are kept as the table of what they draw."""

from ._plain import plain
from .data_types import Table
from .errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional

__all__ = ["CustomChart", "bar", "confusion_matrix", "histogram", "line", "line_series", "plot_table", "pr_curve", "roc_curve", "scatter"]


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


def roc_curve(
    y_true: "Any", y_probas: "Any" = None, labels: "Any" = None, classes_to_plot: "Any" = None, title: str = "ROC Curve", **_options: "Any"
) -> CustomChart:
    """Of each class: how many are found, against how many others are taken for it. One point for each probability that occurs."""
    rows = []
    for label, counts in _counted_classes(y_true, y_probas, labels, classes_to_plot):
        n_found, n_wrong = counts[-1]
        rows += [[label, round(wrong / (n_wrong or 1), 3), round(found / (n_found or 1), 3)] for found, wrong in counts]
    return CustomChart("roc_curve", Table(columns=["class", "fpr", "tpr"], data=rows), title)


def pr_curve(
    y_true: "Any" = None,
    y_probas: "Any" = None,
    labels: "Any" = None,
    classes_to_plot: "Any" = None,
    interp_size: int = 21,
    title: str = "Precision-Recall Curve",
    **_options: "Any",
) -> CustomChart:
    """Of each class: which precision can be had at which recall, at evenly spaced recalls."""
    rows = []
    for label, counts in _counted_classes(y_true, y_probas, labels, classes_to_plot):
        points = [(found / (counts[-1][0] or 1), found / ((found + wrong) or 1) if found + wrong else 1.0) for found, wrong in counts]
        for place in reversed(range(interp_size)):
            recall = place / max(interp_size - 1, 1)
            rows.append([label, round(max(precision for reached, precision in points if reached >= recall), 3), round(recall, 3)])
    return CustomChart("pr_curve", Table(columns=["class", "precision", "recall"], data=rows), title)


def _counted_classes(y_true: "Any", y_probas: "Any", labels: "Any", classes_to_plot: "Any") -> "Iterator[tuple[Any, list[tuple[int, int]]]]":
    """Each class, and how many are found and wrongly taken for it, by falling probability; first none of either."""
    truth, probas = plain(list(y_true)), [plain(list(row)) for row in y_probas]
    classes = sorted(set(truth))
    wanted = classes if classes_to_plot is None else plain(list(classes_to_plot))
    for place, one in enumerate(classes):
        if one not in wanted:
            continue
        counts = [(0, 0)]
        last = None
        for probability, actual in sorted(((row[place], actual) for row, actual in zip(probas, truth)), key=lambda pair: pair[0], reverse=True):
            found, wrong = counts[-1]
            counts[len(counts) - (probability == last) :] = [(found + (actual == one), wrong + (actual != one))]
            last = probability
        yield (labels[one] if labels is not None and isinstance(one, int) else one), counts


def plot_table(vega_spec_name: str, data_table: Table, fields: "Any" = None, string_fields: "Any" = None, **_options: "Any") -> CustomChart:
    """A chart of the user's own."""
    return CustomChart(vega_spec_name, data_table, (string_fields or {}).get("title"))


def __getattr__(name: str) -> "Any":
    if name.startswith("__"):
        raise AttributeError(name)
    raise UnsupportedError(f"wandb.plot.{name} is not served by this stand-in: log a wandb.Table of what it would draw (docs: coming from W&B)")
