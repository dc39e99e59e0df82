"""The layouts of data sets: one row of facts for each, and nothing else asks for a layout's name.

A layout of your own is such a row in a module of your own, which `data.layout` names by its import
path (docs/extending.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from kerasseg import anatomy
from kerasseg.config.base import import_object

NIFTI: Final = (".nii", ".nii.gz")
H5: Final = (".h5",)
PICTURES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_COLOURS: Final = ("red", "green", "blue")
_ALL: Final = ("subregions", "tumour")
LGG: Final = (anatomy.T1, anatomy.FLAIR, anatomy.T1CE)
"""Red, green and blue of the slices of LGG."""
VOLUMES: Final = "the intensities of a scanner"
SLICES: Final = "slices that were normalised one by one"
PICTURE: Final = "slices as pictures of 8 or 16 bit"
"""The intensities that the files of a layout can have."""
_DATASETS = "kerasseg.datasets."


@dataclass(frozen=True)
class Layout:
    """How the files of a data set lie, and what they hold.

    Functions may be given as such or by their import paths. `data` is section `data` of the config.

    Attributes:
        discover: Called as discover(data); returns the sources of the cases below `data.root`.
        files: The files that it looks for, for messages.
        inputs: Called as inputs(files, paths, data) with all files of `suffixes` in the paths that
            the user gives; returns the cases that are to be predicted. None: predictions only find
            files that the package recognises.
        suffixes: How the names of its files end.
        recognised: Files of this layout can be told from those of other layouts without settings.
        needs_root: The files lie in `data.root`.
        modalities: The default of `data.modalities`.
        channels: Groups of channels, of one of which `data.modalities` must be a part; none where
            any modality may be there.
        channels_setting: The setting of `data` that names the channels instead.
        holder: What holds the channels, for messages.
        classes: What segmentations may tell apart, rows of `anatomy.CLASSES`, the default first.
        label_map: The default of `data.label_map`: the files' ids -> canonical ids. It is empty
            where each data set says its own, and None where the layout takes no label map.
        label_ids: Called as label_ids(files, data); returns canonical id -> own id of a case, or
            None where its files do not tell.
        convention: The row of `labels.CONVENTIONS` that predictions are written with if neither the
            files nor the config say another.
        knows_spacing: The files say how large a voxel is; without, cases are pictures, which
            `data.size` resizes.
        skull_stripped: The default of `data.skull_stripped`.
        intensities: What the intensities of its files are, for a warning where a run of others is
            to predict them; empty where that depends.
        single_pictures: Every case is a single picture, and so is its prediction.
        knows_patients: Names of files or folders tell which cases are of one patient.
        settings: The settings of section `data` that only this layout has. Like modalities, classes
            and label map they change the bytes of a store.
    """

    discover: Callable[[Any], Any] | str
    files: str
    inputs: Callable[..., Any] | str | None = None
    suffixes: tuple[str, ...] = ()
    recognised: bool = False
    needs_root: bool = True
    modalities: tuple[str, ...] = anatomy.MODALITIES
    channels: tuple[tuple[str, ...], ...] = ()
    channels_setting: str = ""
    holder: str = ""
    classes: tuple[str, ...] = _ALL
    label_map: Mapping[int, int] | None = None
    label_ids: Callable[..., Any] | str | None = None
    convention: str = "brats"
    knows_spacing: bool = True
    skull_stripped: bool = True
    intensities: str = ""
    single_pictures: bool = False
    knows_patients: bool = True
    settings: tuple[str, ...] = field(default=())

    def function(self, name: str) -> Callable[..., Any]:
        """Return the function of the attribute `name`, imported if it is an import path."""
        given: Any = getattr(self, name)
        if isinstance(given, str):
            given = import_object("data.layout", given, "a function")
        return given


LAYOUTS: Final[Mapping[str, Layout]] = MappingProxyType(
    {
        "phantom": Layout(
            _DATASETS + "phantom.discover",
            "generated",
            needs_root=False,
            intensities=VOLUMES,
            channels=(anatomy.MODALITIES,),
            holder="a phantom",
            classes=("subregions",),
            convention="brats23",
            settings=("phantom",),
        ),
        "brats_nifti": Layout(
            _DATASETS + "brats_nifti.discover",
            "<case>_flair.nii.gz or <case>-t2f.nii.gz",
            inputs=_DATASETS + "nifti_inputs.named_inputs",
            suffixes=NIFTI,
            intensities=VOLUMES,
            recognised=True,
            label_map=anatomy.BRATS_LABEL_MAP,
            label_ids=_DATASETS + "dataset_json.label_ids_of_names",
        ),
        "brats_h5": Layout(
            _DATASETS + "brats_h5.discover",
            "volume_<id>_slice_<s>.h5",
            inputs=_DATASETS + "inputs.h5_inputs",
            suffixes=H5,
            intensities=SLICES,
            recognised=True,
            channels_setting="h5_image_channels",
            classes=("subregions",),
            settings=("h5_image_channels", "h5_mask_channels", "h5_slices"),
        ),
        "msd": Layout(
            _DATASETS + "dataset_json.discover_msd",
            "dataset.json and the 4-D NIfTI files that it names",
            inputs=_DATASETS + "nifti_inputs.stacked_inputs",
            suffixes=NIFTI,
            intensities=VOLUMES,
            recognised=True,
            label_map={},
            label_ids=_DATASETS + "dataset_json.label_ids_beside",
            convention="msd",
        ),
        "nnunet": Layout(
            _DATASETS + "dataset_json.discover_nnunet",
            "dataset.json and imagesTr/<case>_0000.nii.gz",
            inputs=_DATASETS + "nifti_inputs.numbered_inputs",
            suffixes=NIFTI,
            intensities=VOLUMES,
            recognised=True,
            label_map={},
            label_ids=_DATASETS + "dataset_json.label_ids_beside",
            convention="brats23",
        ),
        "lgg": Layout(
            _DATASETS + "lgg.discover",
            "<patient>_<n>.tif and <patient>_<n>_mask.tif",
            inputs=_DATASETS + "inputs.slice_inputs",
            suffixes=PICTURES,
            intensities=PICTURE,
            recognised=True,
            modalities=LGG,
            channels=(LGG,),
            holder="the files of lgg",
            classes=("tumour",),
            knows_spacing=False,
            skull_stripped=False,
        ),
        "image_pairs": Layout(
            _DATASETS + "pictures.discover",
            "pictures in data.pairs.images below it",
            inputs=_DATASETS + "inputs.pair_inputs",
            suffixes=PICTURES,
            intensities=PICTURE,
            modalities=("grey",),
            channels=(("grey",), _COLOURS),
            classes=("tumour",),
            knows_spacing=False,
            skull_stripped=False,
            single_pictures=True,
            knows_patients=False,
            settings=("pairs",),
        ),
        "nifti": Layout(
            _DATASETS + "nifti_patterns.discover",
            "the patterns of data.files",
            inputs=_DATASETS + "nifti_patterns.inputs",
            suffixes=NIFTI,
            intensities=VOLUMES,
            label_map=anatomy.BRATS_LABEL_MAP,
            settings=("files", "segmentation"),
        ),
    }
)
"""Name of a layout in `data.layout` -> its facts."""


def layout_of(name: str) -> Layout:
    """Return the facts of a layout by its name, or by its import path.

    Raises `UserError` if there is no such layout.
    """
    if name in LAYOUTS:
        return LAYOUTS[name]
    return import_object("data.layout", name, "a kerasseg.config.layouts.Layout", Layout)
