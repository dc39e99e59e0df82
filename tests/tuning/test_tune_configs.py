"""The tune files in configs/: their heading, and that their space is one that trains."""

import json
from pathlib import Path

import pytest

from kerasseg.tuning.search import DEFAULT_FILE, load_search
from kerasseg.tuning.space import check_space

FILES = sorted(Path("configs").glob("tune_*.yaml"))


def load(path):
    return load_search(path, [] if "phantom" in path.stem else ["data.root=FOLDER"])


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_heading_name_and_space(path):
    heading = path.read_text().partition("\nbase:")[0]
    assert all(word in heading for word in ("Data:", "Cost:", "Expected:", "Command:"))
    if path.stem == "tune_phantom":
        assert "python tune.py\n" in heading + "\n"
    else:
        assert f"python tune.py --config {path} data.root=FOLDER" in heading
    search = load(path)
    assert search.settings.name == path.stem
    assert check_space(search.space, search.values, str(path)) == [], "no trial fails at once"


def test_the_default_is_one_of_them():
    assert DEFAULT_FILE.samefile("configs/tune_phantom.yaml") and len(FILES) == 3


def test_a_ready_search_and_a_ready_base_are_found_by_their_names(tmp_path, monkeypatch):
    space = {"optimizer.learning_rate": {"float": [1e-4, 1e-3]}}
    own = {"base": "lgg_2d", "search": {"name": "own", "space": space}}
    (tmp_path / "own.yaml").write_text(json.dumps(own))
    ready = Path("configs").resolve()
    monkeypatch.chdir(tmp_path)
    assert load(Path("tune_phantom")).file.samefile(ready / "tune_phantom.yaml")
    assert load(tmp_path / "own.yaml").values["run"] == {"name": "lgg_2d"}
