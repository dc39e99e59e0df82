"""Stores that several files of these tests read."""

import pytest

from kerasseg.records.store import RecordStore, open_store
from tests.conftest import phantom_experiment


@pytest.fixture(scope="session")
def zlib_store(shared_once) -> RecordStore:
    """The cases of `phantom_store`, compressed. Not to be written to."""

    def open_it(folder) -> RecordStore:
        return open_store(phantom_experiment(folder, "records.compression=zlib"))

    return open_it(shared_once("zlib_store", open_it))
