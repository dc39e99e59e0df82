"""The messages and stubs of tensorflow-serving-api, imported without TensorFlow."""

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from kerasseg.serving.extra import missing_extra

_MODULES = (
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "model_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2_grpc",
)

_LOCK = threading.Lock()


@cache
def serving_apis() -> Any:
    """The modules of `tensorflow_serving.apis` by their names, and `grpc`.

    Their messages need those of `tensorflow.core`, and importing any part of TensorFlow runs all of
    it: 7.4 s instead of 0.2 s (`python -m benchmarks.serving_wire imports`, 2 cores). So while
    they are imported an empty package of the same folder stands in its place, unless TensorFlow
    was there before. `import tensorflow` works as ever afterwards.

    Raises `UserError` where the extra is missing.
    """
    try:
        import grpc

        with _LOCK, _light_tensorflow():
            modules = {
                name: importlib.import_module(f"tensorflow_serving.apis.{name}")
                for name in _MODULES
            }
    except ImportError as error:
        raise missing_extra(error) from error
    return SimpleNamespace(grpc=grpc, **modules)


@contextmanager
def _light_tensorflow() -> Iterator[None]:
    if "tensorflow" in sys.modules:
        yield
        return
    found = importlib.util.find_spec("tensorflow")
    if found is None or found.submodule_search_locations is None:
        raise ImportError("No module named 'tensorflow'", name="tensorflow")
    stand_in = ModuleType("tensorflow")
    stand_in.__path__ = list(found.submodule_search_locations)
    sys.modules["tensorflow"] = stand_in
    try:
        yield
    finally:
        del sys.modules["tensorflow"]
