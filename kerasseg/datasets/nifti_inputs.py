"""Finding the cases that are to be predicted among NIfTI files.

They are told by their names, by their numbers, or by what is stacked in them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import Input, broken
from kerasseg.datasets.checks import NO_NAMES
from kerasseg.datasets.dataset_json import description_beside, label_ids_of_names, named_channels
from kerasseg.datasets.folders import unpacked
from kerasseg.datasets.nifti import nifti_source, read_header
from kerasseg.errors import UserError

_ANY_CASE = re.IGNORECASE | re.DOTALL
_NAME = re.compile(r"^(?:(?P<case>.+)[_-])?(?P<kind>[A-Za-z0-9]+)\.nii(?:\.gz)?$", _ANY_CASE)
_NUMBERED = re.compile(r"^(?P<case>.+)_(?P<number>\d{4})\.nii(?:\.gz)?$", _ANY_CASE)
NO_SCAN = re.compile(r"(^|[_.-])(seg|segm|segmentation|labels?|[a-z]*mask)\.nii", re.IGNORECASE)
"""Names of segmentations and of masks, such as the brain masks that skull-stripping leaves."""
_TIME_UNITS = {8: "s", 16: "ms", 24: "µs"}
"""The bits of a header's xyzt_units that say in which unit time points are apart."""

_NAMED, _NUMBERS, _STACKED = "named", "numbers", "stacked"
_FORMS = (_NAMED, _NUMBERS, _STACKED)


def named_inputs(files: list[Path], _: Sequence[Path], data: DataSettings) -> list[Input]:
    """Find the cases of files that are named by their modality, as in BraTS."""
    return _of_forms(files, data, (_NAMED,))


def numbered_inputs(files: list[Path], _: Sequence[Path], data: DataSettings) -> list[Input]:
    """Find the cases of files that are numbered by their channel, as in nnU-Net."""
    return _of_forms(files, data, (_NUMBERS,))


def stacked_inputs(files: list[Path], _: Sequence[Path], data: DataSettings) -> list[Input]:
    """Find the cases of 4-D files, as in the Decathlon."""
    return _of_forms(files, data, (_STACKED,))


def nifti_inputs(files: list[Path], _: Sequence[Path], data: DataSettings) -> list[Input]:
    """Find the cases among NIfTI files of all forms."""
    return _of_forms(files, data, _FORMS)


def _of_forms(files: list[Path], data: DataSettings, forms: Sequence[str]) -> list[Input]:
    """Find the cases among NIfTI files, folder by folder.

    _NAMED:   `<case>_<modality>.nii.gz`, or `<modality>.nii.gz` in a folder of the case's name;
              modalities by all their names. Other 3-D files beside such a case are passed over
    _NUMBERS: `<case>_0000.nii.gz`; the numbers are those of dataset.json in this folder or one of
              the two above, else of the run's own data (`data.channels`), else the places of
              `data.modalities`, if there are as many, which is said in a note
    _STACKED: 4-D files; channels likewise. A 3-D file is taken, too, by a run of one modality

    Files that are not named are opened for their headers.
    """
    folders: dict[Path, list[Path]] = {}
    for path in files:
        folders.setdefault(path.parent, []).append(path)
    result: list[Input] = []
    for folder, paths in folders.items():
        scans = [path for path in paths if not NO_SCAN.search(path.name)]
        named = _named(folder, scans, data) if _NAMED in forms else {}
        result += [_of_names(case, kinds, folder, data) for case, kinds in named.items()]
        used = {path for kinds in named.values() for group in kinds.values() for path in group}
        others = [form for form in forms if form != _NAMED]
        if others:
            rest = [path for path in scans if path not in used]
            result += _others(rest, folder, data, others, beside=bool(named))
    return result


def _named(folder: Path, paths: list[Path], data: DataSettings) -> dict[str, dict[str, list[Path]]]:
    """Group files by case id and modality."""
    groups: dict[str, dict[str, list[Path]]] = {}
    for path in paths:
        match = _NAME.match(path.name)
        kind = match["kind"].lower() if match else ""
        kind = anatomy.MODALITY_ALIASES.get(kind, kind)
        if match and kind in (*anatomy.MODALITIES, *data.modalities):
            case = match["case"] or folder.absolute().name
            groups.setdefault(case, {}).setdefault(kind, []).append(path)
    return groups


def _of_names(case: str, kinds: dict[str, list[Path]], folder: Path, data: DataSettings) -> Input:
    files = tuple(path for paths in kinds.values() for path in paths)
    reason = _lacking(tuple(kinds), data)
    if reason:
        return broken(case, files, f"{folder}: {case} {reason}")
    for kind in data.modalities:
        if len(kinds[kind]) > 1:
            first, second = kinds[kind][:2]
            return broken(case, files, f"{second}: {first.name} beside it is {kind} too: keep one.")
    source = nifti_source(data, case, [kinds[m][0] for m in data.modalities])
    return Input(source, label_ids=label_ids_of_names(files, data))


def _others(
    paths: list[Path], folder: Path, data: DataSettings, forms: Sequence[str], *, beside: bool
) -> list[Input]:
    result: list[Input] = []
    numbered: dict[str, dict[int, Path]] = {}
    doubles: dict[str, str] = {}
    description, ids = description_beside(folder, data) if paths else (None, None)
    if description:
        known = _Channels(description.channels, str(description.path), beside=True)
    else:
        known = _Channels(named_channels(data) if paths else {}, "data.channels of the run")
    for path in paths:
        case = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
        try:
            shape, header = read_header(unpacked(path))
        except UserError as error:
            result.append(broken(case, (path,), str(error)))
            continue
        match = _NUMBERED.match(path.name)
        if len(shape) == 4 and _STACKED in forms:
            stacked = _stacked(case, path, shape[3], known, ids, data)
            unlike = len(known.numbers) != shape[3] and _time_points(header, shape[3])
            result.append(broken(case, (path,), f"{path}: {unlike}") if unlike else stacked)
        elif match and _NUMBERS in forms and len(shape) == 3:
            first = numbered.setdefault(match["case"], {}).setdefault(int(match["number"]), path)
            if first != path:
                doubles[match["case"]] = f"{path}: is the same channel as {first}: keep one."
        elif len(data.modalities) == 1 and _STACKED in forms and not beside:
            result.append(Input(nifti_source(data, case, [path]), label_ids=ids))
        elif not beside:
            reason = (
                f"{path}: nothing says which modality it is, and the run needs "
                f"{', '.join(data.modalities)}: name the files <case>_{data.modalities[0]}.nii.gz "
                "and so on, or stack them in one 4-D file."
            )
            result.append(broken(case, (path,), reason))
    for case, numbers in numbered.items():
        files = tuple(numbers[number] for number in sorted(numbers))
        count = max(numbers) + 1 if known.beside else len(numbers)
        channels = _channels(known, count, data, numbered=True)
        missing = [] if isinstance(channels, str) else [n for n in channels if n not in numbers]
        if case in doubles:
            result.append(broken(case, files, doubles[case]))
        elif isinstance(channels, str):
            result.append(broken(case, files, f"{folder}: {case} {channels}"))
        elif missing:
            reason = f"{folder}: {case} has no {case}_{missing[0]:04d}.nii.gz, only "
            reason += f"{', '.join(path.name for path in files)}: add it."
            result.append(broken(case, files, reason))
        else:
            scans, note = [numbers[n] for n in channels], _guessed(known, data)
            result.append(Input(nifti_source(data, case, scans, note=note), label_ids=ids))
    return result


@dataclass(frozen=True)
class _Channels:
    """The number of each channel, and who says so; no numbers where nobody does.

    beside: it is a file near the scans, so that they must have these channels
    """

    numbers: Mapping[str, int] = field(default_factory=dict)
    said_by: str = ""
    beside: bool = False


def _stacked(
    case: str,
    path: Path,
    count: int,
    known: _Channels,
    ids: Mapping[int, int] | None,
    data: DataSettings,
) -> Input:
    channels = _channels(known, count, data)
    if isinstance(channels, str):
        return broken(case, (path,), f"{path}: {channels}")
    note = "" if len(known.numbers) == count else _guessed(_Channels(), data)
    source = nifti_source(data, case, [path], stack=(channels, count), note=note)
    return Input(source, label_ids=ids)


def _time_points(header: Any, count: int) -> str:
    """Say that the volumes of a 4-D file are time points, if its header does; else nothing.

    Programs that stack modalities leave the time between them at 0 or 1.
    """
    step, unit = float(header["pixdim"][4]), int(header["xyzt_units"]) & 0b111000
    if unit not in _TIME_UNITS or step in (0, 1):
        return ""
    return (
        f"its {count} volumes are time points, {step:g} {_TIME_UNITS[unit]} apart by the header, "
        "and no modalities: give one volume of each modality"
    )


def _guessed(known: _Channels, data: DataSettings) -> str:
    """Say in which order channels are taken where nothing names them; else nothing."""
    if known.numbers or len(data.modalities) == 1:
        return ""
    return (
        f"{NO_NAMES}: they were taken for {', '.join(data.modalities)}, in this order; a "
        "dataset.json beside the scans says it, or data.channels={…} behind the command"
    )


def _channels(
    known: _Channels, count: int, data: DataSettings, *, numbered: bool = False
) -> tuple[int, ...] | str:
    """Return the modalities' places among `count` channels, or say what is wrong.

    Where channels are `numbered` files, those that nobody needs may be missing.
    """
    numbers, as_needed = known.numbers, count == len(data.modalities)
    if numbers and (count == len(numbers) or (numbered and count < len(numbers))):
        lacking = _lacking(tuple(numbers), data)
        if lacking:
            return f"{lacking} (channels by {known.said_by})"
        return tuple(numbers[m] for m in data.modalities)
    if numbers and (known.beside or not as_needed):
        return (
            f"has {count} channel(s), but {known.said_by} names {len(numbers)}, "
            f"{', '.join(numbers)}: one of them is of another data set, or the file holds several "
            "time points."
        )
    if as_needed:
        return tuple(range(count))
    return (
        f"has {count} channel(s), but the run needs {len(data.modalities)}, "
        f"{', '.join(data.modalities)} in this order: give the channels it needs alone, or put a "
        "dataset.json beside it whose channel_names say which is which."
    )


def _lacking(found: tuple[str, ...], data: DataSettings) -> str:
    missing = [m for m in data.modalities if m not in found]
    if not missing:
        return ""
    return (
        f"has {', '.join(found)}, but the run needs {', '.join(data.modalities)}: add "
        f"{', '.join(missing)}, or use a run that was trained without."
    )
