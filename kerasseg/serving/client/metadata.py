"""`Metadata`: what a served model says of itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from kerasseg import anatomy
from kerasseg.datasets.outputs.label_ids import label_ids
from kerasseg.serving.client.server_error import ServerError
from kerasseg.settings.data import DataSettings

_CANONICAL = {**{name: i for i, name in anatomy.LABELS.items()}, "tumour": anatomy.TUMOUR}
UNKNOWN = 255
"""In `Metadata.canonical`: an id that no label has."""


@dataclass(frozen=True)
class Metadata:
    """modalities: channels of a volume, in order. dimensions: 2 or 3. labels: name -> id that the
    server writes. target: a key of `anatomy.TARGETS`. config: the run's settings, if they are
    told."""

    modalities: tuple[str, ...]
    dimensions: int
    labels: Mapping[str, int]
    target: str
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> DataSettings:
        """The run's section `data`; if it is not told, one that has these modalities and labels."""
        section = self.config.get("data")
        if isinstance(section, Mapping):
            try:
                told = DataSettings.model_validate(dict(section))
                return told.model_copy(update={"modalities": self.modalities})
            except ValidationError:
                pass  # of another version of kerasseg; what follows is enough
        return self._likely_data()

    def _likely_data(self) -> DataSettings:
        colours = set(self.modalities) <= {"grey", "red", "green", "blue"}
        tumour = set(self.labels) == {"background", "tumour"}
        told = {"root": "not here", "modalities": self.modalities}
        if colours:
            return DataSettings.model_validate({**told, "layout": "image_pairs"})
        if not tumour:
            # Those of a public data set are its layout's own, which a scan's files may know better.
            for layout in ("brats_nifti", "nnunet", "msd"):
                likely = DataSettings.model_validate({**told, "layout": layout})
                ids = label_ids(None, likely, self.target, None)
                if all(ids[_CANONICAL[name]] == own for name, own in self.labels.items()):
                    return likely
        return DataSettings.model_validate(
            {
                **told,
                "layout": "brats_nifti",
                "classes": "tumour" if tumour else "subregions",
                "label_map": {own: _CANONICAL[name] for name, own in self.labels.items()},
            }
        )

    @property
    def canonical(self) -> np.ndarray:
        """(256,) uint8: id that the server writes -> canonical id."""
        table = np.full(256, UNKNOWN, np.uint8)
        for name, own in self.labels.items():
            table[own] = _CANONICAL[name]
        return table


def _first(config: str) -> Mapping[str, Any]:
    """The settings of the first of the runs, whose configurations are documents of one YAML."""
    first = next(iter(yaml.safe_load_all(config)), None)
    return first if isinstance(first, Mapping) else {}


def read_metadata(text: bytes) -> Metadata:
    """The JSON of the signature `metadata`. Raises `ServerError` if it is not that of kerasseg."""
    try:
        told = json.loads(text)
        config = told.get("config") or {}
        labels = {str(name): int(own) for name, own in told["labels"].items()}
        metadata = Metadata(
            tuple(told["modalities"]),
            int(told["dimensions"]),
            labels,
            told["target"],
            _first(config) if isinstance(config, str) else config,
        )
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ServerError(
            f"The model's metadata cannot be understood ({type(error).__name__}: {error}): is it "
            "one that kerasseg export wrote?"
        ) from None
    unknown = set(labels) - set(_CANONICAL)
    if unknown or metadata.target not in anatomy.TARGETS:
        raise ServerError(
            f"The model's labels are {', '.join(labels)} and its target is {metadata.target}, "
            f"expected some of {', '.join(_CANONICAL)} and one of {', '.join(anatomy.TARGETS)}: it "
            "is of another version of kerasseg."
        )
    return metadata
