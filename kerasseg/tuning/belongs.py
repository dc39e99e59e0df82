"""Whether the folder of a search is of this very search."""

from typing import Any

from kerasseg.config_file import differences, make_experiment
from kerasseg.errors import UserError
from kerasseg.settings.tuning import SearchSettings
from kerasseg.tuning.parameter import same
from kerasseg.tuning.search import Search
from kerasseg.tuning.search_file import FILE_NAME, ORACLE, read_search_file
from kerasseg.write_aside import write_aside

_MAY_CHANGE = {
    "name",
    "root",
    "max_trials",
    "minutes",
    "baseline",
    "parallel",
    "stop_after_failures",
    "worker_timeout",
    "chief_timeout",
}
_BASE_MAY_CHANGE = (
    "run.name",
    "run.root",
    "records.workers",
    "records.root",
    "data.root",
    "pipeline.prefetch",
    "training.devices",
    "training.callbacks",
)
"""They say where, how long and on what it is searched, not what."""


def check_belongs(search: Search) -> bool:
    """Whether the folder holds trials of this search to go on with; False if there are none.

    Raises `UserError` with the differences if it is of another search.
    """
    path = search.folder / FILE_NAME
    if not path.exists():
        if (search.folder / ORACLE).exists():
            raise UserError(
                f"{search.folder} holds trials, but {FILE_NAME}, which says of which search, is "
                "gone: put it back, use another search.name, or remove the folder."
            )
        return False
    try:
        old, content = read_search_file(search.folder)
        base = make_experiment(content["base"], where=str(path))
    except UserError as error:
        raise UserError(f"{error}\nUse another search.name, or remove {search.folder}.") from None
    changed = _changed(old, search.settings)
    changed += [
        difference
        for difference in differences(base, search.base, type(base).model_fields)
        if not difference.startswith(_BASE_MAY_CHANGE)
    ]
    if changed:
        raise UserError(
            f"{search.folder} belongs to another search: {'; '.join(changed)}. Set these back to "
            "go on with it, or search under another search.name."
        )
    return True


def _changed(old: SearchSettings, new: SearchSettings) -> list[str]:
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    spaces = [values.pop("space") for values in (before, after)]
    changed = [
        f"search.{name}: {before[name]} -> {after[name]}"
        for name in after
        if name not in _MAY_CHANGE and not same(before[name], after[name])
    ]
    for name in dict.fromkeys([*spaces[0], *spaces[1]]):
        entries: list[Any] = [space.get(name) for space in spaces]
        if not same(*entries):
            words = [entry if entry is not None else "not searched" for entry in entries]
            changed.append(f"search.space: {name}: {words[0]} -> {words[1]}")
    return changed


def write_search(search: Search) -> None:
    """Write `search.yaml`."""
    search.folder.mkdir(parents=True, exist_ok=True)
    with write_aside(search.folder / FILE_NAME, "search.root") as temporary:
        temporary.write_text(search.as_yaml(), encoding="utf-8")
