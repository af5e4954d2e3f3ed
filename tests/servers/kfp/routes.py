"""The API's calls: what each looks at, and in which words it refuses."""

import json
import re
from collections.abc import Callable
from typing import Any

from servers.kfp.calls import Call
from servers.kfp.faults import Reply
from servers.kfp.listing import page_of
from servers.kfp.refusals import Refusal, during, failing, invalid, not_found
from servers.kfp.runs import Run
from servers.kfp.specs import check_parameters, check_trigger, read_pipeline
from servers.kfp.store import Item

Answer = Item | Reply

WAYS_IN = (
    "github.com/kubeflow/pipelines/backend/src/apiserver/server.(*PipelineUploadServer)",
    "net/http.HandlerFunc.ServeHTTP\n\tnet/http/server.go:2286",
)


def get_health(call: Call) -> Answer:
    unknown = {"commit_sha": "unknown", "tag_name": "unknown"}
    return unknown | {"multi_user": call.access.multi_user, "pipeline_store": "database"}


# Pipelines and versions


def _get_pipeline(call: Call, key: str) -> Item:
    if key not in call.store.pipelines:
        with during(f"Failed to get a pipeline with id {key}"):
            raise not_found("Pipeline", key)
    return call.store.pipelines[key]


def _check_pipeline(call: Call, key: str, verb: str) -> Item:
    pipeline = _get_pipeline(call, key)
    call.access.check_pipeline(call.headers, pipeline.get("namespace", ""), verb, key)
    return pipeline


def list_pipelines(call: Call) -> Answer:
    with during(f"Failed to list pipelines in namespace {call.namespace}. Check error stack"):
        call.access.check_pipeline(call.headers, call.namespace, "list")
        inside = [each for each in call.store.pipelines.values() if each.get("namespace", "") == call.namespace]
        return page_of(inside, call.query, "pipelines", "pipeline_id")


def get_pipeline(call: Call) -> Answer:
    with during(f"Failed to get a pipeline {call.named['pipeline']}. Check error stack"):
        return _check_pipeline(call, call.named["pipeline"], "get")


def get_pipeline_by_name(call: Call) -> Answer:
    name, namespace = call.named["name"], call.namespace
    with during(f"Failed to get a pipeline with name {name} and namespace {namespace}. Check error stack."):
        call.access.check_pipeline(call.headers, namespace, "get")
        for pipeline in call.store.pipelines.values():
            if pipeline["name"] == name and pipeline.get("namespace", "") == namespace:
                return pipeline
        raise not_found("Pipeline", name)


def delete_pipeline(call: Call) -> Answer:
    key = call.named["pipeline"]
    with during(f"Failed to delete pipeline {key}. Check error stack"):
        _check_pipeline(call, key, "delete")
        versions = call.store.versions_of(key)
        if versions and call.query.get("cascade") != "true":
            example = versions[0]["pipeline_version_id"]
            why = f"as it has existing pipeline versions (e.g. {example}). Set cascade=true to delete all versions"
            raise invalid(f"Failed to delete pipeline with id {key} {why}")
        for version in versions:
            del call.store.versions[version["pipeline_version_id"]]
        del call.store.pipelines[key]
        return {}


def list_versions(call: Call) -> Answer:
    key = call.named["pipeline"]
    with during(f"Failed to list pipeline versions for pipeline {key}"):
        _check_pipeline(call, key, "list")
        return page_of(call.store.versions_of(key), call.query, "pipeline_versions", "pipeline_version_id")


def _check_version(call: Call, verb: str) -> Item:
    key = call.named["version"]
    version = call.store.versions.get(key)
    if version is None or version["pipeline_id"] != call.named["pipeline"]:
        with during(f"Failed to get a pipeline version with id {key}"):
            raise not_found("PipelineVersion", key)
    _check_pipeline(call, version["pipeline_id"], verb)
    return version


def get_version(call: Call) -> Answer:
    with during(f"Failed to get a pipeline version {call.named['version']}"):
        return _check_version(call, "get")


def delete_version(call: Call) -> Answer:
    key, pipeline = call.named["version"], call.named["pipeline"]
    with during(f"Failed to delete a pipeline version id {key} under pipeline id {pipeline}. Check error stack"):
        _check_version(call, "delete")
        del call.store.versions[key]
        return {}


def upload_pipeline(call: Call) -> Answer:
    try:
        name = call.query.get("name") or call.upload()[0]
        with during("Failed to create a pipeline due to authorization error"), during("Authorization Failure"):
            if call.namespace:
                call.access.check(call.headers, call.namespace, "create", "pipelines")
        return call.store.add_pipeline(name, call.query.get("description", ""), call.namespace, _read_upload(call))
    except Refusal as refusal:
        return _refuse_upload(refusal, "Failed to create a pipeline and a pipeline version")


def upload_version(call: Call) -> Answer:
    try:
        name, pipeline = call.query.get("name") or call.upload()[0], call.query["pipelineid"]
        with during("Failed to create a pipeline version due to error reading namespace"):
            namespace = _get_pipeline(call, pipeline).get("namespace", "")
        with during("Failed to create a pipeline version due to authorization error"), during("Authorization Failure"):
            if namespace:
                call.access.check(call.headers, namespace, "create", "pipelines")
        return call.store.add_version(pipeline, name, call.query.get("description", ""), _read_upload(call))
    except Refusal as refusal:
        return _refuse_upload(refusal, "Failed to create a pipeline version")


def _read_upload(call: Call) -> Item:
    name, content = call.upload()
    if not name.endswith((".yaml", ".yml")):
        raise invalid("Unexpected pipeline file format. Support .zip, .tar.gz, .json or YAML")
    return read_pipeline(content)


def _refuse_upload(refusal: Refusal, what: str) -> Reply:
    """Uploads do not pass the gateway of gRPC; they are refused in words of their own."""
    status = refusal.status if refusal.status == 409 else 400
    said = what if status == 409 else refusal.cause if "unknown" in refusal.cause else refusal.message
    return _refuse_plainly(status, said)


def _refuse_plainly(status: int, message: str) -> Reply:
    details = "\n".join((message, *WAYS_IN))
    return Reply(status, json.dumps({"error_message": message, "error_details": details}).encode())


# Experiments


def list_experiments(call: Call) -> Answer:
    with during("List experiments failed"):
        with during("Failed to authorize with API"):
            call.access.check_experiment(call.headers, call.namespace, "list")
        inside = [each for each in call.store.experiments.values() if each.get("namespace", "") == call.namespace]
        return page_of(inside, call.query, "experiments", "experiment_id")


def create_experiment(call: Call) -> Answer:
    asked = call.asked
    namespace = asked.get("namespace", "") if call.access.multi_user else ""
    with during("Failed to create a experiment"):
        with during("Failed to authorize the request"):
            call.access.check_experiment(call.headers, namespace, "create")
        return call.store.add_experiment(asked.get("display_name", ""), asked.get("description", ""), namespace)


def _get_experiment(call: Call, key: str) -> Item:
    if key not in call.store.experiments:
        raise not_found("Experiment", key)
    return call.store.experiments[key]


def get_experiment(call: Call) -> Answer:
    with during("Failed to fetch experiment"):
        experiment = _get_experiment(call, call.named["experiment"])
        with during("Failed to authorize the request"):
            call.access.check_experiment(call.headers, experiment.get("namespace", ""), "get")
        return experiment


def _find_owner(call: Call, kind: str) -> Item:
    """The experiment of what is to be made."""
    with during(f"Failed to create a {kind} due to invalid experimentId and namespace combination"):
        key = call.asked.get("experiment_id", "")
        if key:
            with during(f"Failed to fetch namespace for experiment {key}"):
                return _get_experiment(call, key)
        if call.access.multi_user:
            raise invalid("Experiment id can not be empty in multi-user mode")
        return call.store.default_experiment()


def _find_namespace(call: Call, kind: str) -> str:
    """The namespace of what is to be listed."""
    key = call.query.get("experiment_id", "")
    if not key:
        return call.namespace
    hint = "Try filtering based on namespace"
    with during(f"Failed to list {kind}s due to error fetching namespace for experiment {key}. {hint}"):
        return _get_experiment(call, key).get("namespace", "")


# Runs


def list_runs(call: Call) -> Answer:
    with during("Failed to list runs"):
        namespace, key = _find_namespace(call, "run"), call.query.get("experiment_id", "")
        hint = f"Check if you have permission to access namespace {namespace}"
        with during(f"Failed to list runs due to authorization error. {hint}"):
            call.access.check_run(call.headers, namespace, "list")
        runs = [run for run in call.store.runs.values() if run.namespace == namespace]
        inside = [run.to_json() for run in runs if key in ("", run.shown["experiment_id"])]
        return page_of(inside, call.query, "runs", "run_id")


def create_run(call: Call) -> Answer:
    asked = call.asked
    with during("Failed to create a new run"):
        if not asked.get("display_name"):
            with during("Failed to create a run due to invalid name"):
                raise invalid("The run name is empty. Please specify a valid name")
        experiment = _find_owner(call, "run")
        namespace = experiment.get("namespace", "")
        hint = f"Check if you have write permissions to namespace {namespace}"
        with during(f"Failed to create a run due to authorization error. {hint}"):
            call.access.check_run(call.headers, namespace, "create")
        with failing("Failed to create a run due to error fetching manifest"):
            source = call.store.resolve_source(asked)
        with during("Failed to generate the ExecutionSpec"), during("invalid pipeline job inputs"):
            check_parameters(source[0], asked.get("runtime_config", {}).get("parameters", {}))
        return call.store.add_run(asked, experiment, source).to_json()


def _check_run(call: Call, verb: str, what: str = "") -> Run:
    """The run that the path names, if the user may do this with it; `what` is said when there is none."""
    key = call.named["run"]
    run = call.store.runs.get(key)
    context = what or "Failed to authorize the request"
    if run is None:
        missing = f"Failed to fetch run {key}: ResourceNotFoundError: Run {key} not found"
        outer = f"Failed to authorize the request: Failed to authorize with the run ID {key}: "
        message = f"{outer if call.access.multi_user else f'{what}: ' if what else ''}{missing}"
        raise Refusal(not_found("Run", key).code, message, f"Run {key} not found")
    with during("Failed to authorize the request" if call.access.multi_user else context):
        call.access.check_run(call.headers, run.namespace, verb, run.id)
    return run


def get_run(call: Call) -> Answer:
    with during("Failed to get a run"):
        return _check_run(call, "get").to_json()


def terminate_run(call: Call) -> Answer:
    key = call.named["run"]
    with during("Failed to terminate a run"):
        run = _check_run(call, "terminate", f"Failed to terminate run {key} due to error fetching the run")
        if run.state not in ("PENDING", "RUNNING", "PAUSED"):
            with during(f"Failed to terminate run {key}"):
                raise invalid(f"Failed to terminate run {key}. Row not found")
        run.terminate()
        return {}


def retry_run(call: Call) -> Answer:
    key = call.named["run"]
    with during("Failed to retry a run"):
        run = _check_run(call, "retry", f"Failed to retry run {key} due to error fetching the run")
        if run.state != "FAILED":
            cause = "Workflow must be Failed/Error to retry"
            raise Refusal(10, f"Failed to retry run {key}: BadRequestError: {cause}: workflow cannot be retried", cause)
        run.retry()
        return {}


def archive_run(call: Call) -> Answer:
    key = call.named["run"]
    with during("Failed to archive a run"):
        run = _check_run(call, "archive", f"Failed to archive run {key} as it failed to be retrieved")
        run.storage_state = "ARCHIVED"
        return {}


def unarchive_run(call: Call) -> Answer:
    key = call.named["run"]
    with during("Failed to unarchive a run"):
        run = _check_run(call, "unarchive", f"Failed to unarchive run {key} as it does not exist")
        run.storage_state = "AVAILABLE"
        return {}


def delete_run(call: Call) -> Answer:
    key = call.named["run"]
    with during("Failed to delete a run"):
        _check_run(call, "delete", f"Failed to delete run {key} as it does not exist")
        del call.store.runs[key]
        return {}


def read_log(call: Call) -> Answer:
    """The whole log so far, by the name of a pod or, if logs are archived, by the id of a node."""
    key, node = call.named["run"], call.named["node"]
    problem = f"BadRequestError: Failed to read logs for run {key}"
    try:
        run = _check_run(call, "readLog", f"{problem} due to run fetching error")
    except Refusal as refusal:
        return _refuse_plainly(403 if call.access.multi_user else 500, refusal.message)
    log = run.pod_log(node)
    if log is None and call.store.archives_logs:
        log = run.archived_log(node)
    if log is not None:
        return Reply(200, log.encode(), "text/plain", {"Cache-Control": "no-cache, private"})
    what = f"InternalServerError: Failed to read logs from pod {node} due to error opening log stream"
    return _refuse_plainly(500, f'{problem}: {what}: pods "{node}" not found')


# Recurring runs


def list_schedules(call: Call) -> Answer:
    with during("Failed to list jobs"):
        namespace, key = _find_namespace(call, "recurring run"), call.query.get("experiment_id", "")
        hint = f"Check if you have permission to access namespace {namespace}"
        with during(f"Failed to list recurring runs due to authorization error. {hint}"):
            call.access.check_schedule(call.headers, namespace, "list")
        inside = [each for each in call.store.schedules.values() if not namespace or each["namespace"] == namespace]
        inside = [each for each in inside if key in ("", each["experiment_id"])]
        return page_of(inside, call.query, "recurringRuns", "recurring_run_id")


def create_schedule(call: Call) -> Answer:
    asked = call.asked
    with during("Failed to create a recurring run due to conversion error"):
        if not 1 <= (limit := int(asked.get("max_concurrency", 0))) <= 10:
            bounds = "must be at least 1 and at most 10"
            raise invalid(f"Max concurrency of a recurring run {bounds}. Received {limit}")
        check_trigger(asked["trigger"])
    with during("Failed to create a recurring run"):
        if not asked.get("display_name"):
            raise invalid("Recurring run name is empty. Please specify a valid name")
        experiment = _find_owner(call, "recurring run")
        namespace = experiment.get("namespace", "")
        hint = f"Check if you have write permission to namespace {namespace}"
        with during(f"Failed to create a recurring run due to authorization error. {hint}"):
            call.access.check_schedule(call.headers, namespace, "create")
        with failing("Failed to create a recurring run with an invalid pipeline spec manifest"):
            spec, shown = call.store.resolve_source(asked)
        during_what = "Failed to create a recurring run during scheduled workflow creation"
        with during(during_what), during("invalid pipeline job inputs"):
            check_parameters(spec, asked.get("runtime_config", {}).get("parameters", {}))
        if "pipeline_version_reference" in asked:  # with a pipeline's id alone, each run takes its latest version
            shown = {"pipeline_version_reference": asked["pipeline_version_reference"]}
        return call.store.add_schedule(asked, experiment, shown)


def _check_schedule(call: Call, verb: str, what: str = "") -> Item:
    key = call.named["schedule"]
    schedule = call.store.schedules.get(key)
    if schedule is None:
        outer = "Failed to authorize the request: failed to authorize with the recurring run ID"
        context = outer if call.access.multi_user else what
        refusal = not_found("Job", key)
        raise Refusal(refusal.code, f"{context}: {refusal.message}" if context else refusal.message, refusal.cause)
    with during("Failed to authorize the request"):
        call.access.check_schedule(call.headers, schedule["namespace"], verb)
    return schedule


def get_schedule(call: Call) -> Answer:
    with during("Failed to fetch a recurring run"):
        return _check_schedule(call, "get")


def _switch_schedule(call: Call, verb: str) -> Answer:
    key, enabled = call.named["schedule"], str(verb == "enable").lower()
    with during(f"Failed to {verb} a recurring run"):
        what = f"Failed to change recurring run's mode to enable:{enabled}. Check if recurring run {key} exists"
        _check_schedule(call, verb, what)
        call.store.switch_schedule(key, verb == "enable")
        return {}


def enable_schedule(call: Call) -> Answer:
    return _switch_schedule(call, "enable")


def disable_schedule(call: Call) -> Answer:
    return _switch_schedule(call, "disable")


def delete_schedule(call: Call) -> Answer:
    key = call.named["schedule"]
    with during("Failed to delete a recurring run"):
        _check_schedule(call, "delete", f"Failed to delete recurring run {key}. Check if exists")
        del call.store.schedules[key]
        return {}


_API = "/apis/v2beta1"
_PIPELINE, _VERSION = r"/pipelines/(?P<pipeline>[^/:]+)", r"/versions/(?P<version>[^/:]+)"
_RUN, _SCHEDULE = r"/runs/(?P<run>[^/:]+)", r"/recurringruns/(?P<schedule>[^/:]+)"

ROUTES: list[tuple[str, re.Pattern[str], Callable[[Call], Answer]]] = [
    (method, re.compile(path), handle)
    for method, path, handle in (
        ("GET", f"{_API}/healthz", get_health),
        ("GET", f"{_API}/pipelines", list_pipelines),
        ("POST", f"{_API}/pipelines/upload", upload_pipeline),
        ("POST", f"{_API}/pipelines/upload_version", upload_version),
        ("GET", rf"{_API}/pipelines/names/(?P<name>[^/]+)", get_pipeline_by_name),
        ("GET", f"{_API}{_PIPELINE}", get_pipeline),
        ("DELETE", f"{_API}{_PIPELINE}", delete_pipeline),
        ("GET", f"{_API}{_PIPELINE}/versions", list_versions),
        ("GET", f"{_API}{_PIPELINE}{_VERSION}", get_version),
        ("DELETE", f"{_API}{_PIPELINE}{_VERSION}", delete_version),
        ("GET", f"{_API}/experiments", list_experiments),
        ("POST", f"{_API}/experiments", create_experiment),
        ("GET", rf"{_API}/experiments/(?P<experiment>[^/:]+)", get_experiment),
        ("GET", f"{_API}/runs", list_runs),
        ("POST", f"{_API}/runs", create_run),
        ("GET", f"{_API}{_RUN}", get_run),
        ("DELETE", f"{_API}{_RUN}", delete_run),
        ("POST", f"{_API}{_RUN}:terminate", terminate_run),
        ("POST", f"{_API}{_RUN}:retry", retry_run),
        ("POST", f"{_API}{_RUN}:archive", archive_run),
        ("POST", f"{_API}{_RUN}:unarchive", unarchive_run),
        ("GET", rf"/apis/v1alpha1{_RUN}/nodes/(?P<node>[^/]+)/log", read_log),
        ("GET", f"{_API}/recurringruns", list_schedules),
        ("POST", f"{_API}/recurringruns", create_schedule),
        ("GET", f"{_API}{_SCHEDULE}", get_schedule),
        ("DELETE", f"{_API}{_SCHEDULE}", delete_schedule),
        ("POST", f"{_API}{_SCHEDULE}:enable", enable_schedule),
        ("POST", f"{_API}{_SCHEDULE}:disable", disable_schedule),
    )
]


def answer(call: Call, method: str, path: str) -> Reply | None:
    """Handles a request; None if the API has no such call."""
    for known, pattern, handle in ROUTES:
        if found := pattern.fullmatch(path):
            if known != method:
                continue
            named = Call(call.request, call.body, call.store, call.access, found.groupdict())
            try:
                given = handle(named)
            except Refusal as refusal:
                return Reply(refusal.status, _dump(refusal.body()))
            return given if isinstance(given, Reply) else Reply(200, _dump(given))
    return None


def _dump(value: Any) -> bytes:
    return json.dumps(_plain(value)).encode()


def _plain(value: Any) -> Any:
    """Numbers as Go writes them: 2.0 is 2."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
