"""Section `data`: which scans, and how their files are laid out."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from kerasseg import anatomy
from kerasseg.config.base import (
    IMPORT_PATH,
    Folder,
    Millimetres,
    Modality,
    Pixels,
    Section,
    check_unique,
    name_or_path,
    setting,
)
from kerasseg.config.layouts import LAYOUTS, Layout, layout_of


def _modalities_of_layout(values: dict[str, Any]) -> tuple[str, ...]:
    facts = layout_of(values.get("layout", "phantom"))
    if "files" in facts.settings and values.get("files"):
        return tuple(values["files"])
    return facts.modalities


def _importable(layout: str) -> str:
    layout_of(layout)
    return layout


_Length = Annotated[int, Field(ge=16, le=1024)]


class PhantomSettings(Section):
    """The synthetic data set."""

    cases: int = setting(24, "Number of phantoms.", ge=1, le=100_000)
    shape: tuple[_Length, _Length, _Length] = setting(
        (48, 64, 56), "Depth, height, width of every phantom.", unit="voxels"
    )
    seed: int = setting(0, "Seed of the phantoms.", ge=0, le=2**31 - 1)


class PairSettings(Section):
    """Layout image_pairs: one picture and one mask of the same name."""

    images: str = setting("images", "Folder of the pictures below data.root.", min_length=1)
    masks: str = setting(
        "masks", "Folder of the masks below data.root; may be the same one.", min_length=1
    )
    mask_suffix: str = setting(
        "", "What a mask's name has after the picture's, such as _mask (before the extension)."
    )
    threshold: int | None = setting(
        None,
        "Mask values from here on are tumour. null: a mask may hold 0 and one other value only, "
        "so that the grey edges of a JPEG are refused.",
        ge=1,
        le=65535,
    )

    @model_validator(mode="after")
    def _check(self) -> "PairSettings":
        if self.images == self.masks and not self.mask_suffix:
            raise ValueError(
                "data.pairs.images and data.pairs.masks are one folder: set data.pairs.mask_suffix "
                "to what a mask's name has after the picture's, such as _mask"
            )
        return self


class DataSettings(Section):
    """Which scans, and how their files are laid out."""

    layout: Annotated[
        str,
        BeforeValidator(name_or_path("data.layout", LAYOUTS, "a layout")),
        AfterValidator(_importable),
        WithJsonSchema({"anyOf": [{"enum": list(LAYOUTS)}, IMPORT_PATH]}),
    ] = setting(
        "phantom",
        "phantom: generated. brats_nifti: BraTS 2020, 2021, 2023 and later as .nii or .nii.gz. "
        "brats_h5: Kaggle BraTS2020 slices volume_<id>_slice_<s>.h5. msd: Medical Segmentation "
        "Decathlon, 4-D NIfTI + dataset.json. nnunet: nnU-Net raw, imagesTr/CASE_0000.nii.gz. "
        "nifti: any NIfTI files, by the patterns of data.files. lgg: Kaggle LGG, "
        "kaggle_3m/<patient>/<patient>_<n>.tif. image_pairs: pictures and masks (data.pairs). Or "
        "the import path of a layout of your own (docs/extending.md).",
    )
    root: Folder | None = setting(None, "Folder of the raw scans (not used by phantom).")
    files: dict[Modality, Annotated[str, Field(min_length=1)]] = setting(
        {},
        "nifti: for each modality the pattern of its files below data.root, with {case} where the "
        "case's name stands and * for anything else: {flair: 'scans/{case}/*_FLAIR.nii.gz'}. With "
        "{patient} before it, '{patient}/{case}/*_FLAIR.nii.gz', the case is <patient>_<case>.",
        max_length=16,
    )
    segmentation: str | None = setting(
        None, "nifti: the pattern of the segmentations, with {case}.", min_length=1
    )
    modalities: tuple[Modality, ...] = setting(
        _modalities_of_layout,
        "Channels in the order the model sees them; a subset reads only those. Default of lgg: "
        "t1, flair, t1ce; of image_pairs: grey (or red, green, blue); of nifti: those of "
        "data.files.",
        min_length=1,
        max_length=16,
    )
    classes: Literal["subregions", "tumour"] = setting(
        lambda values: layout_of(values.get("layout", "phantom")).classes[0],
        "What the segmentations tell apart: NCR, ED and ET, or only tumour (1) from healthy (0). "
        "Default of lgg and image_pairs: tumour.",
    )
    label_map: dict[int, Annotated[int, Field(ge=0, le=3)]] | None = setting(
        None,
        "The files' label ids -> 0 background, 1 NCR, 2 ED, 3 ET (or 1 tumour, if data.classes is "
        "tumour). Default of msd and nnunet: by the names in dataset.json. Otherwise BraTS, where "
        "enhancing tumour is 4 (up to 2021) or 3 (2023). In BraTS 2024, 4 is a resection cavity: "
        "map it to 0 or 1 yourself.",
    )
    channels: dict[Modality, Annotated[int, Field(ge=0, le=255)]] = setting(
        {},
        "msd and nnunet: the number of each channel, {t1: 0, flair: 1}, in scans to be predicted "
        "that have no dataset.json near them. A run writes down here what the dataset.json of its "
        "own data said.",
        max_length=256,
    )
    pairs: PairSettings = PairSettings()
    skull_stripped: bool = setting(
        lambda values: layout_of(values.get("layout", "phantom")).skull_stripped,
        "Whether air, and everything that is not brain, is exactly 0; it stays 0 when "
        "intensities are normalised. false (default of lgg and image_pairs): 0 is only a dark "
        "value; background, and everything outside of the picture, get its darkest value.",
    )
    normalisation: Literal["z_score", "percentiles"] = setting(
        "z_score",
        "How each modality of a scan is normalised over its voxels that are not 0: z_score, or "
        "percentiles (the 0.5th to 0, the 99.5th to 1, clipped), which model.network=sam needs.",
    )
    size: tuple[Pixels, Pixels] | None = setting(
        None,
        "lgg and image_pairs: height and width that pictures and masks are resized to; null: as "
        "they are. Pictures of another proportion are stretched.",
        unit="pixels",
    )
    patient_pattern: str | None = setting(
        None,
        "Regular expression whose first group, found in a case's name, is its patient. Default: "
        "what the layout knows, else every case is a patient of its own.",
    )
    patient_csv: Folder | None = setting(
        None, "CSV file with the columns case_id and patient_id; instead of patient_pattern."
    )
    spacing: tuple[Millimetres, Millimetres, Millimetres] | None = setting(
        None,
        "Voxel size depth, height, width that every volume is resampled to; null: as it is. "
        "Segmentations are resampled class by class.",
        unit="mm",
    )
    interpolation: Literal["cubic", "linear"] = setting(
        "cubic", "How images are resampled to data.spacing."
    )
    on_bad_case: Literal["stop", "skip"] = setting(
        "stop",
        "What to do with a case that `kerasseg verify` calls an error. skip: leave it out, and "
        "name it in the store's manifest and in the report.",
    )
    h5_image_channels: tuple[Modality, ...] = setting(
        anatomy.MODALITIES,
        "brats_h5: order of the channels in `image`. Public notebooks disagree on it: look at the "
        "figures (T1ce shows a bright rim, FLAIR bright edema) before you believe the default.",
        min_length=1,
        max_length=16,
    )
    h5_mask_channels: tuple[Literal["NCR", "ED", "ET"], ...] = setting(
        ("NCR", "ED", "ET"), "brats_h5: order of the channels in `mask`.", min_length=1
    )
    h5_slices: int = setting(
        anatomy.BRATS_SLICES, "brats_h5: slices that a whole volume has.", ge=1, le=4096
    )
    phantom: PhantomSettings = PhantomSettings()

    @field_validator("patient_pattern")
    @classmethod
    def _check_pattern(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(
                    f"data.patient_pattern {pattern!r} is no regular expression: {error}"
                ) from None
            if not groups:
                raise ValueError(
                    f"data.patient_pattern {pattern!r} has no group: put the part that names the "
                    "patient in brackets, such as ^(\\w+)_slice"
                )
        return pattern

    @model_validator(mode="after")
    def _check(self) -> "DataSettings":
        for name in ("modalities", "h5_image_channels", "h5_mask_channels"):
            check_unique(f"data.{name}", getattr(self, name), "a channel")
        facts = self.facts
        if facts.needs_root and self.root is None:
            raise ValueError(
                f"data.layout={self.layout} needs the folder of the raw scans: set data.root"
            )
        self._check_channels()
        self._check_classes()
        if self.patient_pattern is not None and self.patient_csv is not None:
            raise ValueError("data.patient_pattern and data.patient_csv are both set: keep one")
        if "files" in facts.settings:
            self._check_files()
        elif self.files or self.segmentation is not None:
            owners = [name for name, layout in LAYOUTS.items() if "files" in layout.settings]
            raise ValueError(
                "data.files and data.segmentation belong to "
                f"data.layout={' or '.join(owners)}, not {self.layout}"
            )
        if self.size is not None and facts.knows_spacing:
            raise ValueError(
                f"data.size is for pictures, and data.layout={self.layout} holds volumes: set "
                "data.spacing"
            )
        if self.spacing is not None and not facts.knows_spacing:
            raise ValueError(
                f"data.spacing: the files of {self.layout} do not say how large a voxel is"
            )
        return self

    @property
    def warnings(self) -> list[str]:
        """Sentences about settings that these data do not look at."""
        warnings = []
        if self.spacing is None and self.is_changed("interpolation"):
            warnings.append("data.interpolation has no effect without data.spacing.")
        # Those of files may be there for scans that will be predicted; phantoms are the default.
        others = {n for layout in LAYOUTS.values() for n in layout.settings} - {"phantom"}
        for name in sorted(others.difference(self.facts.settings)):
            if self.is_changed(name):
                owners = [key for key, layout in LAYOUTS.items() if name in layout.settings]
                warnings.append(
                    f"data.{name} has no effect on the cases of data.layout={self.layout}: it is "
                    f"for data.layout={' or '.join(owners)}."
                )
        return warnings

    @property
    def facts(self) -> Layout:
        """The facts of the layout."""
        return layout_of(self.layout)

    def _check_channels(self) -> None:
        facts = self.facts
        groups, holder = facts.channels, facts.holder or self.layout
        if facts.channels_setting:
            groups = (getattr(self, facts.channels_setting),)
            holder = f"data.{facts.channels_setting}"
        if not groups or any(set(self.modalities) <= set(group) for group in groups):
            return
        if len(groups) == 1:
            missing = [m for m in self.modalities if m not in groups[0]]
            raise ValueError(
                f"data.modalities {missing} do not exist in {holder}: there are {list(groups[0])}"
            )
        allowed = (f"{'some of ' * (len(group) > 1)}[{', '.join(group)}]" for group in groups)
        raise ValueError(
            f"data.modalities {list(self.modalities)}: {holder} has {', or '.join(allowed)}"
        )

    def _check_classes(self) -> None:
        facts = self.facts
        if self.classes not in facts.classes and facts.classes[0] == "tumour":
            raise ValueError(f"data.classes: {self.layout} knows tumour only")
        if self.label_map and facts.label_map is None:
            raise ValueError(f"data.label_map is not used by data.layout={self.layout}")
        if self.classes not in facts.classes:
            raise ValueError(
                f"data.classes: {self.layout} tells NCR, ED and ET apart; for a model that only "
                "finds the whole tumour set model.target=binary"
            )
        if self.classes == "tumour" and facts.label_map is not None:
            if not self.label_map:
                raise ValueError(
                    "data.classes=tumour needs data.label_map, such as {0: 0, 1: 1}, to say which "
                    "of the files' ids are tumour"
                )
            if set(self.label_map.values()) - {0, 1}:
                raise ValueError("data.label_map: with data.classes=tumour ids map to 0 or 1")

    def _check_files(self) -> None:
        if not self.files:
            raise ValueError(
                "data.layout=nifti needs a pattern per modality: set data.files, such as "
                "{flair: '{case}_FLAIR.nii.gz'}"
            )
        missing = [m for m in self.modalities if m not in self.files]
        if missing:
            raise ValueError(f"data.modalities {missing} have no pattern in data.files")
        patterns = {f"data.files.{name}": pattern for name, pattern in self.files.items()}
        if self.segmentation is not None:
            patterns["data.segmentation"] = self.segmentation
        for key, pattern in patterns.items():
            if "{case}" not in pattern:
                raise ValueError(f"{key}: {pattern!r} has no {{case}} where the case's name stands")
            if pattern.startswith("/") or ".." in pattern.split("/"):
                raise ValueError(f"{key}: {pattern!r} must lie below data.root")
        if len({"{patient}" in pattern for pattern in patterns.values()}) > 1:
            raise ValueError(
                "data.files and data.segmentation: {patient} must stand in all patterns or in "
                "none, as it is a part of a case's name"
            )
