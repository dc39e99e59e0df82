"""An experiment's network -> its predictor."""

import keras

from kerasseg.config import Experiment
from kerasseg.inference.predictor import Predictor


def predictor_of(experiment: Experiment, network: keras.Model) -> Predictor:
    """As the sections `pipeline`, `evaluation` and `postprocessing` say."""
    return Predictor(
        network,
        experiment.pipeline,
        experiment.evaluation,
        target=experiment.model.target,
        postprocessing=experiment.postprocessing,
    )
