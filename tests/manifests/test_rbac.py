"""The roles of manifests/rbac are what the steps need, no more and no less."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from kfp_finetune.cluster.rights import STEP_RIGHTS

BASE = Path(__file__).parents[2] / "manifests" / "rbac" / "base"


def granted(file):
    """Every verb on every resource that a role's file grants, as kubectl writes the resource."""
    role = yaml.safe_load((BASE / file).read_text())
    assert all(set(rule) == {"apiGroups", "resources", "verbs"} for rule in role["rules"])
    return Counter(
        (verb, f"{resource}.{group}" if group else resource)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


@pytest.mark.parametrize(("file", "namespaced"), [("role.yaml", True), ("cluster-role.yaml", False)])
def test_the_role_grants_each_right_once_and_nothing_else(file, namespaced):
    needed = Counter((right.verb, right.resource) for right in STEP_RIGHTS if right.namespaced == namespaced)
    assert granted(file) == needed
