"""The data of lm-evaluation-harness's tasks: fetched like every dataset, and read from the volume alone."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kfp_finetune.datafiles import find_data_files, open_split
from kfp_finetune.errors import refuse
from kfp_finetune.sources.hub_address import is_hub_name

Locate = Callable[[str, str, str], Path]
"""Where the data lies that a task names by dataset, configuration and folder."""

WHAT = "evaluation.tasks"


def request_key(dataset: str, config: str, folder: str) -> str:
    """The data that a task asks for, as one text.

    Args:
        dataset: The dataset's name on the Hub.
        config: Its configuration; empty for the default one.
        folder: A folder of it; empty for all.
    """
    return " ".join([dataset, config, folder]).rstrip()


def fetching(root: Path, addresses: Mapping[str, str], noted: dict[str, str], used: set[str]) -> Locate:
    """A `Locate` that fetches what is not on the volume.

    Args:
        root: Of the workspace.
        addresses: Where a dataset lies, if not under its name on the Hub; by its name, or by name and configuration.
        noted: Receives where on the volume each lies, relative to the root, by `request_key`.
        used: Receives the names in `addresses` that were of use.
    """
    from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset

    def locate(dataset: str, config: str, folder: str) -> Path:
        wanted = request_key(dataset, config, folder)
        name = next((name for name in (wanted, dataset) if name in addresses), "")
        if not name and not is_hub_name(dataset):
            mend = f'Say where its data lies, evaluation.data={{"{dataset}": "s3://..."}}, or take the task out.'
            raise refuse(WHAT, f"a task whose data is {dataset!r}", "tasks whose data is a dataset on the Hub", mend)
        used.add(name)
        uri, on_hub = addresses.get(name, f"hf://{dataset}"), not name or addresses[name].startswith("hf://")
        others = [key for key in noted if key != wanted and key.partition(" ")[0] == dataset]
        if name and name != wanted and not on_hub and others:
            given = f"{uri} for {others[0]} and for {wanted}, which are different data"
            mend = f'Name each: {{"{others[0]}": ..., "{wanted}": ...}}.'
            raise refuse("evaluation.data", given, "an address for each configuration", mend)
        whole = uri + (f"/{folder}" if folder and on_hub else "")
        manifest = initialize_dataset(whole, str(root), config=config if on_hub else "")
        noted[wanted] = manifest.path
        return root / manifest.path

    return locate


def located(root: Path, noted: Mapping[str, str]) -> Locate:
    """A `Locate` that knows what `fetching` noted.

    Args:
        root: Of the workspace.
        noted: As it left it.
    """

    def locate(dataset: str, config: str, folder: str) -> Path:
        wanted = request_key(dataset, config, folder)
        if wanted not in noted:
            raise refuse(WHAT, f"a task that reads {wanted}", f"{', '.join(noted)}", "Plan the run again.")
        return root / noted[wanted]

    return locate


@contextmanager
def tasks_read_from(locate: Locate) -> Iterator[None]:
    """Has the harness's tasks read their data from the volume, for as long as the context lasts.

    They call `datasets.load_dataset`, and their own code does too; nothing of it reaches the network. Metrics that are
    code from the Hub are refused.

    Args:
        locate: Where the data lies.
    """
    import datasets
    import evaluate

    with ExitStack() as opened:

        def load_dataset(path: str, name: str | None = None, data_dir: str | None = None, **options: Any) -> Any:
            _refuse_files(path, options)
            directory = locate(path, name or "", data_dir or "")
            splits = find_data_files(directory).splits
            rows = {split: opened.enter_context(open_split(directory, split)) for split in splits}
            wanted = options.get("split")
            return datasets.DatasetDict(rows) if wanted is None else rows[wanted]

        def load_metric(name: str, *_: Any, **__: Any) -> Any:
            mend = "Take it out, or one that has its metrics in the harness."
            raise refuse(WHAT, f"a task whose metric {name} is code on the Hub", "tasks that load no code", mend)

        ours: list[tuple[Any, str, Any]] = [
            (datasets, "load_dataset", load_dataset),
            (evaluate, "load", load_metric),
        ]
        for module, name, function in ours:
            opened.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, function)
        yield


def _refuse_files(path: str, options: Mapping[str, Any]) -> None:
    if options.get("data_files"):
        given = f"a task that reads files of {path} by names of its own: {options['data_files']}"
        raise refuse(WHAT, given[:300], "tasks that read whole datasets", "Take it out.")
