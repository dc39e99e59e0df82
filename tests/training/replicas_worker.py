"""Run in a process of its own: training on one and on several replicas, for test_replicas.

python -m tests.training.replicas_worker REPLICAS FOLDER GROUP… prints what was found as JSON.
"""

import contextlib
import functools
import itertools
import json
import re
import sys
from pathlib import Path

import kerasseg  # noqa: F401  (sets the flags before anything imports TensorFlow)

# isort: split
import keras
import numpy as np
import tensorflow as tf

from kerasseg.config.training import OptimizerSettings, TrainingSettings
from kerasseg.records.splits import Split
from kerasseg.records.store import open_store
from kerasseg.run import read_history
from kerasseg.run_experiment import build_network
from kerasseg.targets import label_to_masks
from kerasseg.training.callbacks import Stopped
from kerasseg.training.devices import Devices, choose_devices
from kerasseg.training.fit import compile_for_training, fit
from kerasseg.training.optimizers import build_optimizer
from kerasseg.training.state import FILE_NAME
from kerasseg.training.step import vary_dropout
from tests.conftest import phantom_experiment
from tests.models.sam.test_sam_run import sam_experiment
from tests.training.ask_to_stop import AskToStop
from tests.training.given_gradients import batches_of, given_gradients

BATCH, SIZE = 6, (10, 14)
UPDATES = 4
FLAT = (
    "model.dimensions=2",
    "pipeline.patch_size=[10,14]",
    "model.features=[4]",
    "model.bottleneck=6",
    "model.encoder_blocks=1",
    "model.decoder_blocks=1",
    f"training.batch_size={BATCH}",
    "training.epochs=2",
)


def one_device():
    return Devices(tf.distribute.get_strategy(), "one CPU")


def compiled(devices, folder, *options):
    """The training model of an experiment, from the same seed each time."""
    experiment = phantom_experiment(folder, *FLAT, *options)
    keras.utils.set_random_seed(0)
    with devices.strategy.scope():
        network = build_network(experiment)
        model = compile_for_training(experiment, network, UPDATES)
    model.make_train_function()
    return experiment, model


def scans(experiment, count, seed=0):
    """Images, and masks that can be learnt from them."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(count, *SIZE, 4)).astype(np.float32)
    label = np.digitize(image[..., 0] + 0.3 * image[..., 1], [0.0, 0.7, 1.4]).astype(np.uint8)
    return image, label_to_masks(label, experiment.model.target).astype(np.uint8)


def batches(devices, arrays, batch_size=BATCH):
    dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size).repeat()
    return iter(devices.distribute(dataset, batch_size))


def spread(devices, variables):
    """Largest difference between the replicas' copies of them."""
    values = [getattr(v, "value", v) for v in variables]
    parts = [devices.strategy.experimental_local_results(value) for value in values]
    return largest(np.ptp([copy.numpy() for copy in copies], axis=0) for copies in parts)


def largest(arrays):
    """Of all magnitudes; no number if one is none."""
    return float(np.max([np.abs(array).max() for array in arrays]))


def difference(ours, theirs):
    """Largest one of the arrays that two runs have under the same names."""
    assert ours.keys() == theirs.keys() and ours
    return largest(ours[name] - theirs[name] for name in ours)


def values(variables):
    """Arrays by place.

    Without the biases of convolutions before an instance norm: their gradient is 0 but for
    rounding, of which Adam and Lion make steps of full size. They change nothing.
    """
    silent = re.compile(r"conv_\d[/_]bias")
    return {i: v.numpy() for i, v in enumerate(variables) if not silent.search(v.path)}


def trained(devices, folder, *options, updates=UPDATES):
    """What updates on fixed batches lead to."""
    experiment, model = compiled(devices, folder, *options)
    start = values(model.variables)
    iterator = batches(devices, scans(experiment, updates * model.accumulation * BATCH))
    for _ in range(updates):
        model.train_function(iterator)
    return {
        "start": start,
        "weights": values(model.variables),
        "slots": values(model.optimizer.variables),
        "averages": values(model.optimizer.averages),
        "logs": model.results(),
        "spread": spread(devices, [*model.trainable_variables, *model.optimizer.variables]),
        "failure": int(model.failure.numpy()),
    }


SAME = {
    "adamw, all at once": (
        "optimizer={name: adamw, clip_norm: 0.3, ema: 0.8, learning_rate: 0.01}",
        "training.gradient_accumulation=3",
        "loss=[{dice: 1, reduction: sample}, {focal: 1}]",
    ),
    "sgd, accumulated, clipped": (
        "optimizer={name: sgd, momentum: 0.9, clip_norm: 0.1, learning_rate: 0.1}",
        "training.gradient_accumulation=3",
        "model.target=labels",
        "loss=[{generalised_dice: 1}, {cross_entropy: 1, weights: [0.1, 1, 2, 3]}]",
    ),
    "Keras's Muon, averaged, heads": (
        "optimizer={name: keras.optimizers.Muon, ema: 0.8, learning_rate: 0.01}",
        "training.gradient_accumulation=1",
        "model.features=[4,4]",
        "pipeline.patch_size=[12,16]",
        "model.deep_supervision=1",
    ),
    "lion, accumulated": (
        "optimizer={name: lion, learning_rate: 0.01}",
        "training.gradient_accumulation=3",
        "loss=[{tversky: 1}, {boundary: 1}]",
    ),
}


def same(devices, folder, *names):
    """Several replicas against one."""
    found = {}
    for name in names:
        devices = choose_devices(TrainingSettings(batch_size=BATCH))  # as each run of a process
        options = (*SAME[name], "optimizer.warmup_epochs=0")
        one = trained(one_device(), folder, *options)
        several = trained(devices, folder, *options)
        found[name] = {
            "moved": difference(one["weights"], one["start"]),
            "averaged": bool(one["averages"]),
            **{
                part: difference(several[part], one[part])
                for part in ("start", "weights", "slots", "averages")
                if one[part]
            },
            "logs": [several["logs"], one["logs"]],
            "spread": several["spread"],
            "failures": [one["failure"], several["failure"]],
        }
    return found


SIMPLE = "loss=[{dice: 1}, {cross_entropy: 1}]"
VALIDATED = {
    "one less": (11, SIMPLE),
    "none, softmax": (
        8,
        "model.target=labels",
        "loss=[{dice: 1, reduction: sample}, {generalised_dice: 1}, "
        "{cross_entropy: 1, weights: [0.1, 1, 2, 3]}]",
    ),
    "none": (8, SIMPLE),
    "none, worst": (8, "loss=[{top_k: 1, share: 1.0}, {boundary: 1}]"),
}
"""How many scans there are: in the last batch the second replica has fewer than the first, or only
what fills it up."""


def validated(devices, folder, samples, *options):
    """Loss and metrics of scans whose last batch is filled up with zeros."""
    experiment, model = compiled(devices, folder, *options)
    image, masks = scans(experiment, samples)
    logits = model(image, training=False).numpy()
    fillers = -samples % BATCH
    arrays = [np.concatenate([a, np.zeros_like(a[:fillers])]) for a in (image, masks)]
    weight = np.repeat(np.float32([1, 0]), [samples, fillers])
    model.make_test_function()
    iterator = batches(devices, (*arrays, weight))
    for _ in range(len(weight) // BATCH):
        model.test_function(iterator)
    return model.results(), logits, masks


def validation(devices, folder, *names):
    """On several replicas, on one device, and counted in numpy where the loss is simple."""
    found = {}
    for name in names:
        samples, *options = VALIDATED[name]
        several, logits, masks = validated(devices, folder, samples, *options)
        one, *_ = validated(one_device(), folder, samples, *options)
        simple = options[-1] == SIMPLE
        found[name] = [several, one, brute_force(logits, masks) if simple else {}]
    return found


def brute_force(logits, masks):
    """Dice plus binary cross-entropy of each batch, and Dice of all voxels, in float64."""
    logits, masks = logits.astype(np.float64), masks.astype(np.float64)
    axes = tuple(range(masks.ndim - 1))
    losses = []
    for first in range(0, len(masks), BATCH):
        m, z = masks[first : first + BATCH], logits[first : first + BATCH]
        p = 1 / (1 + np.exp(-z))
        dice = (2 * (m * p).sum(axes) + 1) / (m.sum(axes) + p.sum(axes) + 1)
        entropy = -np.mean(m * np.log(p) + (1 - m) * np.log(1 - p))
        losses += [1 - dice.mean() + entropy] * len(m)
    chosen = logits >= 0
    both = (chosen & (masks > 0)).sum(axes)
    scores = 2 * both / (chosen.sum(axes) + masks.sum(axes))
    names = ("dice_NCR", "dice_ED", "dice_ET")
    return {
        "loss": np.mean(losses),
        "dice": scores.mean(),
        **dict(zip(names, scores.tolist(), strict=True)),
    }


SHAPES = {"encoder/kernel": (3, 2, 5), "head/bias": (4,)}


def gradients(count, replicas, seed=0):
    """For given_gradients: `count` batches of one image for each replica."""
    rng = np.random.default_rng(seed)
    return [
        [{n: rng.uniform(-1, 1, s) for n, s in SHAPES.items()} for _ in range(replicas)]
        for _ in range(count)
    ]


def given(devices, settings, *, policy="float32", **options):
    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    settings = OptimizerSettings(**{"warmup_epochs": 0, "schedule": "constant", **settings})
    with devices.strategy.scope():
        model, _ = given_gradients(
            SHAPES,
            lambda variables: build_optimizer(settings, 1, 100),
            batch_norm=True,
            clip_norm=settings.clip_norm,
            **options,
        )
    return model


def all_copies(devices, model):
    """Weights, moving statistics, slots and averages, on every replica."""
    variables = [v.value for v in (*model.variables, *model.optimizer.variables)]
    parts = [devices.strategy.experimental_local_results(v) for v in variables]
    return [copy.numpy() for copies in parts for copy in copies]


def change(before, after):
    return largest(a - b for a, b in zip(before, after, strict=True))


def update(model, iterator):
    """What the model tells of it."""
    model.train_function(iterator)
    return {
        "failure": int(model.failure.numpy()),
        "scale": float(model.loss_scale.scale.numpy()),
        "skipped": int(model.loss_scale.skipped.numpy()),
        "iterations": int(model.optimizer.iterations.numpy()),
    }


def overflow(devices, folder, accumulations=(3,)):
    """mixed_float16, and gradients that overflow on one replica in one batch of an update: on one
    replica after the other, between updates that do not."""
    found = {}
    settings = {"name": "adamw", "ema": 0.5, "clip_norm": 1.0}
    for accumulation in accumulations:
        options = {"policy": "mixed_float16", "accumulation": accumulation}
        updates = devices.replicas + 1
        good = gradients(updates * accumulation, devices.replicas)
        control = given(devices, settings, **options)
        iterator = batches_of(good, devices)
        for _ in range(updates):
            update(control, iterator)
        data = good[:accumulation]
        for replica in range(devices.replicas):
            broken = gradients(accumulation, devices.replicas, seed=1 + replica)
            broken[accumulation // 2][replica] = {n: np.full(s, 1000.0) for n, s in SHAPES.items()}
            data = [*data, *broken, *good[(replica + 1) * accumulation :][:accumulation]]
        model = given(devices, settings, **options)
        iterator = batches_of(data, devices)
        copies, told = [all_copies(devices, model)], []
        for _ in range(len(data) // accumulation):
            told.append(update(model, iterator))
            copies.append(all_copies(devices, model))
        found[accumulation] = {
            "told": told,
            "changes": [change(*pair) for pair in itertools.pairwise(copies)],
            "from control": change(all_copies(devices, control), copies[-1]),
            "loss": model.results()["loss"],
        }
    return found


def clip(devices, folder):
    """SGD at rate 1 without momentum: the update is the clipped mean gradient."""
    settings = {
        "name": "sgd",
        "learning_rate": 1.0,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "clip_norm": 1.0,
        "nesterov": False,
    }
    data = gradients(3, devices.replicas)
    model = given(devices, settings, accumulation=3, factor=10.0)
    before = model.get_weights()[: len(SHAPES)]
    update(model, batches_of(data, devices))
    after = model.get_weights()[: len(SHAPES)]
    step = np.concatenate([np.ravel(b - a) for a, b in zip(before, after, strict=True)])
    parts = [np.concatenate([np.ravel(g) for g in part.values()]) for b in data for part in b]
    mean = 10 * np.mean(parts, axis=0)
    expected = -mean / np.linalg.norm(mean)
    return {
        "norm": float(np.linalg.norm(step)),
        "from expected": float(np.abs(step - expected).max()),
        "norm before": float(np.linalg.norm(mean)),
    }


def not_finite(devices, folder):
    """On one replica: a loss; a gradient in float32; one that no smaller scale mends."""
    found = {}
    zeros = {n: np.zeros(s) for n, s in SHAPES.items()}
    cases = {
        "loss": (np.nan, "float32", {}),
        "gradient": (3e38, "float32", {"values": zeros}),
        "gradient at scale 1": (100.0, "mixed_float16", {"values": zeros, "factor": 4096.0}),
    }
    for name, (value, policy, options) in cases.items():
        model = given(devices, {"name": "adam", "ema": 0.5}, policy=policy, **options)
        if model.loss_scale.dynamic:
            model.loss_scale.scale.assign(1.0)
        data = gradients(devices.replicas, devices.replicas)
        for replica in range(devices.replicas):
            data[replica][replica] = {n: np.full(s, value) for n, s in SHAPES.items()}
        before, iterator = all_copies(devices, model), batches_of(data, devices)
        for replica in range(devices.replicas):
            told = update(model, iterator)
            told["change"] = change(before, all_copies(devices, model))
            found[f"{name}, replica {replica}"] = told
    return found


def batch_norm(devices, folder):
    """Two batches accumulated on two replicas, and each replica's parts alone on one device."""
    options = (
        "model.norm=batch",
        "training.gradient_accumulation=2",
        "optimizer={name: sgd, momentum: 0, nesterov: false, weight_decay: 0, learning_rate: 0.1, "
        "schedule: constant, warmup_epochs: 0}",
        "loss=[{dice: 1, reduction: sample}]",
    )
    experiment, model = compiled(devices, folder, *options)
    image, masks = scans(experiment, 2 * BATCH)
    image[: BATCH // 2] += 2.0  # the parts differ
    start = model.get_weights()
    update(model, batches(devices, (image, masks)))
    alone = []
    share = BATCH // devices.replicas
    _, single = compiled(one_device(), folder, *options)
    for replica in range(devices.replicas):
        places = range(replica * share, (replica + 1) * share)
        own = [i for i in range(2 * BATCH) if i % BATCH in places]
        single.set_weights(start)  # without momentum nothing else is kept
        update(single, batches(one_device(), (image[own], masks[own]), share))
        alone.append(single.get_weights())
    statistics = [i for i, v in enumerate(model.weights) if "moving" in v.path]
    trained = [i for i in range(len(model.weights)) if i not in statistics]
    mean = [np.mean(parts, axis=0) for parts in zip(*alone, strict=True)]
    found = model.get_weights()

    def apart(indices, ours, theirs):
        return largest(ours[i] - theirs[i] for i in indices)

    return {
        "statistics": apart(statistics, found, mean),
        "weights": apart(trained, found, mean),
        "moved": [apart(part, found, start) for part in (statistics, trained)],
        "parts differ by": apart(statistics, *alone[:2]),
        "spread": spread(devices, model.variables),
    }


def augmentation(devices, folder):
    """Scans that the devices vary, with a seed for each."""
    varied = (
        "pipeline.augment_on=device",
        "augment.transforms=[{gaussian_noise: {p: 1.0, variance: [0.5, 1.0]}}, {scaling: {}}]",
        "training.gradient_accumulation=2",
        "optimizer={name: sgd, learning_rate: 0.1}",
    )
    weights = []
    for strategy, options in (
        (devices, varied),
        (one_device(), varied),
        (one_device(), varied[2:]),
    ):
        experiment, model = compiled(strategy, folder, *options)
        image, masks = scans(experiment, 2 * model.accumulation * BATCH)
        arrays = [image.astype(np.float16), masks]
        if model.augmentation is not None:
            arrays.append(np.stack([np.arange(len(image)), np.ones(len(image))], 1).astype("int32"))
        iterator = batches(strategy, tuple(arrays))
        for _ in range(2):
            update(model, iterator)
        weights.append(values(model.trainable_variables))
    several, one, plain = weights
    return {"weights": difference(several, one), "varied": difference(one, plain)}


def dropout(devices, folder):
    """The same scans on all replicas, dropped and not."""
    options = ("model.dropout={rate: 0.5, place: everywhere}", "optimizer.learning_rate=1e-9")
    experiment, model = compiled(devices, folder, *options)
    _, single = compiled(one_device(), folder, *options)
    image = tf.constant(scans(experiment, 3)[0])
    run = tf.function(lambda: model(image, training=True))

    def seeds(of):
        return [v.numpy().tolist() for v in of.variables if "seed_generator" in v.path]

    def outputs_differ_by():
        outputs = devices.strategy.experimental_local_results(devices.strategy.run(run))
        return float(np.ptp([o.numpy() for o in outputs], axis=0).max())

    found = {"as of Keras": outputs_differ_by()}
    before = seeds(model)
    vary_dropout(model)
    found["kept"] = [before, seeds(model)]
    found["varied"] = outputs_differ_by()
    single(image, training=True), single(image, training=True)
    for each, strategy in ((model, devices), (single, one_device())):
        iterator = batches(strategy, scans(experiment, 2 * model.accumulation * BATCH))
        for _ in range(2):
            update(each, iterator)
    found["after updates"] = outputs_differ_by()
    single(image, training=True)
    found["as on one device"] = [seeds(model), seeds(single)]
    return found


def precision(devices, folder, policy):
    """Losses of updates on the same batches again and again."""
    options = (
        "model.downsampling=strided",  # TensorFlow has no float16 pooling on a CPU
        "training.gradient_accumulation=2",
        "optimizer={name: adamw, clip_norm: 1.0, ema: 0.5, learning_rate: 0.02, warmup_epochs: 0}",
        "training.epochs=8",
    )
    keras.config.set_dtype_policy(policy)
    experiment, model = compiled(devices, folder, *options)
    iterator = batches(devices, scans(experiment, 2 * BATCH))
    losses = []
    for _ in range(20):
        model.reset_metrics()
        told = update(model, iterator)
        losses.append(model.results()["loss"])
    averages = [v.numpy() for v in model.optimizer.averages]
    return {
        "losses": losses,
        "told": told,
        "average differs by": change(averages, [v.numpy() for v in model.trainable_variables]),
        "spread": spread(devices, [*model.trainable_variables, *model.optimizer.variables]),
    }


def fitted(devices, folder, store, *options, stop=None, make=phantom_experiment):
    """A whole fit with an odd number of validation patches; with `stop` stopped there and gone on
    with."""
    experiment = make(folder, *options)
    cases = list(store.rows)
    split = Split(tuple(cases[:4]), tuple(cases[4:7]), ())
    (folder / "checkpoints").mkdir(parents=True)
    state = None
    for callbacks in ([AskToStop(*stop)], []) if stop else ([],):
        keras.utils.set_random_seed(0)
        with devices.strategy.scope():
            network = build_network(experiment)
        arguments = {"devices": devices, "state": state, "callbacks": callbacks}
        with contextlib.suppress(Stopped), contextlib.redirect_stdout(sys.stderr):
            fit(experiment, network, store, split, folder, **arguments)
        state = folder / "checkpoints" / FILE_NAME
        stopped_in = json.loads(str(np.load(state)["progress"]))["epochs"] if callbacks else None
        assert stopped_in == (stop[0] if callbacks else None), "it was not stopped there"
    with np.load(state) as arrays:
        weights = {n: arrays[n].astype(float) for n in arrays.files if n != "progress"}
    rows = [{n: float(v) for n, v in row.items()} for row in read_history(folder / "history.csv")]
    best = keras.saving.load_model(folder / "checkpoints" / "best.keras", compile=False)
    weights |= {f"best {i}": v for i, v in enumerate(best.get_weights())}
    return weights, rows


FITTED = (
    "pipeline.patch_size=[16,12]",
    "pipeline.slices.keep=tumour",
    "pipeline.validation_patches_per_volume=3",
    "training={epochs: 3, batch_size: 4, steps_per_epoch: 6, gradient_accumulation: 2}",
    "optimizer={name: sgd, momentum: 0.9, learning_rate: 0.05, ema: 0.9, clip_norm: 1.0}",
    "optimizer.warmup_epochs=1",
)
DROPOUT = "model.dropout={rate: 0.3, place: everywhere}"


def whole_fit(devices, folder):
    store = open_store(phantom_experiment(folder, "records.cases_per_shard=3"))

    several = fitted(devices, folder / "several", store, *FLAT, *FITTED)
    one = fitted(one_device(), folder / "one", store, *FLAT, *FITTED)
    return {"weights": difference(several[0], one[0]), "histories": [several[1], one[1]]}


def sam_fit(devices, folder):
    """A SAM on the embeddings of its slices, which the first fit computes and the second reads."""
    store = open_store(sam_experiment(folder / "sam"))
    options = (
        "training={epochs: 1, batch_size: 4, steps_per_epoch: 2, gradient_accumulation: 1}",
        "optimizer={name: sgd, momentum: 0.9, learning_rate: 0.05, warmup_epochs: 0}",
        "pipeline.validation_patches_per_volume=1",
    )
    several, one = (
        fitted(each, folder / "sam" / name, store, *options, make=sam_experiment)
        for each, name in ((devices, "several"), (one_device(), "one"))
    )
    keras.utils.set_random_seed(0)
    start = build_network(sam_experiment(folder / "sam", *options)).get_weights()
    return {
        "moved": largest(one[0][f"best {i}"] - weight for i, weight in enumerate(start)),
        "weights": difference(several[0], one[0]),
        "histories": [several[1], one[1]],
        "stores": len(list((folder / "sam" / "store.embeddings").glob("*/embeddings.json"))),
    }


def resumed_fit(devices, folder):
    store = open_store(phantom_experiment(folder, "records.cases_per_shard=3"))

    options = (*FLAT, *FITTED, DROPOUT)
    whole = fitted(devices, folder / "whole", store, *options)
    resumed = fitted(devices, folder / "resumed", store, *options, stop=(1, "train", 1))
    return {"weights": difference(resumed[0], whole[0]), "histories": [resumed[1], whole[1]]}


GROUPS = {
    "same": lambda devices, folder: same(devices, folder, *list(SAME)[:1]),
    "more": lambda devices, folder: same(devices, folder, *list(SAME)[1:]),
    "three": lambda devices, folder: same(devices, folder, "adamw, all at once"),
    "overflow": overflow,
    "overflow, single": functools.partial(overflow, accumulations=(1,)),
    "clip": clip,
    "not finite": not_finite,
    "batch norm": batch_norm,
    "augmentation": augmentation,
    "dropout": dropout,
    "validation": lambda devices, folder: validation(devices, folder, *list(VALIDATED)[:2]),
    "more validation": lambda devices, folder: validation(devices, folder, *list(VALIDATED)[2:]),
    "mixed_float16": functools.partial(precision, policy="mixed_float16"),
    "mixed_bfloat16": functools.partial(precision, policy="mixed_bfloat16"),
    "fit": whole_fit,
    "resumed fit": resumed_fit,
    "sam": sam_fit,
}


TRACED = ("mixed_float16", "mixed_bfloat16", "fit", "resumed fit")
"""Groups whose steps are graphs, as users have them. The others make a few steps only, operation by
operation, which takes a fraction of the time of tracing them."""


def main(replicas, folder, *groups):
    (cpu,) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * int(replicas)
    tf.config.set_logical_device_configuration(cpu, parts)
    devices = choose_devices(TrainingSettings(batch_size=BATCH))
    found = {}
    for group in groups:
        keras.config.set_dtype_policy("float32")
        tf.config.run_functions_eagerly(group not in TRACED)
        # Rewriting the graphs takes half of the time of making them.
        as_they_are = not group.startswith("mixed")
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": as_they_are})
        found[group] = GROUPS[group](devices, Path(folder))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
