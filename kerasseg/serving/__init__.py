"""From a run to a SavedModel, its server and its client."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasseg.serving.client import Client as Client


def __getattr__(name: str) -> Any:
    """`kerasseg.serving.Client`, imported when it is asked for."""
    if name == "Client":
        from kerasseg.serving.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
