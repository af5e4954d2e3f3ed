"""Measures the figures of the README: `make bench`, or `python -m benchmarks NAME ...` for some, such as `cluster`."""

import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import cluster_time, compile_time, export_time, fetch_time, packing_speed, pipeline_time, tokenize_speed

ALL = {
    "compile": compile_time.measure,
    "tokenize": tokenize_speed.measure,
    "packing": packing_speed.measure,
    "fetch": fetch_time.measure,
    "export": export_time.measure,
    "pipeline": pipeline_time.measure,
}
ON_REQUEST = {"cluster": cluster_time.measure}
"""What needs more than this machine: a KUBECONFIG with administrator rights."""

RESULTS = Path("build/bench.json")


def main() -> None:
    """Measures what the command line names, or everything, and prints the table."""
    table = Table("Figure", "Value", "Goal", "Range", title=f"On {os.cpu_count()} CPU cores")
    results = []
    for name in sys.argv[1:] or ALL:
        with tempfile.TemporaryDirectory(prefix="kfp-finetune-bench-") as directory:
            for figure in (ALL | ON_REQUEST)[name](Path(directory)):
                table.add_row(figure.name, figure.value, figure.bound, figure.spread)
                results.append(asdict(figure))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2))
    Console().print(table)


if __name__ == "__main__":
    main()
