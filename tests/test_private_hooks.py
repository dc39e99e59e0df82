"""Private names of other libraries: each is where `private_hooks.py` expects it, and only there."""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest
from keras_tuner import HyperParameters, Objective, oracles

import kerasseg
from kerasseg import private_hooks as hooks

KERAS = f"Keras {keras.__version__} moved {{}}: mend kerasseg/private_hooks.py"
TUNER = "KerasTuner moved {}: mend kerasseg/private_hooks.py"
PUBLIC = {"_replace", "_asdict", "_fields", "_exit"}
"""Names with an underscore that Python documents: of named tuples, and `os._exit`."""
PRIVATE_MODULES = ("keras.src", "tensorflow.python", "keras_tuner.src")


def foreign_private_names(source: str) -> list[str]:
    """Private modules that `source` imports and private attributes that it does not define."""
    tree = ast.parse(source)
    own, found = set(PUBLIC), []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            # An attribute of another object is not defined by being set.
            own |= {node.attr} if ast.unparse(node.value) in ("self", "cls") else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            dunder = node.attr.startswith("__") and node.attr != "__internal__"
            private = node.attr.startswith("_") and not dunder and node.attr not in own
            found += [ast.unparse(node)] if private else []
            continue
        else:
            continue
        found += [name for name in names if f"{name}.".startswith(PRIVATE_MODULES)]
    return found


def test_no_other_file_of_the_package_uses_private_names():
    package = Path(kerasseg.__file__).parent
    for path in package.rglob("*.py"):
        if path.name != "private_hooks.py":
            found = foreign_private_names(path.read_text(encoding="utf-8"))
            assert not found, f"{path} uses {found}: give each a name in private_hooks.py"


@pytest.mark.parametrize(
    "line",
    [
        "from keras.src import losses",
        "import tensorflow.python.framework.ops",
        "from keras_tuner.src.engine.oracle import Oracle",
        "model._loss_tracker.reset_state()",
        "model._epoch = 1",
        "tf.__internal__.tracking",
    ],
)
def test_the_search_for_private_names_finds(line):
    assert foreign_private_names(line)


@pytest.fixture
def model() -> keras.Model:
    """A compiled network of one layer."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(), "mse")
    return model


def test_loss_tracker(model):
    message = KERAS.format("Model._loss_tracker")
    assert hasattr(model, "_loss_tracker"), message
    tracker = hooks.loss_tracker(model)
    tracker.update_state(3.0)
    assert any(metric is tracker for metric in model.metrics), message
    assert float(model.get_metrics_result()["loss"]) == 3.0, message


def test_initial_epoch(model, tmp_path):
    assert hooks.initial_epoch(model) == 0
    image, truth = np.zeros((1, 2)), np.zeros((1, 1))

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        model.fit(image, truth, epochs=4, verbose=0, callbacks=[backup, Stop()])
    again = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    again.set_model(model)
    again.on_train_begin()
    assert hooks.initial_epoch(model) == 2, KERAS.format("Model._initial_epoch")


def test_reduced_gradients_optimizer():
    class Optimizer(hooks.ReducedGradientsOptimizer, keras.optimizers.SGD):
        calls = 0

        def _all_reduce_sum_gradients(self, grads_and_vars):
            Optimizer.calls += 1
            return super()._all_reduce_sum_gradients(grads_and_vars)

    optimizer = Optimizer(1.0, weight_decay=0.5)
    variables = [keras.Variable([1.0]), keras.Variable([2.0])]
    optimizer.build(variables)
    optimizer.apply([keras.ops.ones(1)] * 2, variables)
    assert Optimizer.calls == 1, KERAS.format("Optimizer._all_reduce_sum_gradients")
    assert float(variables[1].numpy()[0]) == 1.0, KERAS.format("Optimizer._apply_weight_decay")
    message = KERAS.format("Optimizer._get_variable_index")
    assert [optimizer.variable_index(v) for v in variables] == [0, 1], message


def test_downloads_of_applications(tmp_path):
    asked = []

    def get_file(fname: str, origin: str, **options: object) -> str:
        asked.append((fname, origin, options.get("file_hash")))
        raise FileNotFoundError

    with hooks.downloads_of_applications(get_file), pytest.raises(FileNotFoundError):
        keras.applications.VGG16(weights="imagenet", include_top=False)
    message = KERAS.format("the place from which keras.applications takes get_file")
    assert asked[0][0].startswith("vgg16") and asked[0][0].endswith("notop.h5"), message
    assert asked[0][1].endswith(asked[0][0]) and len(asked[0][2]) == 32, message
    assert keras.utils.get_file is not get_file


def test_weights_without_values():
    drawn = []

    def draw(shape, dtype=None):
        drawn.append(shape)
        return keras.ops.zeros(shape, dtype)

    with keras.StatelessScope(initialize_variables=False):
        keras.Variable(draw, shape=(3,))
    with hooks.weights_without_values():
        keras.Variable(draw, shape=(2,))
    with keras.StatelessScope():
        pass
    assert drawn == [(3,)], KERAS.format("the list of variables to be drawn")


def oracle_of(kind: type, folder: Path, **options: object) -> object:
    """An oracle of KerasTuner with the hooks, over one choice and one range."""

    class Oracle(hooks.OracleHooks, kind):
        saved = 0

        def save(self) -> None:
            self.saved += 1

    space = HyperParameters()
    space.Choice("a", [1, 2, 3])
    space.Float("b", 0.0, 1.0, step=0.5)
    oracle = Oracle(objective=Objective("score", "max"), hyperparameters=space, seed=1, **options)
    oracle.verbose = 0
    oracle._set_project_dir(str(folder), "search")
    return oracle


def test_saving_of_trials(tmp_path):
    oracle = oracle_of(oracles.RandomSearchOracle, tmp_path, max_trials=4)
    trial = oracle.create_trial("worker")
    assert oracle.saved and not list(tmp_path.rglob("trial.json")), TUNER.format("_save_trial")
    assert oracle.get_state()["retry_queue"] == [], TUNER.format("the state of an oracle")
    oracle.saved = 0
    oracle.update_trial(trial.trial_id, {"score": 0.5})
    assert oracle.saved, TUNER.format("_save_trial")


def test_bayesian_hooks(tmp_path):
    oracle = oracle_of(oracles.BayesianOptimizationOracle, tmp_path, max_trials=4)
    message = TUNER.format("what BayesianOptimizationOracle keeps for itself")
    assert isinstance(oracle.random_state, np.random.RandomState), message
    assert set(oracle.draw_values()["values"]) == {"a", "b"}, message


def test_hyperband_hooks(tmp_path):
    oracle = oracle_of(oracles.HyperbandOracle, tmp_path, max_epochs=4, factor=2)
    trial = oracle.create_trial("worker")
    message = TUNER.format("the brackets of HyperbandOracle")
    assert oracle.open_brackets() == oracle.brackets, message
    (bracket,) = oracle.brackets
    number = bracket["bracket_num"]
    assert bracket["rounds"][0] == [{"past_id": None, "id": trial.trial_id}], message
    assert oracle.round_counts() == [1, 2, 3], message
    sizes = [oracle.round_size(number, r) for r in range(len(bracket["rounds"]))]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1], message
    epochs = [oracle.round_epochs(number, r) for r in range(len(bracket["rounds"]))]
    assert epochs == [1, 2, 4], message
