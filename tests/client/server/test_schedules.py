"""Schedules: one of a name, replaced as a whole."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from remote_runs import GIVEN, PIPELINE
from servers import kfp
from servers.kfp import faults

from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.schedules import (
    Trigger,
    delete_schedule,
    disable_schedule,
    enable_schedule,
    list_schedules,
    read_trigger,
    set_schedule,
)
from kfp_finetune.client.server.uploads import upload
from kfp_finetune.errors import UserError

NIGHTLY = read_trigger("0 3 * * *", 0)


def put(server: Server, name: str = "nightly", trigger: Trigger = NIGHTLY, **more: int) -> str:
    arguments = {**GIVEN, **more}
    return set_schedule(server, name, trigger, upload(server, PIPELINE), arguments, experiment=name).schedule_id


@pytest.mark.parametrize(
    ("cron", "every", "trigger"),
    [
        ("0 3 * * *", 0, Trigger("0 0 3 * * *", 0)),
        (" 30  2 * * 1 ", 0, Trigger("0 30 2 * * 1", 0)),
        ("15 30 2 * * 1", 0, Trigger("15 30 2 * * 1", 0)),
        ("", 3600, Trigger("", 3600)),
    ],
)
def test_a_trigger_has_six_fields_or_an_interval(cron: str, every: int, trigger: Trigger) -> None:
    assert read_trigger(cron, every) == trigger


@pytest.mark.parametrize(
    ("cron", "every", "wrong"),
    [
        ("", 0, "when to run: given neither"),
        ("0 3 * * *", 60, "when to run: given both"),
        ("", 59, "every: given 59"),
        ("", -5, "every: given -5"),
        ("0 3 * *", 0, "cron: given '0 3"),
        ("daily", 0, "cron: given 'daily'"),
    ],
)
def test_what_cannot_be_a_trigger_is_refused(cron: str, every: int, wrong: str) -> None:
    with pytest.raises(UserError, match=wrong):
        read_trigger(cron, every)


def test_a_schedule_runs_one_at_a_time_and_makes_up_for_nothing(server: Server, remote: kfp.Server) -> None:
    put(server, epochs=2)
    (schedule,) = list_schedules(server)
    assert (schedule.name, schedule.trigger, schedule.enabled) == ("nightly", NIGHTLY, True)
    assert "in the server's time zone (UTC unless" in str(schedule.trigger)
    assert schedule.arguments == {**GIVEN, "epochs": 2} and schedule.max_concurrency == 1
    (kept,) = remote.store.schedules.values()
    assert kept["no_catchup"] is True


def test_a_new_one_takes_the_place_of_all_of_its_name(server: Server, remote: kfp.Server) -> None:
    put(server, "other")
    old = put(server)
    remote.store.schedules["twin"] = remote.store.schedules[old] | {"recurring_run_id": "twin"}
    second = put(server, trigger=read_trigger("", 3600))
    assert [
        (schedule.name, schedule.schedule_id) for schedule in list_schedules(server) if schedule.name == "nightly"
    ] == [("nightly", second)]
    assert len(list_schedules(server)) == 2


@pytest.mark.parametrize("fault", [faults.lose_answer, faults.cut, faults.deny_what_was_done])
def test_a_lost_answer_leaves_one(server: Server, remote: kfp.Server, fault: faults.Fault) -> None:
    first = put(server)
    remote.fail("POST", "/recurringruns$", fault)
    second = put(server)
    assert [schedule.schedule_id for schedule in list_schedules(server)] == [second] != [first]


def test_the_old_one_stays_while_the_new_one_is_refused(server: Server) -> None:
    first = put(server)
    with pytest.raises(UserError, match="make the schedule: given what the server refuses"):
        put(server, trigger=Trigger("0 61 99 * * *"))
    assert [schedule.schedule_id for schedule in list_schedules(server)] == [first]


def test_it_is_disabled_enabled_and_deleted_by_name(server: Server) -> None:
    put(server)
    disable_schedule(server, "nightly")
    assert not list_schedules(server)[0].enabled
    enable_schedule(server, "nightly")
    assert list_schedules(server)[0].enabled
    delete_schedule(server, "nightly")
    assert not list_schedules(server)
    for change in enable_schedule, disable_schedule, delete_schedule:
        with pytest.raises(UserError, match="schedule: given 'nightly'; allowed: one that is there: none"):
            change(server, "nightly")


def test_its_runs_have_its_parameters(server: Server, remote: kfp.Server) -> None:
    run = remote.fire(put(server, epochs=3))
    assert run.to_json()["runtime_config"]["parameters"] == {**GIVEN, "epochs": 3}


def test_somebody_else_s_recurring_run_of_the_name_is_left_alone(server: Server, remote: kfp.Server) -> None:
    kept = put(server, "ours")
    theirs = remote.store.schedules[kept] | {"recurring_run_id": "theirs", "display_name": "nightly"}
    remote.store.schedules["theirs"] = {name: value for name, value in theirs.items() if name != "description"}
    changes = [
        lambda: put(server),
        *(partial(change, server, "nightly") for change in (disable_schedule, delete_schedule)),
    ]
    for change in changes:
        with pytest.raises(UserError, match="the name of a recurring run that was not made by kfp-finetune"):
            change()
    assert set(remote.store.schedules) == {kept, "theirs"}
    assert [schedule.schedule_id for schedule in list_schedules(server)] == [kept]


def test_of_several_that_are_set_at_once_one_stays(server: Server) -> None:
    version = upload(server, PIPELINE)
    with ThreadPoolExecutor(4) as pool:
        for done in [
            pool.submit(set_schedule, server, "nightly", NIGHTLY, version, GIVEN, experiment="nightly")
            for _ in range(8)
        ]:
            done.result()
    assert len(list_schedules(server)) == 1


def test_a_disabled_one_stays_disabled_when_it_changes(server: Server) -> None:
    put(server)
    disable_schedule(server, "nightly")
    put(server, epochs=2)
    (schedule,) = list_schedules(server)
    assert not schedule.enabled and schedule.arguments["epochs"] == 2
