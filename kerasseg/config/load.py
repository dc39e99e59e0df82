"""Reading an experiment from YAML and `section.key=value` overrides, and writing it back."""

import copy
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kerasseg.config.base import is_import_path
from kerasseg.config.experiment import Experiment
from kerasseg.config.layouts import LAYOUTS, layout_of
from kerasseg.config.loss import term_name
from kerasseg.config.messages import explain, known_keys, look_up, nearest, show
from kerasseg.errors import UserError

READY_CONFIGS = Path(__file__).parents[1] / "configs"
"""The folder of the ready configs: in the repository a link to `configs/`, in a wheel its files."""
DEMO_CONFIG = READY_CONFIGS / "phantom_3d.yaml"
"""The config that `kerasseg train` runs without arguments."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-4 as a number (YAML 1.1 asks for 1.0e-4) and refuses double keys.

    A few aliases of aliases stand for billions of values, so what they stand for is counted first.
    """

    def compose_document(self) -> yaml.Node | None:
        node: yaml.Node | None = super().compose_document()
        _count_values(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        seen: dict[Any, int] = {}
        for key_node, value_node in node.value:
            text = str(key_node.value)
            if ":" in text.strip(":") and value_node.value == "" and node.flow_style:
                wanted = text.replace(":", ": ", 1)
                raise _yaml_error(f"write a space behind the colon: {wanted}", key_node)
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int):
                raise _yaml_error(f"a key must be a name, found {key!r}", key_node)
            if key in seen:
                problem = f"key {key!r} stands here a second time, the first is in line {seen[key]}"
                raise _yaml_error(f"{problem}: put both together, or remove one", key_node)
            seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep)


def _count_values(node: Any, known: dict[int, int]) -> int:
    """Return how many values a node stands for, its aliases written out.

    Raises `yaml.YAMLError` if they are too many, or without end.
    """
    if isinstance(node, tuple):  # a key and its value
        return sum(_count_values(part, known) for part in node)
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = _MOST_VALUES  # an alias of what it stands in has no end
        known[id(node)] = 1 + sum(_count_values(part, known) for part in node.value)
    if known[id(node)] > _MOST_VALUES:
        problem = f"with its aliases it stands for more than {_MOST_VALUES} values: write them out"
        raise _yaml_error(problem, node)
    return known[id(node)]


def _yaml_error(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)

_OVERRIDE = re.compile(r"^[a-z_]+(\.\w+)+=")
_BEFORE: dict[str, dict[str, Any]] = {
    "data": {"skull_stripped": True},
    "evaluation": {"air_is_background": False},
}
"""The behaviour before there was a setting. A run folder's config.yaml holds every setting of its
time, so a run that lacks one of these goes on as it was trained and scored."""

_BAD_YAML = (yaml.YAMLError, ValueError, TypeError, RecursionError)
"""A date such as 2020-13-45 is a ValueError, a list as a key a TypeError, and lists in lists in
lists, thousands of them, are a RecursionError."""
_MOST_VALUES = 100_000


def parse_yaml(text: str) -> Any:
    """Return the only document of a YAML text.

    Raises `ValueError` if it is no YAML, or stands for too many values; the sentence says in which
    line.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (_Loader is a SafeLoader)
    except _BAD_YAML as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1} " if mark else ""
        wrong = "".join(text.splitlines()[mark.line : mark.line + 1]) if mark else ""
        raise ValueError(f"{line}is not valid YAML: {_problem(error, wrong)}") from None


def load_experiment(path: Path | str | None, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from a YAML file, then apply overrides in order.

    Raises `UserError` if a setting is wrong. The message names file or override, the key, what was
    found, what is allowed and, for an unknown key, the nearest known one.

    Args:
        path: The file, or the name of a ready config; without one the defaults stand.
        overrides: `section.key=value` texts.
    """
    values = {} if path is None else read_yaml(Path(path))
    if "search" in values:
        raise UserError(f"{path}: is a tune file: give it to kerasseg tune --config {path}.")
    optimizer = values.get("optimizer")
    if isinstance(optimizer, dict) and optimizer.get("name") == "muon":
        # An older version had a Muon of its own, whose place Keras's took. That changes nothing for
        # a trained network; the training of such a run cannot go on (run.latest_run_folder).
        own = ("momentum", "nesterov", "beta_1", "beta_2")
        kept = {key: value for key, value in optimizer.items() if key not in own}
        values["optimizer"] = kept | {"name": "keras.optimizers.Muon"}
    return make_experiment(values, overrides, "override" if path is None else str(path))


def make_experiment(
    values: dict[str, Any], overrides: Sequence[str] = (), where: str = "override"
) -> Experiment:
    """Make the experiment of `values`, as read from YAML; overrides are applied to them in place.

    Raises `UserError` as `load_experiment` does; `where` is the file that it names.
    """
    before = copy.deepcopy(values)
    for override in overrides:
        apply_override(values, override)
    try:
        return _validate(values)
    except ValidationError as error:
        overridden = [text.partition("=")[0].strip() for text in overrides]
        if overridden:
            with suppress(ValidationError):
                _validate(before)
                where = "override"  # The file alone is right.
        raise UserError(explain(error, values, where, overridden)) from None


def _validate(values: dict[str, Any]) -> Experiment:
    return Experiment.model_validate_json(json.dumps(values, default=str), strict=True)


def neutral_values(overrides: Sequence[str]) -> dict[str, Any] | None:
    """Return what a config of a data set would hold besides its defaults, or None without one.

    It is for verbs without a config whose overrides name `data.layout` and `data.root`: the run is
    called after the folder, and pictures are segmented in 2-D. Raises `UserError` for a folder
    without a layout, which the demo would pass over.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        if override.split(".")[0].split("=")[0].strip() == "data":
            apply_override(values, override)
    layout, root = (look_up(values, key) for key in ("data.layout", "data.root"))
    if layout is None and root is not None:
        load_experiment(None, overrides)  # refuses a setting that is misspelt, such as data.layot
        raise UserError(
            f"data.root={root}: how are its files laid out? Name data.layout, too, such as "
            "data.layout=brats_nifti, or a config with --config."
        )
    if layout in (None, Experiment().data.layout):  # what the demo has
        return None
    name = re.sub(r"[^\w.-]+", "_", Path(str(root or layout)).expanduser().resolve().name)
    found: dict[str, Any] = {"run": {"name": name.lstrip(".-") or layout}}
    known = layout in tuple(LAYOUTS) or is_import_path(layout)  # else the config's check says it
    facts = layout_of(layout) if known else None
    only_tumour = facts is not None and facts.classes[0] == "tumour"
    if only_tumour or look_up(values, "data.classes") == "tumour":
        found["model"] = {"target": "binary"}
    if facts is not None and not facts.knows_spacing:
        found.setdefault("model", {})["dimensions"] = 2
        found["pipeline"] = {"patch_size": [128, 128]}
    return found


def dump_experiment(experiment: Experiment) -> str:
    """Return the resolved experiment as YAML that `load_experiment` reads back unchanged."""
    return yaml.safe_dump(
        json.loads(experiment.model_dump_json()), sort_keys=False, default_flow_style=None
    )


def dump_without_folders(experiment: Experiment) -> str:
    """Return the settings as YAML, of the machine's absolute paths only the last name."""

    def shorten(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shorten(each) for key, each in value.items()}
        if isinstance(value, list):
            return [shorten(each) for each in value]
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    return yaml.safe_dump(shorten(json.loads(experiment.model_dump_json())), sort_keys=False)


def differences(old: Experiment, new: Experiment, sections: Iterable[str]) -> list[str]:
    """Return the settings of `sections` in which two experiments differ: 'key: old -> new'.

    Losses with the same terms are compared option by option, other losses as a whole, and so are
    those with a term of the user, in whose name dots stand.
    """
    same_terms = _term_names(old.loss) == _term_names(new.loss)
    before, after = (flat_settings(e, sections, single_terms=same_terms) for e in (old, new))
    return [f"{key}: {before[key]} -> {after[key]}" for key in after if before[key] != after[key]]


def flat_settings(
    experiment: Experiment, sections: Iterable[str], *, single_terms: bool = True
) -> dict[str, Any]:
    """Return the settings of `sections` by their dotted names, as they stand in a file.

    With `single_terms` each option of each term of the loss has an entry, else all have one.
    """
    keys = list(known_keys())
    leaves = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    values = json.loads(experiment.model_dump_json())
    if single_terms and not any(map(is_import_path, _term_names(experiment.loss))):
        at = leaves.index("loss")
        leaves[at : at + 1] = [f"loss.{i}.{k}" for i, t in enumerate(values["loss"]) for k in t]
    return {key: look_up(values, key) for key in leaves if key.split(".")[0] in sections}


def _term_names(loss: Sequence[Any]) -> list[str]:
    return [term_name(term) or "?" for term in loss]


def find_config(path: Path) -> Path:
    """Return the ready config that a bare name such as `brats20_3d` stands for, or else the path.

    A file of that very name in the working folder comes first.
    """
    ready = READY_CONFIGS / f"{path}.yaml"
    return ready if len(path.parts) == 1 and not path.is_file() and ready.is_file() else path


def ready_configs() -> dict[str, str]:
    """Return the heading of each ready config, without its comment signs, by the config's name."""
    return {path.stem: _read_heading(path) for path in sorted(READY_CONFIGS.glob("*.yaml"))}


def _read_heading(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in comments)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the sections of a YAML file, or of the ready config of that name.

    Raises `UserError` if it cannot be read as one.
    """
    path = find_config(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file{_other_configs(path)}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a config file: {error}.") from None
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: a config is sections of `key: value`, found {show(values)}.")
    if (path.parent / "environment.json").is_file():
        for name, before in _BEFORE.items():
            if isinstance(section := values.get(name), dict):
                values[name] = before | section
    return values


def _problem(error: Exception, text: str) -> str:
    """Return what is wrong with YAML, whose line `text` it is, and what to do where it is known."""
    if ("{case}" in text or "{patient}" in text) and "'{" not in text and '"{' not in text:
        return "a pattern that begins with a brace needs quotes, such as '{case}_flair.nii.gz'"
    return str(getattr(error, "problem", None) or error)


def _other_configs(path: Path) -> str:
    near = sorted(str(p) for p in path.parent.glob("*.yaml"))
    files = f"; there are {', '.join(near)}" if near else ""
    if near and len(path.parts) > 1:
        return files
    return f"{files}; ready configs, found by their names, are {', '.join(ready_configs())}"


def split_settings(arguments: Sequence[str]) -> tuple[list[Path], tuple[str, ...]]:
    """Tell paths from section.key=value overrides that are no paths."""
    found = tuple(text for text in arguments if _OVERRIDE.match(text) and not Path(text).exists())
    return [Path(text) for text in arguments if text not in found], found


def apply_override(values: dict[str, Any], override: str) -> None:
    """Apply a `section.key=value` override to `values`."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UserError(f"override {override!r}: expected section.key=value.")
    try:
        value = parse_yaml(text)
    except ValueError as error:
        problem = str(error).rpartition("is not valid YAML: ")[2]
        raise UserError(f"override {override!r}: the value is not valid YAML: {problem}.") from None
    node: Any = values
    *sections, last = key.split(".")
    for index, section in enumerate(sections):
        child = _child(node, section)
        if child is None and node is values and section == "loss":
            # The default list is put there, so that one number of it can be replaced.
            child = node[section] = json.loads(Experiment().model_dump_json())[section]
        elif child is None and isinstance(node, dict):
            child = node[section] = {}
        if not isinstance(child, dict | list):
            if isinstance(node, list):
                raise UserError(_not_in_list(override, sections[:index], node))
            raise UserError(f"override {override!r}: {section} is no section.{nearest(key)}")
        node = child
    if isinstance(node, dict):
        node[last] = value
    elif last.isdigit() and int(last) < len(node):
        node[int(last)] = value
    else:
        raise UserError(_not_in_list(override, sections, node))


def _not_in_list(override: str, sections: Sequence[str], node: list[Any]) -> str:
    name = ".".join(sections)
    if name != "loss":
        return (
            f"override {override!r}: {name} is a list of {len(node)}; name one of them by its "
            "number, from 0."
        )
    terms = ", ".join(f"loss.{i} ({term})" for i, term in enumerate(_term_names(node)))
    return (
        f"override {override!r}: loss is a list of {len(node)} term(s): {terms}. Name one of them, "
        "or give the whole list: 'loss=[{dice: 0.5}, {focal: 0.5}]'."
    )


def _child(node: Any, key: str) -> Any:
    if isinstance(node, dict):
        return node.get(key)
    return node[int(key)] if key.isdigit() and int(key) < len(node) else None
