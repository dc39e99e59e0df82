"""The pages as a reader uses them: commands that parse, settings that exist, links that lead on.

The code of docs/notebook.md runs in test_api.py, that of docs/extending.md in test_extending.py.
"""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from kerasseg.cli.main import EXAMPLES, build_program, main
from kerasseg.cli.options import read_experiment
from kerasseg.config.augment import PRESETS, Term
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import (
    apply_override,
    find_config,
    load_experiment,
    parse_yaml,
    ready_configs,
    split_settings,
)
from kerasseg.config.loss import TERMS
from kerasseg.config.messages import known_keys
from kerasseg.config.tuning import SearchSettings
from kerasseg.tuning.search import load_search
from tests.conftest import write_brats

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
PROGRAMS = (
    ["kerasseg"],
    ["python", "-m", "kerasseg"],
    ["python", "train.py"],
    ["python", "tune.py"],
)
PROGRAM = get_command(build_program())
NEED_A_MODEL = ("predict", "savedmodel", "serving_local", "onnx", "notebook", "extending")
"""Pages whose Python needs a trained model, a server or modules; other tests run what they show."""
OF_RUNS = ("evaluate", "compare", "predict", "export")
"""Verbs whose settings change those of a run."""


def blocks_of(page, *languages):
    """The code blocks of a page in one of the languages."""
    return [text for _, language, text in BLOCK.findall(page.read_text()) if language in languages]


def commands_of(page):
    """The commands of ours in a page's shell blocks, as lists of words that begin with the verb."""
    for block in blocks_of(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):  # the command's environment
                del words[0]
            for program in PROGRAMS:
                if words[: len(program)] == program:
                    end = words.index(">") if ">" in words else len(words)
                    verb = [program[-1][:-3]] if program[-1].endswith(".py") else []
                    yield verb + words[len(program) : end]


COMMANDS = [(page, words) for page in PAGES for words in commands_of(page)]


def check_settings(verb, context):
    """Read the settings of a command as its verb does, with the config that it names."""
    given = [text for value in context.params.values() for text in as_list(value)]
    settings = [text for text in given if re.match(r"[a-z]+(\.\w+)*=", text)]
    config = context.params.get("config")
    config = config and Path(config)  # older typers leave it a text
    if config and not find_config(config).exists():  # a file that the reader makes
        of_search = [text for text in settings if text.startswith("search.")]
        for text in settings:
            if text not in of_search:
                apply_override(yaml.safe_load(Experiment().model_dump_json()), text)
        assert {text[7:].split("=")[0].split(".")[0] for text in of_search} <= set(
            SearchSettings.model_fields
        )
        return
    if verb == "tune":
        load_search(config, settings)
    elif verb in OF_RUNS:
        given = split_settings(settings)[1]
        if any(text.startswith("model.sam.") for text in given):
            load_experiment(find_config(Path("sam_lgg_2d")), given)
        else:
            load_experiment(None, ["data.root=scans", "model.target=regions", *given])
    elif settings or config:
        read_experiment(config, settings, warn=False)


def as_list(value):
    return map(str, value) if isinstance(value, list | tuple) else []


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=[f"{page.stem}: {' '.join(words)}" for page, words in COMMANDS]
)
def test_a_command_is_understood_with_its_settings(page, words):
    if words[:1] == ["--version"] or words == ["--help"]:
        return
    command, verb, rest = PROGRAM, "", words
    while hasattr(command, "commands"):
        assert rest and rest[0] in command.commands, f"kerasseg has no verb {rest[:1]}"
        command, verb, rest = command.commands[rest[0]], f"{verb} {rest[0]}".strip(), rest[1:]
    if rest != ["--help"]:
        check_settings(verb, command.make_context(verb, list(rest)))


TINY = (
    "pipeline={patch_size: [8, 16, 12], patches_per_volume: 1}",
    "model={features: [4], bottleneck: 6, target: regions}",
    "training={epochs: 1, batch_size: 1}",
    "optimizer.learning_rate=0.01",
    "records.workers=1",
)


@pytest.mark.slow
@pytest.mark.all_only
def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, phantoms):
    """On small scans, which is what FOLDER and SCANS stand for, and with a small network."""
    for folder, numbers in (("FOLDER", range(4)), ("SCANS", (5,))):
        for number in numbers:
            write_brats(tmp_path / folder, f"BraTS2021_{number:05d}", phantoms[number])
    monkeypatch.chdir(tmp_path)
    for words in commands_of(ROOT / "README.md"):
        if words[0] == "app":  # it serves until it is stopped: tests/app
            continue
        with pytest.raises(SystemExit) as end:
            main([*words, *(TINY if words[0] in ("verify", "train") else ())], "kerasseg")
        assert not end.value.code, words
    assert (tmp_path / "runs" / "brats_regions_3d" / "evaluation_test" / "report.html").exists()
    assert (tmp_path / "predictions" / "BraTS2021_00005.nii.gz").exists()
    assert (tmp_path / "models" / "brats" / "1" / "saved_model.pb").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_are_what_they_say(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks_of(page, "bash"):
        done = subprocess.run(
            ["bash", "-n"], input=block, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
    for block in blocks_of(page, "python"):
        tree = ast.parse(block)
        if page.stem in NEED_A_MODEL:  # only its imports are tried
            imports = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
            tree.body = [n for n in imports if "kerasseg" in ast.unparse(n)]
        exec(compile(tree, page.name, "exec"), {})
    for number, block in enumerate(blocks_of(page, "yaml")):
        if page.stem == "extending":
            continue  # test_extending.py reads it, beside the modules that it names
        file = tmp_path / f"{number}.yaml"
        file.write_text(block)
        values = parse_yaml(block)
        if "search" in values:
            (tmp_path / "phantom_2d.yaml").write_bytes(find_config(Path("phantom_2d")).read_bytes())
            load_search(file)
        else:
            load_experiment(file)


READY = re.compile(r"`(tune_\w+|\w+_[23]d(?:_\w+)?)`")
NAMES = re.compile(rf"`((?:{'|'.join([*Experiment.model_fields, 'search'])})\.[\w.]+)(?=[`=:])")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_settings_and_configs_that_the_text_names_exist(page):
    assert set(READY.findall(page.read_text())) <= {*ready_configs(), *PRESETS}
    known = {*known_keys(), *(f"search.{name}" for name in SearchSettings.model_fields)}
    for name in set(NAMES.findall(page.read_text())):
        if name.endswith((".csv", ".json", ".md", ".py", ".yaml")):
            continue  # a file
        if name.startswith("loss."):
            assert re.fullmatch(r"loss\.\d+\.\w+", name), name
        elif not name.startswith("search.space."):
            assert name in known, f"{page.name} names {name}"


LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#([\w-]+))?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(page.read_text()):
        file = (page.parent / target).resolve()
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in slugs, f"{page.name} links to {target}#{anchor}"


def test_the_readme_is_short_and_each_page_is_in_the_index_and_the_menu():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    index = (DOCS / "index.md").read_text()
    menu = (ROOT / "mkdocs.yml").read_text()
    for page in DOCS.glob("*.md"):
        assert page.stem == "index" or f"({page.name})" in index, f"docs/index.md: {page.name}"
        assert f"- {page.name}" in menu, f"nav of mkdocs.yml: {page.name}"


def test_the_map_of_the_code_names_each_part():
    page = (DOCS / "architecture.md").read_text()
    for part in sorted((ROOT / "kerasseg").glob("[!_]*")):
        name = f"{part.name}/" if part.is_dir() else part.name
        assert name == "py.typed" or name in page, f"docs/architecture.md: {name}"
    house = (ROOT / "scripts" / "house.py").read_text()
    files, lines = re.search(r"^FILES, LINES, .* = (\d+), ([\d_]+),", house, re.MULTILINE).groups()
    assert f"at most {files} files and {int(lines):,} lines" in page


def test_the_reference_has_every_setting_and_every_verb(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import mkdocs_reference

    pages = {name: (DOCS / f"{name}.md").read_text() for name in ("settings", "commands")}
    filled = {name: mkdocs_reference.on_page_markdown(text) for name, text in pages.items()}
    for name, text in filled.items():
        assert len(text) > 10 * len(pages[name]) and "<!--" not in text
    keys = list(known_keys())
    sections = {key.rpartition(".")[0] for key in keys} | set(Experiment.model_fields) - {"loss"}
    for key in set(keys) - sections:
        assert f"\n| `{key}` | " in filled["settings"], key
    for name in (*TERMS, *Term.model_fields):
        assert f" `{name}` of `" in filled["settings"], name
    assert "| `data.pairs.threshold` | `null` | a whole number, at least 1" in filled["settings"]
    assert "| `loss` | `[{dice: 0.5}, {focal: 0.5}]` |" in filled["settings"]
    verbs = re.findall(r"^## `kerasseg (.*)`$", filled["commands"], re.MULTILINE)
    assert verbs == list(EXAMPLES)
    row = r"\| `--fold (<int>|INTEGER)` \| Validate on this part of split\.folds"
    assert re.search(row, filled["commands"]), "the options of a verb"
    sys.modules.pop("mkdocs_reference")
