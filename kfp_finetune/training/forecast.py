"""What a training is expected to need of a GPU, and how long an epoch lasts there."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kfp_finetune.gpus import GPUS, Gpu

UTILISATION = 0.35
"""Share of a GPU's peak that a training is taken to reach. Pretraining of large models reaches 0.46 (Chowdhery et al.,
2022, PaLM, section 4.1); a fine-tuning has smaller batches, and torchtune computes norms, rotations and adapters one by
one. An assumption, not measured on a GPU: compiled models may reach more, small models and short rows less."""

FILLED = 0.9
"""Share of a GPU's memory that is planned for, as when a training chooses its batches; the rest is lost between the
blocks of torch's allocator and to short peaks."""

SHOWN = ("L4", "A100 80GB", "H100")
"""GPUs whose times the log tells, of a small, a large and a fast kind; the page has all."""


@dataclass(frozen=True)
class Way:
    """One way to read the rows of an update.

    Args:
        batch_size: Rows at once, on each process.
        gradient_accumulation_steps: Batches of an update.
        enable_activation_checkpointing: Whether activations are computed again in the backward pass.
        memory_gib: What each process needs.
        tokens_an_epoch: Tokens that all processes compute with, padding included; 0 if the rows are not known.
        flops_an_epoch: Floating-point operations of all processes together.
    """

    batch_size: int
    gradient_accumulation_steps: int
    enable_activation_checkpointing: bool
    memory_gib: float
    tokens_an_epoch: int
    flops_an_epoch: float

    def __str__(self) -> str:
        return f"{self.batch_size}{' with checkpointing' * self.enable_activation_checkpointing}"


@dataclass(frozen=True)
class Outlook:
    """A training on one kind of GPU.

    Args:
        gpu: Its kind.
        way: The fastest that its memory is enough for, or else the one that needs least.
        fits: Whether it is enough.
        seconds_an_epoch: How long an epoch lasts; None if it does not fit or that cannot be told.
    """

    gpu: Gpu
    way: Way
    fits: bool
    seconds_an_epoch: float | None


@dataclass(frozen=True)
class Forecast:
    """What is expected of a training, whatever the GPU.

    Args:
        ways: To read the rows, the fastest first; the machine that trains chooses among them.
        tokens_a_row: Tokens of the longest.
        processes: One for each GPU.
        dtype: Of the matrices.
    """

    ways: Sequence[Way]
    tokens_a_row: int
    processes: int
    dtype: Literal["bf16", "fp32"]

    def on(self, gpu: Gpu) -> Outlook:
        """What to expect on one kind of GPU.

        Args:
            gpu: Its kind.
        """
        fitting = [way for way in self.ways if way.memory_gib <= FILLED * gpu.memory_gib]
        way = fitting[0] if fitting else min(self.ways, key=lambda way: way.memory_gib)
        peak = gpu.tflops(self.dtype)
        if not fitting or not peak or not way.tokens_an_epoch:
            return Outlook(gpu, way, bool(fitting), None)
        return Outlook(gpu, way, True, way.flops_an_epoch / (peak * 1e12 * UTILISATION * self.processes))

    def outlooks(self) -> list[Outlook]:
        """What to expect on each kind of GPU, the smallest memory first."""
        return [self.on(gpu) for gpu in GPUS]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "ways": [asdict(way) for way in self.ways]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Forecast":
        """Reads what `to_dict` gave."""
        return cls(**{**values, "ways": [Way(**way) for way in values["ways"]]})


def describe(forecast: Forecast) -> list[str]:
    """A forecast in a few lines, for the log, the last of them a warning if no GPU is large enough.

    Args:
        forecast: The forecast.
    """
    outlooks = forecast.outlooks()
    gpus = "one GPU" if forecast.processes == 1 else f"each of {forecast.processes} GPUs"
    needs = [f"{way.memory_gib:.1f} GiB (rows at once: {way})" for way in _ends(forecast.ways)]
    smallest = [f"smallest GPU that fits: {outlook.gpu.name}" for outlook in outlooks if outlook.fits][:1]
    times = [
        f"{duration(outlook.seconds_an_epoch)} on {outlook.gpu.name}"
        for outlook in outlooks
        if outlook.gpu.name in SHOWN and outlook.seconds_an_epoch
    ]
    return [
        "; ".join([f"expected on {gpus}: {', or '.join(needs)}", *smallest]),
        *([f"expected time of an epoch: {', '.join(times)}"] if times else []),
        *warn(forecast),
    ]


def _ends(ways: Sequence[Way]) -> list[Way]:
    return [ways[0], ways[-1]] if len(ways) > 1 else [ways[0]]


def warn(forecast: Forecast) -> list[str]:
    """A line that says what to do if not even the largest GPU is large enough; none if one is.

    Args:
        forecast: The forecast.
    """
    largest = GPUS[-1]
    outlook = forecast.on(largest)
    if outlook.fits:
        return []
    mends = [
        *([] if outlook.way.enable_activation_checkpointing else ["set enable_activation_checkpointing to true"]),
        *(["lower batch_size, or leave it at 0"] if outlook.way.batch_size > 1 else []),
        "lower max_seq_len",
        "train an adapter (qlora needs least, where there is one)",
        "share the model among more processes (num_procs_per_node, num_nodes)",
    ]
    least = (
        f"at least {outlook.way.memory_gib:.0f} GiB on each GPU, where a {largest.name} has {largest.memory_gib:.0f}"
    )
    return [f"warning: this is expected to need {least}: {'; '.join(mends)}"]


def duration(seconds: float) -> str:
    """Seconds in words, with as much of them as an estimate is worth.

    >>> duration(3.2), duration(100), duration(9000), duration(400_000)
    ('3 s', '2 min', '2.5 h', '4.6 days')
    """
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def table(forecast: Forecast) -> tuple[list[str], list[list[str]]]:
    """What to expect on each kind of GPU: the columns' headings, and the cells of each row.

    Args:
        forecast: The forecast.
    """
    columns = ["GPU", "Needs", "Has", "Fits", "Rows at once", "An epoch"]
    return columns, [
        [
            outlook.gpu.name,
            f"{outlook.way.memory_gib:.1f} GiB",
            f"{outlook.gpu.memory_gib:.1f} GiB",
            "yes" if outlook.fits else "no",
            str(outlook.way) if outlook.fits else "",
            duration(outlook.seconds_an_epoch) if outlook.seconds_an_epoch else "",
        ]
        for outlook in forecast.outlooks()
    ]
