"""A run on the server, shown to a person to its end."""

from rich.console import Console
from rich.markup import escape

from kfp_finetune.client.events import Event, LogLine
from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.following import Ended, follow
from kfp_finetune.client.server.runs import run_page
from kfp_finetune.client.view import RunView


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
    with RunView(console) as view:

        def on_event(event: Event) -> None:
            if logs or not isinstance(event, LogLine):
                view(event)

        ended = follow(server, run_id, on_event)
    if ended.succeeded:
        console.print(f"[green]the run succeeded[/green]; kfp-finetune fetch {run_id} brings its report and figures")
        return ended
    if not logs:
        console.print(escape("\n".join(ended.last_lines)), highlight=False)
    failed = f" in {', '.join(ended.failed_steps)}" if ended.failed_steps else ""
    console.print(f"[red]the run ended as {ended.state}{failed}[/red]: {run_page(server, run_id)}", highlight=False)
    return ended
