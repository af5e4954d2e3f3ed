"""What a step came to, as a line of JSON in its log, for whoever reads that log from afar.

A line looks like `result {"step": "evaluate", "figures": {"loss_after": 1.2}, "files": {"report.html": "minio://..."}}`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

PREFIX = "result "

MANIFEST, EVALUATION = "manifest.json", "evaluation.json"
REPORT, TRAINING_REPORT, DATA_REPORT = "report.html", "training.html", "data.html"
COMPARISON, COMPARISON_REPORT = "comparison.json", "comparison.html"
FILES = (MANIFEST, EVALUATION, REPORT, TRAINING_REPORT, DATA_REPORT, COMPARISON, COMPARISON_REPORT)
"""Names that a result gives its files."""


@dataclass(frozen=True)
class Result:
    """What a step came to.

    Args:
        step: The step, in a word.
        figures: Numbers and short texts, by name.
        files: Addresses of KFP artifacts, by the names of `FILES`.
    """

    step: str
    figures: Mapping[str, float | str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def to_line(self) -> str:
        """The result as one line of text, without a line end."""
        return PREFIX + json.dumps(asdict(self))


def print_result(step: str, figures: Mapping[str, float | str], files: Mapping[str, str]) -> None:
    """Prints a step's result; see `Result`."""
    print(Result(step, figures, files).to_line(), flush=True)


def parse_result(line: str) -> Result | None:
    """Reads a line that `Result.to_line` wrote; None for any other line, which anything may have printed."""
    if not line.startswith(PREFIX + "{"):
        return None
    try:
        result = Result(**json.loads(line.removeprefix(PREFIX)))
        sound = (
            isinstance(result.step, str)
            and all(isinstance(figure, float | int | str) for figure in result.figures.values())
            and all(isinstance(address, str) and name in FILES for name, address in result.files.items())
        )
    except (ValueError, TypeError, AttributeError):
        return None
    return result if sound else None
