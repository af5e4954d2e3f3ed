"""The commands `kfp-finetune schedule ...`."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kfp_finetune.client.packages import DEFAULT
from kfp_finetune.client.server.commands import (
    AsJson,
    Assignments,
    CaFile,
    Experiment,
    Host,
    Namespace,
    Package,
    ServiceAccount,
    TokenFile,
    UiHost,
    ValuesFile,
    connect_to,
    show,
)
from kfp_finetune.errors import clear_errors

schedules = typer.Typer(help="Recurring fine-tunes.", no_args_is_help=True)
console = Console()

ScheduleName = Annotated[str, typer.Argument(help="The schedule's name.")]


@schedules.command("set")
def set_command(
    name: ScheduleName,
    pipeline: Package = DEFAULT,
    cron: Annotated[str, typer.Option(help="Minute, hour, day, month, day of the week, such as '0 3 * * *'.")] = "",
    every: Annotated[int, typer.Option(help="Seconds between two runs, instead of cron.")] = 0,
    set_: Assignments = [],  # noqa: B006
    file: ValuesFile = None,
    max_concurrency: Annotated[int, typer.Option(min=1, max=10, help="Runs that may be under way at once.")] = 1,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Whether runs begin; else it stays as it is.")
    ] = None,
    experiment: Experiment = "",
    service_account: ServiceAccount = "",
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = "",
    ca_file: CaFile = "",
    ui_host: UiHost = "",
    as_json: AsJson = False,
) -> None:
    """Makes a schedule, or replaces the one of this name; its runs are the series NAME unless --set name says other."""
    from kfp_finetune.client.given import read_values_file
    from kfp_finetune.client.server.launching import prepare
    from kfp_finetune.client.server.schedules import read_trigger, set_schedule
    from kfp_finetune.client.server.uploads import upload

    with clear_errors():
        trigger = read_trigger(cron, every)
        prepared = prepare(pipeline, read_values_file(file) if file else {}, set_, series=name)
        server = connect_to(host, namespace, token_file, ca_file, ui_host)
        schedule = set_schedule(
            server,
            name,
            trigger,
            upload(server, prepared.package),
            prepared.arguments_for(server),
            experiment=experiment or name,
            max_concurrency=max_concurrency,
            enabled=enabled,
            service_account=service_account,
        )
    state = "enabled" if schedule.enabled else "disabled"
    show(asdict(schedule), f"schedule {name}, {schedule.trigger}, is {state}: {schedule.page}", as_json)


@schedules.command("list")
def list_command(
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = "",
    ca_file: CaFile = "",
    ui_host: UiHost = "",
    as_json: AsJson = False,
) -> None:
    """Shows the schedules."""
    from kfp_finetune.client.server.schedules import list_schedules

    with clear_errors():
        found = list_schedules(connect_to(host, namespace, token_file, ca_file, ui_host))
    if as_json:
        show([asdict(schedule) for schedule in found], "", as_json)
        return
    table = Table("Name", "When", "State", "Parameters", box=None, padding=(0, 2, 0, 0))
    for schedule in found:
        given = " ".join(f"{name}={value}" for name, value in schedule.arguments.items())
        state = "enabled" if schedule.enabled else "disabled"
        table.add_row(*map(escape, (schedule.name, str(schedule.trigger), state, given)))
    console.print(table if found else "no schedules")


@schedules.command("enable")
def enable_command(
    name: ScheduleName,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = "",
    ca_file: CaFile = "",
    ui_host: UiHost = "",
    as_json: AsJson = False,
) -> None:
    """Lets runs begin again."""
    from kfp_finetune.client.server.schedules import enable_schedule

    with clear_errors():
        enable_schedule(connect_to(host, namespace, token_file, ca_file, ui_host), name)
    show({"name": name, "enabled": True}, f"schedule {name} is enabled", as_json)


@schedules.command("disable")
def disable_command(
    name: ScheduleName,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = "",
    ca_file: CaFile = "",
    ui_host: UiHost = "",
    as_json: AsJson = False,
) -> None:
    """Lets no further run begin; those under way go on."""
    from kfp_finetune.client.server.schedules import disable_schedule

    with clear_errors():
        disable_schedule(connect_to(host, namespace, token_file, ca_file, ui_host), name)
    show({"name": name, "enabled": False}, f"schedule {name} is disabled", as_json)


@schedules.command("delete")
def delete_command(
    name: ScheduleName,
    host: Host = "",
    namespace: Namespace = "",
    token_file: TokenFile = "",
    ca_file: CaFile = "",
    ui_host: UiHost = "",
    as_json: AsJson = False,
) -> None:
    """Deletes a schedule; its runs stay."""
    from kfp_finetune.client.server.schedules import delete_schedule

    with clear_errors():
        delete_schedule(connect_to(host, namespace, token_file, ca_file, ui_host), name)
    show({"name": name, "deleted": True}, f"schedule {name} is deleted", as_json)
