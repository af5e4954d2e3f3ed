"""What a training is expected to need, as a table over kinds of GPU."""

from kfp_finetune.reports.page import Figures
from kfp_finetune.training.forecast import FILLED, UTILISATION, Forecast, table, warn


def forecast_block(forecast: Forecast) -> Figures:
    """The table, with what it rests on below it.

    Args:
        forecast: The forecast.
    """
    columns, rows = table(forecast)
    gpus = "one GPU" if forecast.processes == 1 else f"{forecast.processes} GPUs"
    rests = (
        f"An estimate for {gpus} and rows of up to {forecast.tokens_a_row:,} tokens. It takes {UTILISATION:.0%} of a "
        f"GPU's peak to be reached, and fits where {FILLED:.0%} of its memory is enough."
    )
    return Figures("Will it fit?", columns, rows, " ".join([*warn(forecast), rests]))
