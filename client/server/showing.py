"""A run on the server, shown to a person to its end."""

from rich.console import Console
from rich.markup import escape

from kfp_finetune.client.events import Event, LogLine
from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.following import Ended, follow
from kfp_finetune.client.server.runs import run_page
from kfp_finetune.client.view import RunView
from kfp_finetune.results import Result


def follow_and_show(server: Server, run_id: str, console: Console, logs: bool = False) -> Ended:
    """Follows a run and shows its steps, its progress and how it ended.

    Args:
        server: Kubeflow Pipelines.
        run_id: The run.
        console: Where to show it.
        logs: Whether to show every line that the steps print.

    Raises:
        UserError: If the run cannot be followed.
    """
    planned: dict[str, float | str] = {}
    with RunView(console) as view:

        def on_event(event: Event) -> None:
            if isinstance(event, Result):
                planned.update(event.figures if event.step == "plan" else {})
            elif logs or not isinstance(event, LogLine):
                view(event)

        try:
            ended = follow(server, run_id, on_event)
        except KeyboardInterrupt:
            console.print(f"the run goes on: kfp-finetune follow {run_id}, or stop {run_id}", soft_wrap=True)
            raise
    if ended.succeeded and planned.get("planned") == "done":
        console.print(f"[green]nothing to do[/green]: data and settings are those of {planned.get('export')}")
    elif ended.succeeded:
        told = f"[green]the run succeeded[/green]; kfp-finetune fetch {run_id} brings its report and figures"
        console.print(told, highlight=False, soft_wrap=True)
    else:
        _show_failure(server, run_id, console, ended, logs)
    return ended


def _show_failure(server: Server, run_id: str, console: Console, ended: Ended, logs: bool) -> None:
    if not logs:
        console.print(escape("\n".join(ended.last_lines)), highlight=False, soft_wrap=True)
    failed = f" in {', '.join(ended.failed_steps)}" if ended.failed_steps else ""
    told = f"[red]the run ended as {ended.state}{failed}[/red]: {run_page(server, run_id)}"
    console.print(told, highlight=False, soft_wrap=True)
