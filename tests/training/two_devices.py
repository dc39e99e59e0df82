"""Run in a process of its own: what is chosen on two logical CPUs, for test_devices."""

import json
import sys

import kerasseg  # noqa: F401  (sets the flags before anything imports TensorFlow)

# isort: split
import tensorflow as tf

from kerasseg.config.training import TrainingSettings
from kerasseg.errors import UserError
from kerasseg.training.devices import choose_devices

BATCHES = 2
"""Of four images, numbered from 0."""


def main() -> None:
    """Print what each of the settings of the command line gives, as JSON."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    results = []
    for settings in json.loads(sys.argv[1]):
        try:
            devices = choose_devices(TrainingSettings(**settings))
        except UserError as error:
            results.append(str(error))
            continue
        images = tf.data.Dataset.range(4 * BATCHES).batch(4)
        local = devices.strategy.experimental_local_results
        parts = [
            [part.numpy().tolist() for part in local(batch)]
            for batch in devices.distribute(images, 4)
        ]
        results.append(
            {"description": devices.description, "replicas": devices.replicas, "parts": parts}
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main()
