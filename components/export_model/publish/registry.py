"""An export as a version of a model in a Kubeflow Model Registry, which is told where the files are.

A registered model has a version for each export, named by the export's key, and the version has an artifact, which
holds the place. The artifact comes last: a version that has one is whole. Every attempt looks first and writes what is
missing, so a run that was killed in between, an answer that was lost, and another run that does the same are one case.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from kfp_finetune.components.export_model.publish.entry import DIGEST, Entry
from kfp_finetune.components.export_model.publish.registry_errors import explain, token_of
from kfp_finetune.components.export_model.publish.targets import WHAT, Published, RegistryTarget, nowhere
from kfp_finetune.errors import Problem, UserError
from kfp_finetune.sources import retries

if TYPE_CHECKING:
    from model_registry.types import ModelArtifact, ModelVersion

    from kfp_finetune.components.export_model.publish.registry_client import Client

AUTHOR = "kfp-finetune"
FORMAT, FORMAT_VERSION = "safetensors", "1"
ANSWER_SECONDS = retries.STALL_SECONDS
"""A request that is not answered whole within this time is given up, and all is looked at again."""

Result = TypeVar("Result")


def publish_to_registry(target: RegistryTarget, entry: Entry) -> Published:
    """Registers an export, or finds it registered with the same place and the same files.

    Args:
        target: Where.
        entry: What the registry is told.

    Raises:
        UserError: If the registry may not be written or cannot be reached, or if the export lies where nobody else can
            read it.
    """
    if not entry.uri:
        raise UserError([nowhere(target)])
    registry = _Registry(target, token_of(target))
    return registry.patiently(lambda: registry.hold(entry))


def check_registry(target: RegistryTarget) -> list[Problem]:
    """What keeps an export from being registered, as far as it can be known without writing.

    Args:
        target: Where.
    """
    try:
        registry = _Registry(target, token_of(target))
        registry.patiently(registry.open)
    except UserError as error:
        return list(error.problems)
    return []


@dataclass(frozen=True)
class _Registry:
    """A registry that is written."""

    target: RegistryTarget
    token: str

    def patiently(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Does a piece of work that looks before it writes, more than once if the network or the server fails."""

        def attempt() -> Result:
            try:
                return asyncio.run(work())
            except Exception as error:
                raise explain(self.target, error) from error

        return retries.patiently(WHAT, self.target.address, attempt)

    async def open(self) -> "Client":
        """A client of the newest API that the server has, from which it has read."""
        from model_registry.types import ListOptions
        from mr_openapi.exceptions import NotFoundException

        from kfp_finetune.components.export_model.publish.registry_client import VERSIONS, make_client

        for version in VERSIONS:
            client = make_client(self.target.server, self.token, version)
            try:
                await _bounded(client.get_registered_models(ListOptions(limit=1)))
                break
            except NotFoundException:
                if version == VERSIONS[-1]:
                    raise
        return client

    async def hold(self, entry: Entry) -> Published:
        """Makes the registry hold an export."""
        from model_registry.types import ModelVersion, RegisteredModel

        client, name = await self.open(), self.target.name
        model = await _bounded(client.get_registered_model_by_params(name=name))
        if model is None:
            model = await _bounded(client.upsert_registered_model(RegisteredModel(name=name, owner=AUTHOR)))
        version = await _bounded(client.get_model_version_by_params(model.id, entry.version))
        artifact = await _bounded(client.get_model_artifact_by_params(name, version.id)) if version else None
        if version is None or artifact is None or not _is_of(artifact, entry):
            version = _told(version or ModelVersion(name=entry.version, author=AUTHOR), entry)
            version = await _bounded(client.upsert_model_version(version, model.id))
            await self._put(client, artifact, version.id, entry)
        return Published(self.target.address, f"{client.address}/model_versions/{version.id}", str(version.id))

    async def _put(self, client: "Client", artifact: "ModelArtifact | None", version_id: str, entry: Entry) -> None:
        from model_registry.types import ModelArtifact
        from mr_openapi import ArtifactState

        # The client looks for a version's artifact by the name of the model.
        changed = _told(artifact or ModelArtifact(name=self.target.name), entry).model_copy(
            update={
                "uri": entry.uri,
                "model_format_name": FORMAT,
                "model_format_version": FORMAT_VERSION,
                "state": ArtifactState.LIVE,
            }
        )
        if artifact is None:
            await _bounded(client.upsert_model_version_artifact(changed, version_id))
        else:
            await _bounded(client.upsert_model_artifact(changed))


async def _bounded(answer: Awaitable[Result]) -> Result:
    return await asyncio.wait_for(answer, ANSWER_SECONDS)


def _is_of(artifact: "ModelArtifact", entry: Entry) -> bool:
    """Whether an artifact names the same place with the same files in it."""
    digest = (artifact.custom_properties or {}).get(DIGEST)
    return artifact.uri == entry.uri and digest == entry.properties.get(DIGEST)


def _told(resource: "ModelVersion | ModelArtifact", entry: Entry) -> Any:
    """A version or an artifact with what an entry says; what others noted there stays."""
    properties = {**(resource.custom_properties or {}), **entry.properties}
    return resource.model_copy(update={"description": entry.description, "custom_properties": properties})
