"""Runs a compiled pipeline by the command, as a user would."""

import json
import os
import subprocess
import sys
from pathlib import Path


def run_here(pipeline: Path, workspace: Path, **settings: object) -> subprocess.CompletedProcess:
    """Runs a pipeline to its end, without a cluster."""
    command = [str(Path(sys.executable).parent / "kfp-finetune"), "local", str(pipeline), "--workspace", str(workspace)]
    for name, value in settings.items():
        command += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)
