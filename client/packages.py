"""The compiled pipelines that come with this library."""

from pathlib import Path

from kfp_finetune.errors import refuse

PIPELINES = Path(__file__).parent.parent / "pipelines"
DEFAULT = "torchtune_finetune"


def find_package(given: str) -> Path:
    """The file of a compiled pipeline.

    Args:
        given: A path to one, or the name of one that comes with this library.

    Raises:
        UserError: If it is neither.
    """
    for path in Path(given), PIPELINES / given.replace("-", "_") / "pipeline.yaml":
        if path.is_file():
            return path
    known = ", ".join(sorted(path.parent.name for path in PIPELINES.glob("*/pipeline.yaml")))
    raise refuse("pipeline", repr(given), f"a compiled pipeline.yaml, or one of {known}", "Check the path.")
