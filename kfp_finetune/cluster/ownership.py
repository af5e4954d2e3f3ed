"""Which objects of a cluster are this library's; no other is ever changed or deleted."""

from collections.abc import Mapping

MANAGED_BY = {"app.kubernetes.io/managed-by": "kfp-finetune"}
"""Label of every object that this library makes."""


def made_by_us(labels: Mapping[str, str] | None) -> bool:
    """Tell whether an object with these labels was made by this library."""
    return MANAGED_BY.items() <= (labels or {}).items()
