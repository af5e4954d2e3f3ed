"""Recurring runs: one of a name, replaced as a whole when it changes."""

import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import kfp_server_api

from kfp_finetune.client.server.calls import NotFoundError, ask, make, once
from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.lists import listed, named
from kfp_finetune.client.server.runs import experiment_id, reference
from kfp_finetune.client.server.uploads import OURS, Version
from kfp_finetune.errors import Problem, UserError, refuse

TIME_ZONE = "the server's time zone (UTC unless its administrator set CRON_SCHEDULE_TIMEZONE)"
"""Kubeflow Pipelines has one time zone for all its schedules, and does not tell which."""

CRON_FIELDS = 5
SHORTEST_SECONDS = 60


@dataclass(frozen=True)
class Trigger:
    """When runs begin: by a cron expression or at an interval.

    Args:
        cron: Minute, hour, day of the month, month and day of the week, or six fields with the second first; empty for
            an interval.
        interval_seconds: Seconds between two runs, at least 60; 0 for a cron expression.
    """

    cron: str = ""
    interval_seconds: int = 0

    def __str__(self) -> str:
        if self.cron:
            return f"cron {self.cron!r} (seconds first) in {TIME_ZONE}"
        return f"every {self.interval_seconds:,} seconds"


@dataclass(frozen=True)
class Schedule:
    """A recurring run on the server.

    Args:
        schedule_id: The server's id of it.
        name: Its name.
        trigger: When runs begin.
        enabled: Whether runs begin.
        max_concurrency: How many may run at once.
        arguments: The runs' parameters, by name.
        page: Address of its page.
    """

    schedule_id: str
    name: str
    trigger: Trigger
    enabled: bool
    max_concurrency: int
    arguments: Mapping[str, Any]
    page: str


def read_trigger(cron: str, interval_seconds: int) -> Trigger:
    """Reads when runs are to begin.

    Args:
        cron: See `Trigger`.
        interval_seconds: See `Trigger`.

    Raises:
        UserError: If not exactly one of the two is given, or it cannot be right.
    """
    problems = []
    if bool(cron.strip()) == bool(interval_seconds):
        given = "both" if interval_seconds else "neither"
        allowed = "one of cron (such as '0 3 * * *', every night at three) and every (such as 86400, seconds)"
        problems.append(Problem("when to run", given, allowed, "Give one of them."))
    elif interval_seconds and interval_seconds < SHORTEST_SECONDS:
        mend = "The server looks at its schedules once a minute."
        problems.append(Problem("every", str(interval_seconds), f"at least {SHORTEST_SECONDS} seconds", mend))
    fields = cron.split()
    if cron and len(fields) not in (CRON_FIELDS, CRON_FIELDS + 1):
        allowed = "five fields: minute, hour, day of the month, month and day of the week; or six, the second first"
        problems.append(Problem("cron", repr(cron), allowed, "An example: '30 2 * * 1', Mondays at half past two."))
    if problems:
        raise UserError(problems)
    # Of five fields the server takes the first for the second, and looks at no day of the week.
    return Trigger(" ".join(["0"] * (CRON_FIELDS + 1 - len(fields)) + fields) if cron else "", interval_seconds)


def set_schedule(
    server: Server,
    name: str,
    trigger: Trigger,
    version: Version,
    arguments: Mapping[str, Any],
    *,
    experiment: str,
    max_concurrency: int = 1,
    enabled: bool | None = None,
    service_account: str = "",
) -> Schedule:
    """Makes a schedule, in place of the one of the same name: the server would keep both.

    The new one is there before the old one goes; of two that are set at once the later stays. What was missed is not
    made up for (no catch-up).

    Args:
        server: Kubeflow Pipelines.
        name: The schedule's name.
        trigger: When runs begin.
        version: The pipeline's version.
        arguments: The runs' parameters, by name.
        experiment: Groups the runs in the UI; made if it is not there.
        max_concurrency: How many runs may be under way at once.
        enabled: Whether runs begin; None leaves it as it is, and enables a new one.
        service_account: As whom the steps run; empty for the server's default.

    Raises:
        UserError: If somebody else's recurring run has the name, or the server refuses it.
    """
    old = _ours(server, name)
    enabled = (not old or old[0].enabled) if enabled is None else enabled
    mark = f"{OURS} {version.name} {uuid.uuid4().hex[:8]}"
    body = kfp_server_api.V2beta1RecurringRun(
        display_name=name,
        description=mark,
        experiment_id=experiment_id(server, experiment),
        pipeline_version_reference=reference(version),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(arguments)),
        trigger=_as_asked(trigger),
        max_concurrency=max_concurrency,
        no_catchup=True,
        mode="ENABLE" if enabled else "DISABLE",
        service_account=service_account or None,
    )
    call = server.recurring_runs.recurring_run_service_create_recurring_run
    make(partial(once, "make the schedule", call, body), partial(_find_marked, server, name, mark))
    newest, *older = _ours(server, name)
    for schedule in older:
        _delete(server, schedule)
    return newest


def _find_marked(server: Server, name: str, mark: str) -> kfp_server_api.V2beta1RecurringRun | None:
    return next((found for found in _named(server, name) if found.description == mark), None)


def list_schedules(server: Server) -> list[Schedule]:
    """The schedules on the server that this library made, the newest first.

    Args:
        server: Kubeflow Pipelines.
    """
    return [_read(server, found) for found in _named(server, "") if _is_ours(found)]


def _named(server: Server, name: str) -> list[kfp_server_api.V2beta1RecurringRun]:
    """The recurring runs of a name, whoever made them, the newest first; of any name if it is empty."""
    call = server.recurring_runs.recurring_run_service_list_recurring_runs
    filtered = named(name) if name else ""
    found = listed("list the schedules", call, "recurring_runs", filter=filtered, namespace=server.namespace)
    return sorted(found, key=lambda one: (str(one.created_at), one.recurring_run_id), reverse=True)


def _is_ours(recurring: kfp_server_api.V2beta1RecurringRun) -> bool:
    return (recurring.description or "").startswith(f"{OURS} ")


def _ours(server: Server, name: str) -> list[Schedule]:
    """The schedules of a name, the newest first; somebody else's recurring run of that name is refused."""
    found = _named(server, name)
    foreign = [recurring.recurring_run_id for recurring in found if not _is_ours(recurring)]
    if foreign:
        raise refuse(
            "schedule",
            f"{name!r}, the name of a recurring run that was not made by {OURS}: {_page(server, foreign[0])}",
            "a name of its own",
            "Choose another name, or delete that one in the UI.",
        )
    return [_read(server, recurring) for recurring in found]


def enable_schedule(server: Server, name: str) -> None:
    """Lets runs begin again.

    Args:
        server: Kubeflow Pipelines.
        name: The schedule's name.

    Raises:
        UserError: If there is none of this name.
    """
    for schedule in _known(server, name):
        call = server.recurring_runs.recurring_run_service_enable_recurring_run
        ask("enable the schedule", call, schedule.schedule_id)


def disable_schedule(server: Server, name: str) -> None:
    """Lets no further run begin; those under way go on.

    Args:
        server: Kubeflow Pipelines.
        name: The schedule's name.

    Raises:
        UserError: If there is none of this name.
    """
    for schedule in _known(server, name):
        call = server.recurring_runs.recurring_run_service_disable_recurring_run
        ask("disable the schedule", call, schedule.schedule_id)


def delete_schedule(server: Server, name: str) -> None:
    """Removes a schedule; its runs stay.

    Args:
        server: Kubeflow Pipelines.
        name: The schedule's name.

    Raises:
        UserError: If there is none of this name.
    """
    for schedule in _known(server, name):
        _delete(server, schedule)


def _delete(server: Server, schedule: Schedule) -> None:
    call = server.recurring_runs.recurring_run_service_delete_recurring_run
    with suppress(NotFoundError):
        ask("delete the schedule", call, schedule.schedule_id)


def _known(server: Server, name: str) -> list[Schedule]:
    found = _ours(server, name)
    if not found:
        known = ", ".join(sorted({schedule.name for schedule in list_schedules(server)})) or "none"
        raise refuse("schedule", repr(name), f"one that is there: {known}", "See kfp-finetune schedule list.")
    return found


def _as_asked(trigger: Trigger) -> kfp_server_api.V2beta1Trigger:
    if trigger.cron:
        return kfp_server_api.V2beta1Trigger(cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=trigger.cron))
    return kfp_server_api.V2beta1Trigger(
        periodic_schedule=kfp_server_api.V2beta1PeriodicSchedule(interval_second=trigger.interval_seconds)
    )


def _read(server: Server, recurring: kfp_server_api.V2beta1RecurringRun) -> Schedule:
    by_cron, by_interval = recurring.trigger.cron_schedule, recurring.trigger.periodic_schedule
    return Schedule(
        schedule_id=recurring.recurring_run_id,
        name=recurring.display_name,
        trigger=Trigger(by_cron.cron if by_cron else "", int(by_interval.interval_second) if by_interval else 0),
        enabled=recurring.status == "ENABLED",
        max_concurrency=int(recurring.max_concurrency or 1),
        arguments=(recurring.runtime_config and recurring.runtime_config.parameters) or {},
        page=_page(server, recurring.recurring_run_id),
    )


def _page(server: Server, schedule_id: str) -> str:
    return server.page(f"/recurringrun/details/{schedule_id}")
