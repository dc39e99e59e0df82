"""What `tests.program` has imported before a program begins. Nothing here may start TensorFlow."""

import gc
import warnings

# As pyproject.toml has pytest do.
warnings.filterwarnings("error", category=DeprecationWarning, module="kerasseg")

import kerasseg  # sets the flags before anything imports TensorFlow

# isort: split
import fastapi  # noqa: F401
import h5py  # noqa: F401
import keras  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import nibabel  # noqa: F401
import rich.progress  # noqa: F401
import scipy.ndimage  # noqa: F401
import tensorflow  # noqa: F401
import typer  # noqa: F401
import uvicorn  # noqa: F401

import kerasseg.cli.data
import kerasseg.cli.evaluate
import kerasseg.cli.main
import kerasseg.cli.serving
import kerasseg.cli.train
import kerasseg.evaluation.evaluate_runs
import kerasseg.figures.style
import kerasseg.run_experiment  # noqa: F401
from tests.eager_steps import do_not_trace_steps, iterate_datasets_as_built
from tests.program import keep_no_stacks

do_not_trace_steps()
iterate_datasets_as_built()
keep_no_stacks()
gc.freeze()
