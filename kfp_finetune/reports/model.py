"""What a model is, from its configuration and the heads of its files."""

from collections.abc import Mapping, Sequence

from kfp_finetune.reports.numbers import number
from kfp_finetune.reports.page import Facts, Samples, page


def model_report(
    *,
    model: str,
    facts: Sequence[tuple[str, str]],
    parameters: int,
    dtypes: Mapping[str, int],
    files: Sequence[tuple[str, int]],
    config: Sequence[tuple[str, str]],
) -> str:
    """Render the report on a model.

    Args:
        model: Its name or address.
        facts: Its family, licence and source, each a name with its value.
        parameters: Their number; 0 if it is not known.
        dtypes: The number of parameters of each dtype.
        files: Names and bytes.
        config: What its configuration says of its shape, each a name with its value.

    Returns:
        An HTML page.
    """
    size = sum(count for _, count in files)
    figures = [("Parameters", number(parameters) if parameters else "not known"), ("Size", f"{number(size)} bytes")]
    figures += [(f"Parameters in {dtype}", number(count)) for dtype, count in dtypes.items()]
    return page(
        "Model",
        model,
        [
            Facts("Model", [*facts, *figures]),
            *([Facts("Shape", config)] if config else []),
            Samples("Files", ["File", "Bytes"], [[name, number(count)] for name, count in files]),
        ],
    )
