"""Measures the figures of the README: `make bench`, or `python -m benchmarks NAME ...` for some, such as `cluster`."""

import importlib
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

ALL = {
    "compile": "compile_time",
    "fetch": "fetch_time",
    "tokenize": "tokenize_speed",
    "packing": "packing_speed",
    "checkpoints": "checkpoint_cost",
    "sdk": "sdk_speed",
    "mfu": "mfu",
    "export": "export_time",
    "pipeline": "pipeline_time",
    "estimate": "estimate_error",
    "pairs": "pairs_memory",
    "scale": "scale",
    "reads": "start_reads",
}
"""Modules, imported in turn: fetch before those with torch, since a process begins with its parent's peak memory."""

ON_REQUEST = {"cluster": "cluster_time", "start": "start_time"}
"""What needs more than this machine: a KUBECONFIG with administrator rights."""

RESULTS = Path("build/bench.json")


def main() -> None:
    """Measures what the command line names, or everything, and prints the table."""
    known = ALL | ON_REQUEST
    unknown = [name for name in sys.argv[1:] if name not in known]
    if unknown:
        sys.exit(f"no benchmark is called {', '.join(unknown)}: choose of {', '.join(known)}")
    table = Table("Figure", "Value", "Goal", "Range", title=f"On {os.cpu_count()} CPU cores")
    results = []
    for name in sys.argv[1:] or ALL:
        with tempfile.TemporaryDirectory(prefix="kfp-finetune-bench-") as directory:
            module = importlib.import_module(f"benchmarks.{known[name]}")
            for figure in module.measure(Path(directory)):
                table.add_row(figure.name, figure.value, figure.bound, figure.spread)
                results.append(asdict(figure))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2))
    Console().print(table)


if __name__ == "__main__":
    main()
