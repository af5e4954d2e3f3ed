"""The run that exports a model: its page, and where its volume can be found."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from kfp_finetune.errors import Problem
from kfp_finetune.sources.names import shown
from kfp_finetune.sources.redaction import redact
from kfp_finetune.workspace import MOUNT_PATH

WHAT = "ui_host"
UI_HOST = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~:/!$&'+,;=%-]*)?")
LONGEST_HOST = 200


@dataclass(frozen=True)
class ThisRun:
    """The run that exports.

    Args:
        run_id: Its id on Kubeflow Pipelines; empty for none.
        ui_host: Address of the Kubeflow Pipelines UI; empty if nobody said it.
        pipeline: Name of the pipeline.
        volume: Name of the PersistentVolumeClaim.
    """

    run_id: str = ""
    ui_host: str = ""
    pipeline: str = ""
    volume: str = ""

    @property
    def page(self) -> str:
        """Address of its page; empty if that is not known."""
        if not self.run_id or not self.ui_host or check_ui_host(self.ui_host):
            return ""
        return f"{self.ui_host.rstrip('/')}/#/runs/details/{quote(self.run_id, safe='')}"

    def volume_address(self, workspace: str | Path) -> str:
        """The volume as KServe finds it; empty for a folder that is no volume of a cluster.

        Args:
            workspace: Where it is mounted.
        """
        return f"pvc://{self.volume}" if self.volume and Path(workspace) == Path(MOUNT_PATH) else ""


def check_ui_host(ui_host: str) -> list[Problem]:
    """What is wrong with the address of the Kubeflow Pipelines UI.

    Args:
        ui_host: What the user gave; empty for none.
    """
    if not ui_host or (UI_HOST.fullmatch(ui_host) and len(ui_host) <= LONGEST_HOST):
        return []
    allowed = "an address with http:// or https:// and nothing secret, such as https://kubeflow.example.com/pipeline"
    mend = "Copy it from the browser, without what follows the #, or leave it out: it is only for the link to the run."
    return [Problem(WHAT, f"{shown(redact(ui_host))}", allowed, mend)]
