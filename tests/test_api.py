"""What `import kerasseg` offers, and docs/notebook.md, which is the notebook in examples/, too."""

import json
import pydoc
import re
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import create_autospec

import keras
import numpy as np
import pytest

import kerasseg
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import load_experiment
from kerasseg.errors import UserError
from tests.conftest import phantom_experiment

ROOT = Path(__file__).parents[1]


def test_help_is_a_table_of_contents():
    text = pydoc.plain(pydoc.render_doc(kerasseg))
    for name in ("train", "evaluate", "predict", "load", "open_store"):
        assert f"\n    {name}(" in text, name
        assert "Examples:" in getattr(kerasseg, name).__doc__, name
    assert set(kerasseg.__all__) <= set(dir(kerasseg))
    assert callable(kerasseg.models.unet) and kerasseg.models.unet.__doc__
    assert kerasseg.Client.__doc__ and callable(kerasseg.train)
    for package in (kerasseg.losses, kerasseg.metrics, kerasseg.models):
        assert all(getattr(package, name).__doc__ for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        _ = kerasseg.fit


@pytest.mark.usefixtures("steps_not_traced")
def test_the_notebook_is_the_code_of_the_page_and_runs(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "notebook.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    notebook = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    joined = "\n".join(cells[:-1])
    assert [line for line in joined.splitlines() if line] == [
        line for line in blocks[0].splitlines() if line
    ]
    assert len(blocks[0].splitlines()) <= 20
    monkeypatch.chdir(tmp_path)
    opened = kerasseg.open_store
    few = (
        "data.phantom.cases=4",
        "pipeline.patches_per_volume=1",
        "pipeline.validation_patches_per_volume=1",
    )
    monkeypatch.setattr(kerasseg, "open_store", lambda config: opened(config, few))
    names = {}
    for cell in cells[:-1]:
        exec(compile(cell, "quickstart.ipynb", "exec"), names)
    scores = eval(cells[-1], names)
    assert len(scores) == 2 and all(0 <= score <= 1 for score in scores)
    exec(compile(blocks[2], "notebook.md", "exec"), names)
    assert np.isfinite(names["logs"]["loss"])
    # Whole runs are shown in test_extending.py; here only that the page calls what there is.
    whole = ("train", "evaluate", "predict", "load")
    called = {name: create_autospec(getattr(kerasseg, name)) for name in whole}
    exec(compile(blocks[1], "notebook.md", "exec"), {"kerasseg": SimpleNamespace(**called)})
    assert all(mock.called for mock in called.values())


def test_a_store_gives_the_batches_of_a_run(phantom_store, tmp_path):
    folder = phantom_store.root.parent
    experiment = phantom_experiment(folder, "records.cases_per_shard=3")
    store = kerasseg.open_store(experiment, ["training.batch_size=3"])
    assert set(store.split.train) | set(store.split.validation) <= set(store.records.rows)
    image, masks = next(iter(store.training()))
    assert image.shape == (3, 8, 16, 12, 4) and image.dtype == "float32"
    assert masks.shape == (3, 8, 16, 12, 3) and masks.dtype == "uint8"
    shapes = [masks.shape[0] for _, masks in store.validation()]
    patches = len(store.split.validation) * experiment.pipeline.validation_patches_per_volume
    assert set(shapes[:-1]) <= {3} and sum(shapes) == patches
    first, again = (next(iter(store.validation()))[0].numpy() for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_config_is_a_file_a_dict_or_an_experiment(tmp_path):
    from kerasseg.api import _read

    values = {"training": {"epochs": 3}}
    (tmp_path / "c.yaml").write_text(json.dumps(values))
    for config in (tmp_path / "c.yaml", str(tmp_path / "c.yaml"), values, Experiment()):
        experiment = _read(config, ["training.epochs=5"])
        assert experiment == load_experiment(None, ["training.epochs=5"])
    assert values == {"training": {"epochs": 3}}
    with pytest.raises(UserError, match=r"config: training\.epochs: found -1"):
        _read({"training": {"epochs": -1}}, ())


def test_the_unet_is_a_keras_model_of_the_settings():
    network = kerasseg.models.unet(3, dimensions=2, target="regions", features=(2,), bottleneck=4)
    assert isinstance(network, keras.Model) and network.input_shape == (None, None, None, 3)
    assert network.output_shape[-1] == 3
