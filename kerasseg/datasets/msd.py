"""Medical Segmentation Decathlon: 4-D NIfTI files, named in a dataset.json."""

from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import BrokenSource, CaseSource
from kerasseg.datasets.dataset_json import DatasetJson, find_dataset_json
from kerasseg.datasets.nifti import NiftiSource, label_pairs
from kerasseg.errors import UserError


def discover(settings: DataSettings) -> list[CaseSource]:
    """The training cases of every dataset.json below `data.root`.

    A case whose files are not there is broken. Raises `UserError` for a modality that
    dataset.json does not know.
    """
    return [
        source
        for description in find_dataset_json(settings)
        for source in _cases(description, settings)
    ]


def _cases(description: DatasetJson, settings: DataSettings) -> list[CaseSource]:
    channels = tuple(description.channel(m) for m in settings.modalities)
    folder = description.path.parent
    listed = description.values.get("training", [])
    cases: list[CaseSource] = []
    for entry in listed:
        if not isinstance(entry, dict) or not {"image", "label"} <= set(entry):
            raise UserError(
                f"{description.path}: each of `training` must name an image and a label, found "
                f"{str(entry)[:80]!r}."
            )
        image, label = folder / entry["image"], folder / entry["label"]
        name = image.name.removesuffix(".gz").removesuffix(".nii")
        missing = [str(path) for path in (image, label) if not path.exists()]
        if missing:
            reason = f"{description.path}: names {' and '.join(missing)}, which does not exist: "
            reason += "restore the file, or remove the case from dataset.json."
            cases.append(BrokenSource(name, name, (image, label), reason))
            continue
        cases.append(
            NiftiSource(
                case_id=name,
                patient_id=name,
                modalities=settings.modalities,
                images=(image,),
                segmentation=label,
                label_map=label_pairs(description.label_map),
                channels=channels,
                classes=settings.classes,
            )
        )
    return cases
