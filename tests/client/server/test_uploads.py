"""Uploads: a version for each content, never two of one."""

from pathlib import Path

import pytest
from remote_runs import PIPELINE
from servers import kfp
from servers.kfp import faults

from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.uploads import upload, version_name
from kfp_finetune.errors import UserError


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE.read_text().replace("Passes over the training rows.", "Passes over them."))
    return path


def names(remote: kfp.Server) -> list[str]:
    return [version["name"] for version in remote.store.versions.values()]


def test_the_same_content_is_uploaded_once_and_other_content_is_a_new_version(
    server: Server, remote: kfp.Server, changed: Path
) -> None:
    first = upload(server, PIPELINE)
    assert first.created and first.pipeline == "torchtune-finetune"
    again = upload(server, PIPELINE)
    assert (again.version_id, again.created) == (first.version_id, False)
    second = upload(server, changed)
    assert second.created and second.pipeline_id == first.pipeline_id and second.name == version_name(changed)
    assert upload(server, changed).version_id == second.version_id
    assert names(remote) == ["torchtune-finetune", version_name(changed)]


@pytest.mark.parametrize("fault", [faults.lose_answer, faults.cut, faults.deny_what_was_done])
def test_an_answer_that_is_lost_leads_to_no_second_version(
    server: Server, remote: kfp.Server, changed: Path, fault: faults.Fault
) -> None:
    remote.fail("POST", "/pipelines/upload", fault)
    first = upload(server, PIPELINE)
    remote.fail("POST", "/pipelines/upload_version", fault)
    second = upload(server, changed)
    assert names(remote) == ["torchtune-finetune", version_name(changed)]
    assert {first.version_id, second.version_id} == set(remote.store.versions)


def test_a_busy_server_is_asked_again(server: Server, remote: kfp.Server) -> None:
    remote.fail("POST", "/pipelines/upload", faults.status(503), times=2)
    assert upload(server, PIPELINE).created


def test_what_somebody_uploaded_meanwhile_is_taken(server: Server, remote: kfp.Server, changed: Path) -> None:
    upload(server, PIPELINE)
    remote.fail("POST", "/upload_version", lambda handler, handle: (handle(), faults.status(409)(handler, handle)))
    assert upload(server, changed).name == version_name(changed)


def test_a_version_is_found_on_any_page(server: Server, remote: kfp.Server) -> None:
    first = upload(server, PIPELINE)
    for number in range(120):
        remote.store.add_version(first.pipeline_id, f"other-{number}", "", {})
    assert upload(server, PIPELINE).version_id == first.version_id


@pytest.mark.parametrize("content", ["", "a: 1\n", "[", "pipelineInfo: {}\n"])
def test_what_is_no_pipeline_is_refused_here(server: Server, remote: kfp.Server, tmp_path: Path, content: str) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(content)
    asked = len(remote.requests)
    with pytest.raises(UserError, match="allowed: a compiled pipeline"):
        upload(server, path)
    assert len(remote.requests) == asked


def test_what_the_server_refuses_is_told_in_its_words(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("pipelineInfo: {name: bad}\nroot: 5\n")
    with pytest.raises(
        UserError, match=r"upload the pipeline: given what the server refuses \(unknown template format"
    ):
        upload(server, path)
