"""Run in a process of its own: the metric on two replicas, for test_segmentation."""

import json
import sys

import kerasseg  # noqa: F401  (sets the flags before anything imports TensorFlow)

# isort: split
import keras
import tensorflow as tf

from tests.metrics.test_segmentation import CHANNELS, SCANS, Scored, fixed_network, random_scans


def main() -> None:
    """Print the results of updates alone, of `evaluate` and of `fit` as JSON."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    scans = tf.data.Dataset.from_tensor_slices(random_scans(SCANS))
    with strategy.scope():
        model = Scored(fixed_network(len(CHANNELS)))
        model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")

    @tf.function
    def update(image: tf.Tensor, mask: tf.Tensor) -> None:
        strategy.run(lambda i, m: model.scores.update_state(m, model(i)), (image, mask))

    sizes = []
    for image, mask in strategy.experimental_distribute_dataset(scans.batch(5)):
        sizes.append([part.shape[0] for part in strategy.experimental_local_results(mask)])
        update(image, mask)
    assert sizes == [[3, 2], [2, 2]], sizes
    alone = {name: float(value) for name, value in model.scores.result().items()}
    model.scores.reset_state()
    cleared = {float(value) for value in model.scores.result().values()}
    assert cleared == {1.0}, f"{cleared} of nothing"
    # Keras itself wants a first batch that can be shared equally; the last one is 1 and 0 here.
    data = scans.batch(4)
    evaluated = model.evaluate(data, return_dict=True, verbose=0)
    history = model.fit(data, validation_data=data, epochs=2, verbose=0).history
    fitted = {name: values[-1] for name, values in history.items()}
    json.dump({"alone": alone, "evaluated": evaluated, "fitted": fitted}, sys.stdout)


if __name__ == "__main__":
    main()
