"""Pictures (PNG, JPEG, TIFF, BMP): reading, writing, and the layout `image_pairs`."""

import unicodedata
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from kerasseg.config.data import DataSettings
from kerasseg.config.layouts import PICTURE, PICTURES
from kerasseg.datasets.case import BrokenSource, Case, CaseSource, lps_grid
from kerasseg.datasets.folders import files_below
from kerasseg.errors import UserError
from kerasseg.files import atomic_write

_GREY = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L")
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue in the grey of a colour, after ITU-R BT.601."""


def read_picture(path: Path) -> np.ndarray:
    """Read a picture (H, W, C) in the file's own numbers, C = 1 for grey and 3 for RGB.

    Raises `UserError` for a file that is damaged, has several pages or transparent pixels, or
    whose numbers are not grey values or RGB (a palette, CMYK), or would be cut to 8 bit.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TIFF tags that nobody asked for
            with Image.open(path) as image:
                _check_kind(image, path)
                # Cameras and phones turn a JPEG by a note in it, which every viewer follows.
                values = np.asarray(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read this file: change it.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read as a picture ({reason}): the file is damaged or of another "
            "kind; copy or download it again."
        ) from None
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: {error}") from None
    values = values.astype(np.uint8) * 255 if values.dtype == bool else values
    values = values[..., np.newaxis] if values.ndim == 2 else values
    if values.shape[-1] in (2, 4):
        if (values[..., -1] != 255).any():
            raise UserError(
                f"{path}: has transparent pixels, so what it shows depends on the background: "
                "save it without an alpha channel."
            )
        values = values[..., :-1]
    return values


def read_mask(path: Path, threshold: int | None) -> np.ndarray:
    """Read a mask (H, W) bool: values from `threshold` on, or the one value besides 0.

    Raises `UserError` for a coloured mask and, without a threshold, for more than one value
    besides 0.
    """
    values = one_channel(read_picture(path), path)
    if not np.isfinite(values).all():
        raise UserError(f"{path}: a mask must hold numbers, found NaN or infinite ones.")
    if threshold is not None:
        return values >= threshold
    found = np.unique(values[values != 0])
    if found.size > 1:
        raise UserError(
            f"{path}: a mask must hold 0 and one other value, found {found.size} others, such as "
            f"{', '.join(f'{v:g}' for v in found[:4])}. JPEG blurs the edges of a mask: use the "
            "original PNG, or say from which value on a pixel is tumour with "
            "data.pairs.threshold=128."
        )
    return values != 0


def read_mask_255(path: Path) -> np.ndarray:
    """Read a mask (H, W) bool. Raises `UserError` for values other than 0 and 255."""
    values = one_channel(read_picture(path), path)
    wrong = np.unique(values[(values != 0) & (values != 255)])
    if wrong.size:
        raise UserError(
            f"{path}: a mask of this data set holds 0 and 255, found also "
            f"{', '.join(f'{v:g}' for v in wrong[:4])}: restore the original file."
        )
    return values != 0


def as_channels(values: np.ndarray, channels: tuple[str, ...]) -> np.ndarray:
    """Turn (H, W, 1 or 3) into (H, W, len(channels)) float32: grey, or some of the colours."""
    pixels = values.astype(np.float32)
    if channels == ("grey",):
        return pixels if pixels.shape[-1] == 1 else (pixels @ _LUMA)[..., np.newaxis]
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    return pixels[..., [("red", "green", "blue").index(name) for name in channels]]


def write_picture(path: Path, pixels: np.ndarray, setting: str) -> None:
    """Write pixels (H, W) in one step, in the format that the suffix says.

    Raises `UserError` where it cannot be written; `setting` is what would move the file.
    """
    with atomic_write(path, setting) as temporary:
        Image.fromarray(pixels).save(temporary)


def _check_kind(image: Image.Image, path: Path) -> None:
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise UserError(f"{path}: holds {pages} pages, expected one picture a file.")
    if image.mode in ("P", "PA"):
        raise UserError(
            f"{path}: is a palette picture, whose numbers are places in a table of colours and no "
            "grey values: save it as grey or RGB."
        )
    if image.mode not in (*_GREY, "LA", "RGB", "RGBA"):
        raise UserError(
            f"{path}: has the colour mode {image.mode}, expected grey or RGB: convert it."
        )
    # Pillow has no colour mode of 16 bit and would cut such a file to 8 without a word.
    if image.mode in ("RGB", "RGBA", "LA") and any("16" in mode for mode in _raw_modes(image)):
        raise UserError(
            f"{path}: is a colour picture of 16 bit a channel, which cannot be read without loss: "
            "save it as 16-bit grey or 8-bit RGB."
        )
    # Pillow 13 exchanges height and width of such a file before it reads the rows.
    lying = image.format == "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) > 4
    if lying and any(tile[0] == "raw" for tile in getattr(image, "tile", [])):
        raise UserError(
            f"{path}: is stored on its side, with a note to turn it (tag 274): save it upright."
        )


def _raw_modes(image: Image.Image) -> list[str]:
    """Return how the parts of a file hold its pixels, such as RGB;16B."""
    # Many decoders have further arguments behind it, such as an offset in the file, with digits.
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    return [str(found[0] if isinstance(found, tuple) else found) for found in arguments]


def one_channel(values: np.ndarray, path: Path) -> np.ndarray:
    """Return the pixels (H, W) of a grey picture. Raises `UserError` for a coloured one."""
    if values.shape[-1] == 3 and (values != values[..., :1]).any():
        raise UserError(f"{path}: is a coloured picture, expected a mask in black and white.")
    return values[..., 0]


@dataclass(frozen=True)
class PairSource:
    """One picture and its mask: a case of depth 1."""

    case_id: str
    patient_id: str
    picture: Path
    mask: Path | None
    modalities: tuple[str, ...]
    threshold: int | None

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.picture, self.mask) if self.mask else (self.picture,)

    def load(self) -> Case:
        image = as_channels(read_picture(self.picture), self.modalities)[np.newaxis]
        height, width = image.shape[1:3]
        label = None
        if self.mask:
            mask = read_mask(self.mask, self.threshold)
            if mask.shape != (height, width):
                raise UserError(
                    f"{self.mask}: the mask has {mask.shape} pixels (height, width), its picture "
                    f"{self.picture.name} {(height, width)}: they must be of the same slice."
                )
            label = mask[np.newaxis].astype(np.uint8)
        grid = lps_grid((width, height, 1))
        return Case(
            case_id=self.case_id,
            patient_id=self.patient_id,
            image=image,
            label=label,
            spacing=grid.spacing,
            affine=grid.our_affine,
            modalities=self.modalities,
            grid=grid,
            classes="tumour",
            intensities=PICTURE,
        )


def discover(settings: DataSettings) -> list[CaseSource]:
    """Find every picture below `data.pairs.images` with the mask of its name.

    A picture without a mask, a mask without a picture and a name that occurs twice are broken
    cases. Where there is no masks folder at all, the pictures are cases without a segmentation.
    """
    assert settings.root is not None  # checked when the config is read
    pairs = settings.pairs
    if not settings.root.exists():
        list(files_below(settings.root))  # says so
    pictures = _by_stem(settings.root / pairs.images, "data.pairs.images")
    masks_root = settings.root / pairs.masks
    masks = _by_stem(masks_root, "data.pairs.masks") if masks_root.exists() else {}
    if pairs.mask_suffix:
        pictures = {s: p for s, p in pictures.items() if not s.endswith(pairs.mask_suffix)}
        masks = {
            s.removesuffix(pairs.mask_suffix): p
            for s, p in masks.items()
            if s.endswith(pairs.mask_suffix)
        }
    return [
        _source(stem, pictures.get(stem, []), masks.get(stem, []), settings, unlabelled=not masks)
        for stem in sorted(pictures.keys() | masks.keys())
    ]


def _source(
    stem: str, pictures: list[Path], masks: list[Path], settings: DataSettings, *, unlabelled: bool
) -> CaseSource:
    case_id = stem.replace("/", "_")
    files = (*pictures, *masks)
    reason = ""
    for paths in (pictures, masks):
        if len(paths) > 1:
            reason = f"{paths[0]} and {paths[1]} have the same name: keep one."
    if not pictures:
        reason = f"{masks[0]}: is a mask without a picture of that name in data.pairs.images."
    elif not masks and not unlabelled:
        suffix = settings.pairs.mask_suffix
        reason = (
            f"{pictures[0]}: has no mask {Path(stem).name}{suffix} in data.pairs.masks: add it, "
            "remove the picture, or set data.pairs.mask_suffix."
        )
    if reason:
        return BrokenSource(case_id, case_id, files, reason)
    return PairSource(
        case_id=case_id,
        patient_id=case_id,
        picture=pictures[0],
        mask=masks[0] if masks else None,
        modalities=settings.modalities,
        threshold=settings.pairs.threshold,
    )


def _by_stem(root: Path, setting: str) -> dict[str, list[Path]]:
    """Return pictures below a folder by their path without suffix, in one Unicode form.

    macOS writes an accent as a letter of its own, so the same name may come in both forms.
    """
    found: dict[str, list[Path]] = {}
    for folder, names in files_below(root, setting):
        for name in names:
            path = folder / name
            if path.suffix.lower() in PICTURES:
                stem = path.relative_to(root).with_suffix("").as_posix()
                found.setdefault(unicodedata.normalize("NFC", stem), []).append(path)
    return found
