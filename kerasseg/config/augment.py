"""Section `augment`: how training patches are varied, and the presets."""

import math
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from kerasseg.config.base import (
    IMPORT_PATH,
    Section,
    check_unique,
    imported_entry,
    is_import_path,
    setting,
)

Axis = Literal["depth", "height", "width"]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]


def chance(default: float) -> float:
    """The setting `p`."""
    return setting(default, "Share of the patches that it changes.", ge=0.0, le=1.0)


def share_of_channels(default: float = 1.0) -> float:
    """The setting `p_channel`."""
    return setting(default, "Share of the modalities of such a patch.", ge=0.0, le=1.0)


def span(low: float, high: float, description: str, *, unit: str | None = None) -> tuple:
    """A setting of two limits, between which a number is drawn."""
    return setting((low, high), f"{description}, drawn evenly between the two.", unit=unit)


class Transform(Section):
    """One change of a patch. A setting of two numbers is a range."""

    @model_validator(mode="after")
    def _check_order(self) -> "Transform":
        for name, value in self:
            numbers = isinstance(value, tuple) and all(isinstance(v, float) for v in value)
            if numbers and list(value) != sorted(value):
                raise ValueError(
                    f"augment.transforms: {name} {list(value)}: the first limit is above the second"
                )
        return self


class OfAxes(Transform):
    """A transform along some of the axes."""

    axes: tuple[Axis, ...]

    @model_validator(mode="after")
    def _check_axes(self) -> "OfAxes":
        if not self.axes:
            raise ValueError(
                "augment.transforms: axes [] leaves nothing to do: name some of depth, height, "
                "width, or leave the transform out"
            )
        check_unique("augment.transforms: axes", self.axes, "an axis")
        return self


class Flip(OfAxes):
    """Mirroring, each axis by itself."""

    axes: tuple[Axis, ...] = setting(("depth", "height", "width"), "Axes that are mirrored.")
    p: float = setting(0.5, "Share of the patches that each axis mirrors.", ge=0.0, le=1.0)


class Rotate90(Transform):
    """Quarter turns in the plane of two axes, which must be of the same size in the patch."""

    axes: tuple[Axis, Axis] = setting(
        ("height", "width"),
        "The plane. Its voxels should be as long as wide: they are turned, not resampled.",
    )
    p: float = chance(0.5)


class Spatial(Transform):
    """Rotation, scaling, shift and elastic deformation, as one resampling."""

    rotation: float = setting(
        30.0,
        "Largest angle about each axis, either way, in millimetres: a head of thick slices keeps "
        "its form.",
        unit="degrees",
        ge=0.0,
        le=180.0,
    )
    p_rotation: float = chance(0.2)
    scale: tuple[Positive, Positive] = setting(
        (0.7, 1.4),
        "Factor by which the patch is enlarged; its logarithm is drawn evenly between those of the "
        "two, so that twice as large is as likely as half as large.",
    )
    p_scale: float = chance(0.2)
    stretch: float = setting(
        0.0,
        "Largest further factor of single axes, less 1; drawn with scale, or for every patch where "
        "p_scale is 0.",
        ge=0.0,
        le=1.0,
    )
    shift: float = setting(
        0.0,
        "Largest shift along each axis, fraction of the patch; drawn with rotation, or for every "
        "patch where p_rotation is 0.",
        ge=0,
        le=1,
    )
    elastic: float = setting(
        0.0,
        "Standard deviation of the displacement of the knots of a grid over the patch, fraction of "
        "its size.",
        ge=0.0,
        le=0.2,
    )
    knots: int = setting(6, "Knots of that grid along each axis.", ge=4, le=32)
    p_elastic: float = chance(0.2)
    labels: Literal["nearest", "linear"] = setting(
        "nearest",
        "nearest: the label of the nearest voxel. linear: the label with most of the weight of a "
        "linear interpolation; smoother edges, slower.",
    )

    @model_validator(mode="after")
    def _check_elastic(self) -> "Spatial":
        given = sorted(self.model_fields_set & {"p_elastic", "knots"})
        if given and "elastic" not in self.model_fields_set:
            raise ValueError(
                f"augment.transforms: spatial has {' and '.join(given)} without elastic, which is "
                "0 by itself and bends nothing: set elastic, too, such as elastic: 0.02"
            )
        return self


class Gamma(Transform):
    """Intensities, scaled to 0..1 between their extremes, to the power of gamma."""

    gamma: tuple[Positive, Positive] = span(0.7, 1.5, "Exponent")
    invert: bool = setting(False, "Of the negative image, so that bright places change most.")
    keep_moments: bool = setting(True, "Mean and standard deviation stay as they were.")
    p: float = chance(0.3)
    p_channel: float = share_of_channels()


class Brightness(Transform):
    """A number added to the intensities."""

    add: float = setting(0.2, "Largest number, either way.", unit="standard deviations", ge=0.0)
    p: float = chance(0.5)
    p_channel: float = share_of_channels()


class Scaling(Transform):
    """The intensities times a factor ("multiplicative brightness")."""

    factor: tuple[Positive, Positive] = span(0.75, 1.25, "Factor")
    p: float = chance(0.15)
    p_channel: float = share_of_channels()


class Contrast(Transform):
    """Distances from the mean times a factor."""

    factor: tuple[Positive, Positive] = span(0.75, 1.25, "Factor")
    keep_range: bool = setting(True, "Clipped to the extremes from before.")
    p: float = chance(0.15)
    p_channel: float = share_of_channels()


class GaussianNoise(Transform):
    """Gaussian noise."""

    variance: tuple[NotNegative, NotNegative] = span(0.0, 0.1, "Variance, intensities having 1")
    p: float = chance(0.1)


class RicianNoise(Transform):
    """Noise of a magnitude image: that of two channels, where the signal is weak it adds up."""

    sd: tuple[NotNegative, NotNegative] = span(
        0.0, 0.2, "Standard deviation of each of the two, intensities having 1"
    )
    p: float = chance(0.1)


class Blur(Transform):
    """Convolution with a Gaussian."""

    sigma: tuple[Positive, Positive] = span(0.5, 1.0, "Standard deviation", unit="voxels")
    p: float = chance(0.2)
    p_channel: float = share_of_channels(0.5)


class LowResolution(Transform):
    """Sampled more coarsely, then brought back to the grid."""

    zoom: tuple[PositiveShare, PositiveShare] = span(0.5, 1.0, "Resolution, 1 being as it is")
    p: float = chance(0.25)
    p_channel: float = share_of_channels(0.5)


class BiasField(Transform):
    """A smooth field of the receiver coil: intensities times the exponential of a polynomial."""

    strength: float = setting(
        0.3,
        "Largest logarithm of the field in a patch, either way; that of each patch is drawn evenly "
        "up to it.",
        gt=0.0,
        le=3.0,
    )
    order: int = setting(3, "Degree of the polynomial of the coordinates.", ge=1, le=5)
    p: float = chance(0.15)


class Ghosting(OfAxes):
    """Periodic motion: lines of k-space along one axis weakened at a regular distance, which gives
    faint copies of the image."""

    axes: tuple[Axis, ...] = setting(("height", "width"), "Axes, of which one is drawn.")
    ghosts: int = setting(4, "Largest number of copies, at least 2.", ge=2, le=16)
    intensity: tuple[Share, Share] = span(0.2, 0.6, "Share of these lines that is taken away")
    p: float = chance(0.1)


class ChannelDropout(Transform):
    """Whole modalities set to 0, never all of them."""

    p: float = chance(0.1)
    p_channel: float = share_of_channels(0.25)


class ChannelCopy(Transform):
    """Whole modalities replaced by a copy of one, as a data set fills in what was not scanned."""

    source: int = setting(0, "Place in data.modalities of the one that is copied, from 0.", ge=0)
    p: float = chance(0.1)
    p_channel: float = share_of_channels()


class CoarseDropout(Transform):
    """Boxes of the image set to 0; the label stays."""

    boxes: int = setting(8, "Boxes.", ge=1, le=64)
    size: tuple[PositiveShare, PositiveShare] = span(
        0.05, 0.2, "Length of each side, fraction of the patch"
    )
    p: float = chance(0.1)


class Imported(Transform):
    """A function of the user, called as function(image, label, seed, **options)."""

    path: str
    p: float = chance(1.0)
    options: dict[str, Any] = setting({}, "Its other arguments.")


class Term(Section):
    """One transform of a list, by its name: `{blur: {p: 0.1}}`."""

    flip: Flip | None = None
    rotate90: Rotate90 | None = None
    spatial: Spatial | None = None
    gamma: Gamma | None = None
    brightness: Brightness | None = None
    scaling: Scaling | None = None
    contrast: Contrast | None = None
    gaussian_noise: GaussianNoise | None = None
    rician_noise: RicianNoise | None = None
    blur: Blur | None = None
    low_resolution: LowResolution | None = None
    bias_field: BiasField | None = None
    ghosting: Ghosting | None = None
    channel_dropout: ChannelDropout | None = None
    channel_copy: ChannelCopy | None = None
    coarse_dropout: CoarseDropout | None = None

    @property
    def transform(self) -> Transform:
        """The one that is named."""
        (named,) = (value for _, value in self if value is not None)
        return named

    @model_validator(mode="after")
    def _check(self) -> "Term":
        named = [name for name, value in self if value is not None]
        if len(named) != 1:
            raise ValueError(
                f"each entry of augment.transforms names one transform, found {named or 'none'}: "
                "write - flip: {} for one with its defaults"
            )
        return self


def _schema_of_imported(schema: dict[str, Any]) -> None:
    schema.clear()
    entry = {IMPORT_PATH["pattern"]: {"type": "object"}}
    schema |= {"type": "object", "patternProperties": entry, "minProperties": 1}
    schema["additionalProperties"] = False


class ImportedTerm(Term):
    """One function of the user by its import path: `{my_transforms.invert: {p: 0.1, strength: 2}}`.

    `p` is the share of the patches that it changes, 1 by default; it gets the other options.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra=_schema_of_imported)

    @property
    def transform(self) -> Transform:
        """The function with its options."""
        path, options = imported_entry("augment.transforms", self.model_extra)
        share = {"p": options["p"]} if "p" in options else {}
        others = {name: value for name, value in options.items() if name != "p"}
        return Imported(path=path, options=others, **share)

    @model_validator(mode="after")
    def _check(self) -> "ImportedTerm":
        given = {name: value for name, value in self if value is not None}
        imported_entry("augment.transforms", given | (self.model_extra or {}))
        try:
            _ = self.transform
        except ValidationError as error:
            raise ValueError(f"augment.transforms: {error.errors()[0]['msg']} for p") from None
        return self


def _kind_of_term(entry: Any) -> str:
    keys = entry.model_extra or {} if isinstance(entry, Term) else entry
    return _IMPORTED if isinstance(keys, dict) and any(map(is_import_path, keys)) else _NAMED


_NAMED, _IMPORTED = "by name", "by import path"
AnyTerm = Annotated[
    Annotated[Term, Tag(_NAMED)] | Annotated[ImportedTerm, Tag(_IMPORTED)],
    Discriminator(_kind_of_term),
]


class Albumentations(Transform):
    """Albumentations' transforms, one after the other (`slice_transforms/`)."""

    terms: tuple[dict[str, dict[str, Any]], ...]


class AugmentSettings(Section):
    """Augmentation of training patches; validation patches stay as they are."""

    preset: Literal["none", "light", "nnunet", "classic_2d"] = setting(
        "none",
        "light: flips, brightness. nnunet: nnU-Net v2's ranges and probabilities. classic_2d "
        "(slices only): flips left to right, rotation, scaling, shift and elastic deformation in "
        "one resampling, gamma, contrast, brightness, noise.",
    )
    transforms: tuple[AnyTerm, ...] | None = setting(
        None,
        "A list of your own in the preset's place, such as [{flip: {axes: [width]}}, {blur: {p: "
        "0.1}}]; they are applied in this order, spatial before all others. A function of your own "
        "is named by its import path (docs/extending.md).",
    )
    albumentations: tuple[dict[str, dict[str, Any]], ...] = setting(
        (),
        "Slices only: transforms of Albumentations by name, such as [{HorizontalFlip: {p: 0.5}}, "
        "{ElasticTransform: {alpha: 40, p: 0.3}}]; applied to the patch in this order, before "
        "those of preset or transforms.",
    )

    @model_validator(mode="after")
    def _check(self) -> "AugmentSettings":
        if self.transforms is not None and self.preset != "none":
            raise ValueError(
                f"augment.preset={self.preset} and augment.transforms exclude each other: leave "
                "one of them out"
            )
        spatial = [t for t in self.transforms or () if t.spatial]
        if len(spatial) > 1:
            raise ValueError(
                f"augment.transforms has spatial {len(spatial)} times; it is one resampling, so "
                "put all of it into one"
            )
        return self


PRESETS: dict[str, tuple[Transform, ...]] = {
    "none": (),
    "light": (Flip(), Brightness(add=0.2, p=1.0)),
    # nnU-Net v2 (nnUNetTrainer.get_training_transforms), in its order.
    "nnunet": (
        Spatial(rotation=30.0, p_rotation=0.2, scale=(0.7, 1.4), p_scale=0.2),
        GaussianNoise(variance=(0.0, 0.1), p=0.1),
        Blur(sigma=(0.5, 1.0), p=0.2, p_channel=0.5),
        Scaling(factor=(0.75, 1.25), p=0.15),
        Contrast(factor=(0.75, 1.25), p=0.15),
        LowResolution(zoom=(0.5, 1.0), p=0.25, p_channel=0.5),
        Gamma(gamma=(0.7, 1.5), invert=True, p=0.1),
        Gamma(gamma=(0.7, 1.5), p=0.3),
        Flip(),
    ),
    "classic_2d": (
        Flip(axes=("width",)),
        Spatial(
            rotation=20.0,
            p_rotation=0.8,
            scale=(math.exp(-0.25), math.exp(0.25)),
            p_scale=0.8,
            stretch=0.08,
            shift=0.08,
            elastic=0.02,
            p_elastic=0.5,
        ),
        Gamma(gamma=(math.exp(-0.35), math.exp(0.35)), keep_moments=False, p=1.0),
        Scaling(factor=(0.8, 1.2), p=1.0),
        Brightness(add=0.2, p=1.0),
        GaussianNoise(variance=(0.0, 0.0225), p=0.3),
    ),
}


def transforms_of(settings: AugmentSettings) -> tuple[Transform, ...]:
    """Return the transforms that a config asks for, in their order, Albumentations' first."""
    first = (Albumentations(terms=settings.albumentations),) if settings.albumentations else ()
    if settings.transforms is not None:
        return (*first, *(term.transform for term in settings.transforms))
    return (*first, *PRESETS[settings.preset])
