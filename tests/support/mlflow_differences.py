"""Where our answers differ from those of MLflow's server, and why: what the differential test allows, and what the docs tell.

`make docs` writes the page. A difference that is not listed here fails the test, and so does one that is gone.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tests.support.markdown import table
from tests.support.mlflow_replay import Difference, shorten


@dataclass(frozen=True, slots=True)
class Listed:
    """A kind of difference.

    Attributes:
        what: is asked for.
        mlflow: does then.
        here: is done.
        why: it is so.
        theirs: a pattern for the beginning of what MLflow says, or of the value it has.
        ours: the same of ours.
        where: a pattern for the place, as `Difference.where` has it.
        asks: patterns for the names of the requests; each must be of use.
    """

    what: str
    mlflow: str
    here: str
    why: str
    theirs: str
    ours: str
    where: str = "answer"
    asks: tuple[str, ...] = (".*",)

    def uses(self, difference: Difference) -> list[str]:
        """Which of `asks` let a difference pass."""
        told = (
            (self.where, difference.where, True),
            (self.theirs, shorten(difference.theirs, 100_000), False),
            (self.ours, shorten(difference.ours, 100_000), False),
        )
        if not all(re.compile(pattern, re.DOTALL).fullmatch(text) if is_whole else re.match(pattern, text, re.DOTALL) for pattern, text, is_whole in told):
            return []
        return [ask for ask in self.asks if re.fullmatch(ask, difference.ask.name, re.DOTALL)]


_REFUSED: Final = r"400 INVALID_PARAMETER_VALUE"
_FILTERS: Final = (r".*: filter .* (OR|IN) .*", r".*: filter (NOT|.*\(\w).*", r".*: filter \(\(.*", r".*: filter params\.lr = 5", r".*: filter\s+")

LISTED: Final[tuple[Listed, ...]] = (
    Listed(
        "what can't be answered, whoever asks again",
        "500, with a page of HTML or the error of a library",
        "400 or another 4xx with MLflow's error code",
        "a client asks again for four minutes after 5xx; what fails the same way every time is never 5xx",
        "500",
        "4",
    ),
    Listed(
        "what the database refuses",
        "`BAD_REQUEST` with the database's message and the statement in it",
        "judged before it is sent there: taken, or refused with the code that MLflow uses for its like",
        "what the database says is of no use to whoever asked, and no business of theirs",
        r"400 (BAD_REQUEST|RESOURCE_ALREADY_EXISTS): .*psycopg2",
        "",
    ),
    Listed(
        "a name that is taken",
        "the database's message and the statement within its own",
        "the sentence alone",
        "as above",
        r".*psycopg2",
        "",
        "message",
    ),
    Listed(
        "a value of the wrong type",
        "takes the request, and leaves out this field and whatever it has not read by then",
        "`INVALID_PARAMETER_VALUE`, in MLflow's words for other fields",
        "what is asked for is done, or refused; a part of it lost without a word is neither",
        "200",
        rf"{_REFUSED}: Invalid value .* Hint: Value was of type",
    ),
    Listed(
        "a filter or an order that can't be read",
        "one of twenty sentences",
        "the filter, the place in it, what is expected there",
        "it says where to look",
        "",
        "Invalid (filter|order_by) ",
        "message",
    ),
    Listed(
        "`OR`, `NOT`, parentheses, `IN`, numbers compared with parameters; nothing but blanks",
        "refuses them",
        "answers",
        "the grammar is MLflow's and more",
        _REFUSED,
        "200",
        "answer",
        _FILTERS,
    ),
    Listed(
        "`run_id` and `run_uuid` that name two runs",
        "takes the first",
        "`INVALID_PARAMETER_VALUE`",
        "who is right can't be told, and what is written to the wrong run stays there",
        "200",
        rf"{_REFUSED}: 'run_id' and 'run_uuid' name different runs",
    ),
    Listed(
        "a run that does not tell its start",
        "`start_time` 0",
        "the time at which it was made",
        "1970 is no answer, and sorts before everything",
        "0",
        "<now>",
        r".*start_time",
    ),
    Listed(
        "a value of the wrong type within a list",
        "its words for another fault, or for none",
        "which value of the list it is, and what is expected there",
        "as above",
        "",
        rf"({_REFUSED}: )?Invalid value for parameter '\w+' supplied: Expected",
        "answer|message",
        ("runs/log-batch: .*",),
    ),
    Listed(
        "a text in place of a metric's value, within a list",
        "records 0",
        "`INVALID_PARAMETER_VALUE`",
        "as above",
        "200",
        rf"{_REFUSED}: Invalid value 'x' for parameter 'metrics\[0\].value' supplied: it is no number.",
        "answer",
        ("runs/log-batch: metrics where value is .*",),
    ),
    Listed(
        "`NaN`, `Infinity`, a number beyond floats or half a pair of surrogates in the body, none of which JSON has",
        "takes the request, and records 0 or an empty text",
        'refuses the body; MLflow\'s clients send `"NaN"` as a text, which is recorded as what it is',
        "0 in place of NaN is wrong in the one case in which somebody will look",
        "200",
        _REFUSED,
        "answer",
        ("runs/log-metric: bare .*", "runs/log-parameter: half a pair of surrogates"),
    ),
    Listed(
        "an infinite value",
        "±1.7976931348623157e+308",
        '`"Infinity"`, `"-Infinity"`, which every client reads as such',
        "it is what was logged",
        r"-?1.7976931348623157e\+308",
        "-?Infinity",
        r".*value",
    ),
    Listed(
        "a status that there is not",
        "takes the request and leaves it out; a number in the words for a wrong type",
        "`INVALID_PARAMETER_VALUE`, with those that there are",
        "a run would go on as RUNNING",
        "",
        r"(400 INVALID_PARAMETER_VALUE: )?Invalid value '\w*' for parameter 'status' supplied: one of",
        "answer|message",
        ("runs/update: status .*",),
    ),
    Listed(
        "a page token that is none",
        "why base64 can't read it",
        "the sentence alone",
        "tokens are opaque; ours are not MLflow's",
        "Invalid page token, could not base64-decode",
        "Invalid page token",
        "message",
    ),
    Listed(
        "an `artifact_location` that is a local path, a `file:` or `http:` URI, or climbs",
        "takes it, `http:` apart",
        "`INVALID_PARAMETER_VALUE`, in words of our own",
        "a server that opens what a client names gives away its own files",
        "",
        r"(400 INVALID_PARAMETER_VALUE: )?'artifact_location' can",
        "answer|message",
        ("experiments/create: (a local path|a file URI|an http URI|steps up).*",),
    ),
    Listed(
        "an `artifact_location` that is too long",
        "names a setting of its own beside the limit",
        "the limit",
        "there is no such setting",
        "Invalid artifact path length",
        "Invalid artifact path length",
        "message",
        ("experiments/create: a location of 2049",),
    ),
    Listed(
        "a query that names one field twice",
        "the first counts",
        "the last counts",
        "clients name it once",
        "",
        "",
        r"experiment\..*",
        ("experiments/get: two ids",),
    ),
    Listed(
        "`experiments/search` without `max_results`",
        "refuses 0, which it takes the missing number for",
        "the default",
        "MLflow's description of the route lets a server choose one",
        _REFUSED,
        "200",
        "answer",
        ("experiments/search: (max_results None|nothing asked|no body)",),
    ),
    Listed(
        "a number as `max_results` that is no whole one, or too great",
        "words for 0, or for a wrong type",
        "what it may be",
        "it says what to send",
        "",
        "Invalid value",
        "message",
        (".*: max_results .*",),
    ),
    Listed(
        "names in camel case",
        "reads them like its own",
        "unknown fields are ignored, so the required ones are missing",
        "MLflow's description of the protocol has one name for each field",
        "200",
        rf"{_REFUSED}: Missing value",
        "answer",
        ("runs/create: fields in camel case",),
    ),
    Listed(
        "`runs/search` without experiments",
        "no runs",
        "`INVALID_PARAMETER_VALUE`",
        "a question that can only have been meant otherwise",
        "200",
        _REFUSED,
        "answer",
        ("runs/search: (nothing asked|no body|no JSON|a list|null|JSON within a text|without experiment_ids|experiment_ids is null)",),
    ),
    Listed(
        "a key or an operator that is left out, or a `\\\\` in `LIKE`",
        "reads on as if it were there, or takes the next sign as it stands",
        "`Invalid filter`; a backslash is a sign like any other, as on MLflow over SQLite",
        "what was meant can't be told",
        "",
        "",
        "answer|body",
        (r"runs/search: (filter params\. = '5'|order metrics\.)", r"runs/search: filter run_name LIKE '.*\\.*"),
    ),
    Listed(
        "`run name` in an order",
        "refuses it, though filters take it",
        "takes it",
        "filters take it",
        _REFUSED,
        "200",
        "answer",
        ("runs/search: order .*",),
    ),
    Listed(
        "a null in place of a list or a number that may be left out",
        "500",
        "as if it were left out",
        "null is what many languages send for nothing",
        "500",
        "200",
    ),
    Listed(
        "an id in the path of `logged-models/ID`, but not in the body",
        "`Missing value for required parameter 'model_id'`",
        "the id in the path counts",
        "it names the model",
        rf"{_REFUSED}: Missing value for required parameter 'model_id'",
        "",
        "answer|message",
        ("logged-models/ID.*: no id in the body",),
    ),
    Listed(
        "several fields that are missing at once",
        "in any order",
        "in order",
        "it reads better",
        "Model json is missing mandatory fields",
        "Model json is missing mandatory fields",
        "message",
        ("runs/log-model: too little",),
    ),
    Listed(
        "an artifact path that climbs, is absolute, or has a backslash, `#`, `;`, `?` or control characters",
        "`Invalid path`; takes some of them as they stand",
        "`INVALID_PARAMETER_VALUE`, which path and what it must be",
        "each has been a way out of the folder in some version of some server",
        "",
        r"(400 INVALID_PARAMETER_VALUE: )?(Invalid path: the artifact path|The artifact path .* is not below)",
        "answer|message",
        ("mlflow-artifacts .*", "artifacts/list: .*"),
    ),
    Listed(
        "a route or a method that there is not",
        "404 or 405, a page of HTML",
        "404 `ENDPOINT_NOT_FOUND`",
        "clients that know several ways to ask go on to the next when they read this code",
        "40[45]",
        "404 ENDPOINT_NOT_FOUND",
        "answer",
        ("unknown: .*",),
    ),
    Listed(
        "the user of a run",
        "keeps `user_id` and the tag `mlflow.user` apart",
        "each is the other",
        "a run has one user, who is found by either",
        "",
        r"somebody|you|.*mlflow.user",
        r".*\.user_id|.*data\.tags",
        ("runs/create: a user in the tag", "runs/create: a user without the tag", "runs/get: after parameters and tags"),
    ),
    Listed(
        "a bad key of a tag in `runs/create`",
        "takes it, though it refuses it in every other request",
        "`INVALID_PARAMETER_VALUE`",
        "what a key may be does not hang on the request",
        "200",
        rf"{_REFUSED}: Invalid value .* for parameter 'tags",
        "answer",
        ("runs/create: a bad tag",),
    ),
    Listed(
        "a bad or missing key of a metric, parameter or tag",
        "names it `name`, or tells of an empty one what it would resolve to",
        "names the field as it is sent",
        "it says where to look",
        "Invalid value|Missing value|'Metric name'",
        r"Invalid value|Missing value|'(metrics\.)?key' exceeds",
        "message",
        ("experiments/create: a tag without a key", r"runs/log-metric: key .*", r"runs/log-batch: \w+ key .*"),
    ),
    Listed(
        "a dataset's tag without a key",
        "keeps it under an empty key",
        "`INVALID_PARAMETER_VALUE`",
        "as for every other tag",
        "200",
        rf"{_REFUSED}: Missing value",
        "answer",
        ("runs/log-inputs: a tag without a key",),
    ),
    Listed(
        "a metric's value or time that is none",
        "words for a wrong type, or for a missing field",
        "what it is not",
        "it says what to send",
        "Invalid value|Missing value",
        "Invalid value",
        "message",
        ("runs/log-metric: value .*", "runs/log-metric: timestamp -1"),
    ),
    Listed(
        "another value of a parameter, in a batch",
        "a list in Python's notation",
        "the sentence that `runs/log-parameter` has for it",
        "one sentence for one fault",
        "Changing param values is not allowed. Params were already logged",
        "Changing param values is not allowed. Param with key",
        "message",
        ("runs/log-batch: .*",),
    ),
    Listed(
        "the history of a run that there is not",
        "no points",
        "`RESOURCE_DOES_NOT_EXIST`",
        "a slip in an id shows at once",
        "200",
        "404 RESOURCE_DOES_NOT_EXIST",
        "answer",
        ("metrics/get-history: an unknown run",),
    ),
    Listed(
        "more than a page may hold, or a negative number, as `max_results`",
        "takes it as it is",
        "`INVALID_PARAMETER_VALUE`",
        "no answer without a bound",
        "200",
        rf"{_REFUSED}: Invalid value -?\d+ for parameter 'max_results'",
        "answer",
        ("metrics/get-history: max_results .*", "logged-models/search: max_results .*"),
    ),
    Listed(
        "NaN in `metrics/get-history-bulk`",
        "`NaN` as it stands, which is no JSON",
        '`"NaN"`, as in every other answer',
        "pages can't read the first",
        "NaN",
        '"?NaN',
        "metrics.0.value",
        ("metrics/get-history-bulk: values that are no numbers",),
    ),
    Listed(
        "the tag that `runs/log-model` writes",
        "JSON with blanks",
        "JSON without",
        "it is the same JSON",
        r'\[{"run_id": "x", "artifact_path"',
        r'\[{"run_id":"x","artifact_path"',
        r"run\.data\.tags\.0\.value",
        ("runs/get: after log-model",),
    ),
    Listed(
        "logged models by their experiment, in the filter",
        "answers",
        "`Invalid filter`: `experiment_ids` says which",
        "one way to say it is enough",
        "200",
        rf"{_REFUSED}: Invalid filter .*'experiment_id' is no attribute",
        "answer",
        ("logged-models/search: filter experiment_id = '0'",),
    ),
    Listed(
        "logged models by a dataset's name, without its digest",
        "none",
        "those with a metric on any dataset of this name",
        "a digest that is left out narrows nothing",
        r"\[\]",
        r'\["mdl"\]',
        "body",
        ("logged-models/search: a dataset",),
    ),
    Listed(
        "an end at the time 0",
        "no end",
        "0",
        "it is what was sent",
        r"\(absent\)",
        "0",
        r"run_info\.end_time",
        ("runs/update: end_time 0",),
    ),
    Listed(
        "the next page of another question",
        "which parts differ",
        "that some do",
        "tokens are ours",
        "Filter string in the page token",
        "Invalid page token",
        "message",
        ("logged-models/search: another filter on the next page",),
    ),
    Listed(
        "`/version`",
        "its version as text",
        "this program's name and version as JSON",
        "clients ask it before they send traces, which are not served, and take what is no version for none",
        "",
        "",
        "content-type|name|schema|text|version|x-content-type-options",
        ("version: GET",),
    ),
    Listed(
        "`/health`",
        "says `nosniff`",
        "`OK` alone",
        "there is nothing in it to take for something else",
        "nosniff",
        r"\(absent\)",
        "x-content-type-options",
        ("health: GET",),
    ),
    Listed(
        "a file that is not there, a folder in place of one",
        "its own sentence; 400 without an error code",
        "`RESOURCE_DOES_NOT_EXIST` or `INVALID_PARAMETER_VALUE`",
        "a client sees which",
        "No such artifact|400: $",
        "There is no artifact|4",
        "answer|message",
        (r"mlflow-artifacts \((GET|PUT)\): .*",),
    ),
    Listed(
        "the size of an empty file",
        "leaves it out",
        "0",
        "it is known",
        r"\(absent\)",
        "0",
        r"files\.\d+\.file_size",
        (".*list.*",),
    ),
    Listed(
        "what the server says it can",
        "a gateway, uploads by URLs of the store",
        "neither",
        "there is neither",
        "true",
        "false",
        "features_enabled.gateway|presigned_upload_.*",
        ("server-info: GET",),
    ),
)


def judge(found: Iterable[Difference], listed: Iterable[Listed] = LISTED) -> tuple[list[Difference], list[str]]:
    """Those differences that nothing lists, and what is listed and no longer occurs."""
    listed = tuple(listed)
    unused = {(number, ask) for number, kind in enumerate(listed) for ask in kind.asks}
    unlisted = []
    for difference in found:
        used = {(number, ask) for number, kind in enumerate(listed) for ask in kind.uses(difference)}
        unused -= used
        if not used:
            unlisted.append(difference)
    return unlisted, [f"{listed[number].what}: {ask}" for number, ask in sorted(unused)]


def render() -> str:
    """docs/mlflow-differences.md: what is listed, as a table."""
    intro = (
        "Scripts that call `mlflow` run unchanged: `MLFLOW_TRACKING_URI` names the server, and tracking, searches, data sets, artifacts and logged models"
        " work as they did. Some fifteen hundred requests, good and bad, are sent to `mlflow server` 3.17.2 and to this one, and their answers compared:"
        " status, error code, message and every field. These are the kinds of difference that remain; any other fails a test.\n"
    )
    rows = [(kind.what, kind.mlflow, kind.here, kind.why) for kind in LISTED]
    return "\n".join(["# Where answers differ from MLflow's\n", intro, table(("asked", "MLflow's server", "here", "because"), rows)])
