"""Compiled pipelines on the server: a version for each content, found again instead of uploaded twice."""

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import yaml

from kfp_finetune._version import VERSION
from kfp_finetune.client.server.calls import make, once
from kfp_finetune.client.server.connection import Server
from kfp_finetune.client.server.lists import listed, named
from kfp_finetune.errors import refuse

HASH_DIGITS = 12

OURS = "kfp-finetune"
"""What the descriptions of what this library makes begin with."""


@dataclass(frozen=True)
class Version:
    """A version of a pipeline on the server.

    Args:
        pipeline: The pipeline's name.
        pipeline_id: Its id.
        name: The version's name, which holds the hash of its content.
        version_id: The version's id.
        created: Whether it was uploaded now; false if it was there.
    """

    pipeline: str
    pipeline_id: str
    name: str
    version_id: str
    created: bool


def upload(server: Server, package: Path) -> Version:
    """Uploads a compiled pipeline: a new pipeline, a new version of one, or nothing if this content is there.

    Args:
        server: Kubeflow Pipelines.
        package: The compiled pipeline.yaml.

    Raises:
        UserError: If it is no compiled pipeline, or the server refuses it.
    """
    pipeline = pipeline_name(package)
    name = version_name(package)
    known = find_version(server, pipeline, name)
    if known is not None:
        return known
    made = make(partial(_create, server, package, pipeline, name), partial(find_version, server, pipeline, name))
    return replace(made, created=True)


def pipeline_name(package: Path) -> str:
    """The name in a compiled pipeline.

    Args:
        package: The compiled pipeline.yaml.

    Raises:
        UserError: If it is no compiled pipeline.
    """
    try:
        return str(next(iter(yaml.safe_load_all(package.read_text())))["pipelineInfo"]["name"])
    except (OSError, ValueError, yaml.YAMLError, StopIteration, KeyError, TypeError) as error:
        mend = "Compile it with ./compile.sh, or check the path."
        raise refuse("pipeline", package, "a compiled pipeline.yaml", mend) from error


def version_name(package: Path) -> str:
    """The name of a version: this library's version and a hash of the content.

    Args:
        package: The compiled pipeline.yaml.
    """
    return f"{VERSION}-{hashlib.sha256(package.read_bytes()).hexdigest()[:HASH_DIGITS]}"


def find_version(server: Server, pipeline: str, name: str) -> Version | None:
    """A version that is on the server already, or None.

    Args:
        server: Kubeflow Pipelines.
        pipeline: The pipeline's name.
        name: The version's name.
    """
    pipeline_id = _find_pipeline(server, pipeline)
    if pipeline_id is None:
        return None
    call = server.pipelines.pipeline_service_list_pipeline_versions
    for version in listed("list the pipeline's versions", call, "pipeline_versions", pipeline_id):
        # The first version of a pipeline has the pipeline's name; its description then says which content it is.
        if version.display_name == name or (version.description or "").endswith(name):
            return Version(pipeline, pipeline_id, name, version.pipeline_version_id, created=False)
    return None


def _find_pipeline(server: Server, name: str) -> str | None:
    call = server.pipelines.pipeline_service_list_pipelines
    found = listed("list the pipelines", call, "pipelines", filter=named(name), namespace=server.namespace)
    return next((pipeline.pipeline_id for pipeline in found), None)


def _create(server: Server, package: Path, pipeline: str, name: str) -> Version:
    description = f"{OURS} {name}"
    pipeline_id = _find_pipeline(server, pipeline)
    if pipeline_id is None:
        call = server.uploads.upload_pipeline
        space = {"namespace": server.namespace} if server.namespace else {}
        made = once("upload the pipeline", call, str(package), name=pipeline, description=description, **space)
        found = find_version(server, pipeline, name)
        if found is None:
            raise refuse("pipeline", f"{pipeline}, made as {made.pipeline_id} and gone", "one that stays", "Try again.")
        return found
    call = server.uploads.upload_pipeline_version
    about = {"name": name, "pipelineid": pipeline_id, "description": description}
    made = once("upload the pipeline's version", call, str(package), **about)
    return Version(pipeline, pipeline_id, name, made.pipeline_version_id, created=True)
