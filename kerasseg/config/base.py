"""The base class of all sections of settings, and the types that several of them share."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kerasseg import anatomy


def _canonical_modality(name: str) -> str:
    return anatomy.MODALITY_ALIASES.get(name.lower(), name.lower())


Modality = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$"), AfterValidator(_canonical_modality)]
Folder = Annotated[Path, AfterValidator(Path.expanduser)]
Voxels = Annotated[int, Field(ge=1, le=4096)]
Millimetres = Annotated[float, Field(gt=0.0, le=100.0)]
Pixels = Annotated[int, Field(ge=8, le=16384)]


def setting(default: Any, description: str, *, unit: str | None = None, **limits: Any) -> Any:
    """Return a pydantic field with a description and, for the docs and the schema, a unit.

    `default` may be a function; it gets the settings above this one in its section.
    """
    kind = {"default_factory": default} if callable(default) else {"default": default}
    return Field(
        **kind,
        description=f"{description} [{unit}]" if unit else description,
        json_schema_extra={"unit": unit} if unit else None,
        **limits,
    )


class Section(BaseModel):
    """A group of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
