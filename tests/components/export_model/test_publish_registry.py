"""A model in a registry: whole once, told the place that serving reads, and every failure a clear message."""

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from components.export_model.conftest import Write
from model_registry import ModelRegistry
from servers import faults, hub, model_registry
from servers.certificates import write_certificate
from servers.hub import Request
from servers.hub_writes import Account, WritableHandler, WritableHub
from servers.s3 import S3

from kfp_finetune.components.export_model.publish import registry as registering
from kfp_finetune.components.export_model.publish.entry import DIGEST, Entry
from kfp_finetune.components.export_model.publish.run import check_access, check_publishing, publish
from kfp_finetune.components.export_model.publish.targets import check_targets, parse_targets
from kfp_finetune.components.export_model.this_run import ThisRun
from kfp_finetune.errors import UserError
from kfp_finetune.workspace import MOUNT_PATH

ENTRY = Entry(
    "abc",
    "pvc://claim/exports/abc/merged",
    "base, fine-tuned on rows",
    {"run_id": "run-1", "loss_after": 1.25, "dataset": "hf://org/rows", "epochs": 3},
)
WHOLE = ["POST registered_models", "POST model_versions", "POST model_versions/2/artifacts"]


@pytest.fixture
def registry() -> Iterator[model_registry.Registry]:
    """An empty registry."""
    with model_registry.serve() as running:
        yield running


@pytest.fixture
def bucket(s3: S3) -> str:
    """An empty bucket."""
    name = f"tests-{uuid.uuid4().hex[:12]}"
    s3.client().create_bucket(Bucket=name)
    return name


def address(registry: model_registry.Registry, name: str = "colours") -> str:
    return f"registry+{registry.url}/{name}"


def register(registry: model_registry.Registry, entry: Entry = ENTRY) -> str:
    (target,) = parse_targets(address(registry))
    return registering.publish_to_registry(target, entry).url


def moved(uri: str) -> Entry:
    return Entry(ENTRY.version, uri, ENTRY.description, ENTRY.properties)


def test_a_new_model_has_a_version_and_an_artifact_that_the_registrys_own_client_finds(
    registry: model_registry.Registry,
) -> None:
    assert register(registry) == f"{registry.url}/api/model_registry/v1/model_versions/2"
    assert registry.writes() == WHOLE
    client = ModelRegistry(registry.url, author="tests", is_secure=False, user_token="unused")
    assert client.get_registered_model("colours").owner == "kfp-finetune"
    version = client.get_model_version("colours", "abc")
    assert (version.author, version.description) == ("kfp-finetune", ENTRY.description)
    artifact = client.get_model_artifact("colours", "abc")
    assert (artifact.uri, artifact.model_format_name, artifact.model_format_version) == (ENTRY.uri, "safetensors", "1")
    assert artifact.custom_properties == version.custom_properties == ENTRY.properties
    assert "authorization" not in registry.requests[0].headers, "no token over plain HTTP"


def test_a_server_that_knows_the_older_api_alone_is_asked_in_its_way(registry: model_registry.Registry) -> None:
    registry.versions = ("v1alpha3",)
    assert check_access(parse_targets(address(registry))) == []
    assert register(registry) == f"{registry.url}/api/model_registry/v1alpha3/model_versions/2"
    assert registry.writes() == WHOLE and registry.kept["model_artifacts"][0]["uri"] == ENTRY.uri
    registry.requests.clear()
    register(registry, moved("s3://bucket/abc/"))
    assert all("/v1alpha3/" in each.path for each in registry.requests[1:]) and len(registry.writes()) == 2


def test_registering_again_writes_nothing(registry: model_registry.Registry) -> None:
    first = register(registry)
    registry.requests.clear()
    assert register(registry) == first
    assert registry.writes() == []


def test_a_second_export_is_a_second_version(registry: model_registry.Registry) -> None:
    register(registry)
    register(registry, Entry("def", ENTRY.uri))
    assert [each["name"] for each in registry.kept["model_versions"]] == ["abc", "def"]
    assert len(registry.kept["registered_models"]) == 1


def test_a_version_that_lacks_its_artifact_is_completed(registry: model_registry.Registry) -> None:
    registry.fault = lambda handler, request: (
        request.method == "POST" and "artifacts" in request.path and faults.answer(403)(handler, request)
    )
    with pytest.raises(UserError, match="may not be used"):
        register(registry)
    assert registry.kept["model_versions"] and not registry.kept["model_artifacts"]
    registry.fault = None
    registry.requests.clear()
    register(registry)
    assert registry.writes() == ["PATCH model_versions/2", "POST model_versions/2/artifacts"]
    assert len(registry.kept["model_versions"]) == len(registry.kept["model_artifacts"]) == 1


def test_another_place_replaces_the_older_one_and_leaves_what_people_noted(registry: model_registry.Registry) -> None:
    register(registry)
    version, artifact = registry.kept["model_versions"][0], registry.kept["model_artifacts"][0]
    version["customProperties"]["stage"] = {"metadataType": "MetadataStringValue", "string_value": "tried"}
    version["state"] = "ARCHIVED"
    register(registry, moved("s3://bucket/abc/"))
    assert registry.writes()[3:] == ["PATCH model_versions/2", "PATCH model_artifacts/3"]
    assert (artifact["uri"], len(registry.kept["model_artifacts"])) == ("s3://bucket/abc/", 1)
    assert registry.properties("model_versions") == {**ENTRY.properties, "stage": "tried", "epochs": "3"}
    assert version["state"] == "ARCHIVED"


def test_files_that_were_made_anew_are_told_though_their_place_is_the_same(registry: model_registry.Registry) -> None:
    for digest in ("1", "2"):
        register(registry, Entry("abc", ENTRY.uri, "", {DIGEST: digest}))
    assert registry.properties("model_artifacts") == {DIGEST: "2"}


@pytest.mark.parametrize("kind", ["registered_models", "model_versions", "artifacts"])
def test_two_runs_at_once_register_one_version(registry: model_registry.Registry, kind: str) -> None:
    """Both have seen that it is not there before either makes it; the second is refused with 409 and looks again."""
    both = threading.Barrier(2)
    met: list[Request] = []

    def fault(handler: model_registry.Handler, request: Request) -> bool:
        if request.method == "POST" and request.path.endswith(kind) and len(met) < 2:
            met.append(request)
            both.wait(30)
        return False

    registry.fault = fault
    urls: list[str] = []
    runs = [threading.Thread(target=lambda: urls.append(register(registry))) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(met) == 2 and len(urls) == 2 and urls[0] == urls[1]
    assert {name: len(kept) for name, kept in registry.kept.items()} == dict.fromkeys(registry.kept, 1)


def test_a_lost_answer_is_looked_for(registry: model_registry.Registry) -> None:
    """The version is made, and the connection ends without an answer that says so."""
    lost: list[str] = []
    answer = model_registry.Handler.reply

    def lose(handler: model_registry.Handler, *args: object) -> None:
        if handler.command == "POST" and handler.path.endswith("model_versions") and not lost:
            lost.append(handler.path)
            handler.close_connection = True
        else:
            answer(handler, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_registry.Handler, "reply", lose)
        register(registry)
    assert lost and len(registry.kept["model_versions"]) == len(registry.kept["model_artifacts"]) == 1


def text(status: int, body: str) -> faults.Fault:
    def fault(handler: model_registry.Handler, request: Request) -> bool:
        handler.reply(status, body, "text/plain")
        return True

    return fault


WRONG = {
    "a token is wanted": (faults.answer(401), "no token, since tokens go over https alone"),
    "a mesh refuses": (text(403, "RBAC: access denied"), "RBAC: access denied"),
    "nothing of this path": (text(404, "404 page not found"), "404 page not found"),
    "a page to log in": (faults.page, "none of a Model Registry"),
    "other JSON": (faults.say(b'{"kind": "Status"}'), "none of a Model Registry"),
    "a list": (faults.say(b"[]"), "none of a Model Registry"),
    "no JSON": (faults.say(b"<html>"), "none of a Model Registry"),
    "circles": (faults.circle, "in circles"),
    "a server that fails": (text(503, "no database"), "no database"),
    "an answer that ends early": (faults.cut, "6 attempts failed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_registry_is_one_problem_before_anything_is_trained(
    registry: model_registry.Registry, case: str
) -> None:
    registry.fault, said = WRONG[case]
    (problem,) = check_access(parse_targets(address(registry)))
    assert problem.what == "publish_to" and said in str(problem) and address(registry) in str(problem), str(problem)
    with pytest.raises(UserError, match="publish_to"):
        register(registry)
    assert not registry.kept["registered_models"]


def test_a_registry_that_answers_is_fine_and_is_only_read(registry: model_registry.Registry) -> None:
    assert check_access(parse_targets(address(registry))) == []
    assert registry.writes() == []


def test_a_registry_that_hangs_is_given_up(registry: model_registry.Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registering, "ANSWER_SECONDS", 0.05)
    over = threading.Event()
    registry.fault = lambda handler, request: bool(over.wait(60)) or True
    try:
        (problem,) = check_access(parse_targets(address(registry)))
        registry.fault = faults.stall(over)
        (begun,) = check_access(parse_targets(address(registry)))
    finally:
        over.set()
    assert "does not answer in time" in str(problem) and "does not answer in time" in str(begun)


def test_nobody_there_is_told() -> None:
    with model_registry.serve() as gone:
        target = address(gone)
    (problem,) = check_access(parse_targets(target))
    assert "6 attempts failed" in str(problem) and "127.0.0.1" in str(problem)


def test_over_tls_the_service_accounts_token_is_sent_to_a_server_that_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = write_certificate(tmp_path)
    token = tmp_path / "token"
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    with model_registry.serve(certificate, token="account-token") as secure:
        targets = parse_targets(address(secure))
        (problem,) = check_access(targets)
        assert "without a token" in str(problem) and str(token) in str(problem)
        token.write_text("account-token\n")
        (problem,) = check_access(targets)
        assert "is not trusted" in str(problem) and "SSL_CERT_FILE" in str(problem)
        assert not secure.requests
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert check_access(targets) == []
        register(secure)
        assert secure.kept["model_artifacts"]
        token.write_text("old-token")
        (problem,) = check_access(targets)
        assert "the service account's token: no valid token" in str(problem) and "old-token" not in str(problem)
        token.write_text("two\nlines")
        (problem,) = check_access(targets)
        assert "is no file with one" in str(problem)


def test_a_server_without_tls_is_told_from_one_that_hangs(
    registry: model_registry.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("t")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    (problem,) = check_access(parse_targets(address(registry).replace("http:", "https:")))
    assert "Write registry+http://" in str(problem)


def test_the_registry_is_told_the_folder_in_s3_and_comes_last_whatever_the_order(
    registry: model_registry.Registry, bucket: str, write_export: Write
) -> None:
    export = write_export()
    published = publish(*export, parse_targets(f"{address(registry)} s3://{bucket}/models"), entry=ENTRY)
    assert [one.address for one in published] == [f"s3://{bucket}/models", address(registry)]
    (artifact,) = registry.kept["model_artifacts"]
    assert artifact["uri"] == f"s3://{bucket}/models/abc/"
    digest = registry.properties("model_artifacts")[DIGEST]
    assert published[0].revision == f"sha256:{digest}"
    assert publish(*export, parse_targets(f"{address(registry)} s3://{bucket}/models"), entry=ENTRY) == published
    assert registry.writes() == WHOLE


def test_the_registry_is_told_the_commit_on_the_hub(
    registry: model_registry.Registry, write_export: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf-writer")
    state = WritableHub(accounts={"hf-writer": Account("writer")})
    with hub.serve(hub=state, answers=WritableHandler) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        on_hub, _ = publish(*write_export(), parse_targets(f"hf://writer/colours {address(registry)}"), entry=ENTRY)
    assert registry.kept["model_artifacts"][0]["uri"] == f"hf://writer/colours:{on_hub.revision}"


def test_a_registry_alone_is_told_the_volume(registry: model_registry.Registry, write_export: Write) -> None:
    publish(*write_export(), parse_targets(address(registry)), entry=ENTRY)
    assert registry.kept["model_artifacts"][0]["uri"] == "pvc://claim/exports/abc/merged"


def test_nothing_is_registered_that_is_not_published_everywhere(
    registry: model_registry.Registry, bucket: str, write_export: Write
) -> None:
    with pytest.raises(UserError) as caught:
        publish(*write_export(), parse_targets(f"{address(registry)} s3://{bucket}/x s3://no-such-bucket-here/y"))
    assert len(caught.value.problems) == 1
    assert registry.requests == []


def test_a_registry_alone_is_refused_where_nobody_else_reads_the_folder(
    registry: model_registry.Registry, write_export: Write, bucket: str
) -> None:
    for run, root in ((ThisRun(volume="claim"), "/home/me/workspace"), (ThisRun(), MOUNT_PATH)):
        _, (problem,) = check_publishing(address(registry), root, run)
        assert "Add s3://BUCKET/PREFIX" in str(problem)
    assert check_publishing(f"{address(registry)} s3://{bucket}/x", "/home/me/workspace", ThisRun())[1] == []
    assert check_publishing(address(registry), MOUNT_PATH, ThisRun(volume="claim")) == ([address(registry)], [])
    with pytest.raises(UserError, match="Add s3://BUCKET/PREFIX"):
        publish(*write_export(), parse_targets(address(registry)))
    assert registry.writes() == []
    assert check_targets(address(registry), on_volume=False) and not check_targets(address(registry))


def test_the_service_account_s_token_is_shown_to_servers_of_the_cluster_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KF_PIPELINES_SA_TOKEN_PATH", raising=False)
    (problem,) = check_access(parse_targets("registry+https://registry.invalid/model"))
    assert "service account's own token is not shown" in problem.given
    assert "KF_PIPELINES_SA_TOKEN_PATH" in problem.mend
