"""The process that runs a pipeline under `kfp.local`; `kfp_finetune.client.local` starts it and reads its output."""

import json
import sys
import warnings


def main() -> None:
    """Runs the pipeline named on the command line with the arguments given as JSON on stdin."""
    from kfp import local
    from kfp.components import load_component_from_file

    pipeline, root = sys.argv[1:]
    warnings.filterwarnings("ignore", message="You may be attemping to run a task that uses custom")
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=False)
    load_component_from_file(pipeline)(**json.load(sys.stdin))


if __name__ == "__main__":
    main()
