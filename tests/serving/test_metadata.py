"""The metadata of a served model decide which scans it takes and which ids are written."""

import inspect
import json

import numpy as np
import pytest
import yaml

from benchmarks.serving_model import METADATA
from kerasseg.cli.serving import segment
from kerasseg.datasets.labels import label_ids
from kerasseg.errors import UserError
from kerasseg.serving.client import Client, Metadata, read_metadata
from kerasseg.serving.client_transport import ServerError, retry

NAMES = ("background", "NCR", "ED", "ET")


def changed_metadata(**changes) -> Metadata:
    return read_metadata(json.dumps({**METADATA, **changes}).encode())


@pytest.mark.parametrize("ids", [(0, 1, 2, 4), (0, 1, 2, 3), (0, 2, 1, 3), (0, 5, 6, 9)])
def test_ids_are_written_as_the_server_writes_them(ids):
    metadata = changed_metadata(labels=dict(zip(NAMES, ids, strict=True)))
    written = label_ids(None, metadata.data, metadata.target, None)
    assert [written[canonical] for canonical in range(4)] == list(ids)
    assert metadata.canonical[list(ids)].tolist() == [0, 1, 2, 3]
    assert np.count_nonzero(metadata.canonical == 255) == 252
    assert metadata.data.modalities == ("flair", "t1", "t1ce", "t2")


def test_a_runs_own_settings_count_if_they_are_told():
    section = {"layout": "brats_nifti", "root": "/gone", "label_map": {0: 0, 7: 1, 8: 2, 9: 3}}
    text = yaml.safe_dump({"data": section})
    for config in ({"data": section}, text, f"{text}---\ndata: {{layout: phantom}}\n"):
        data = changed_metadata(config=config, modalities=["t2", "flair"]).data
        assert data.label_map == section["label_map"] and data.modalities == ("t2", "flair")
    newer = changed_metadata(config={"data": {**section, "of_a_later_version": 1}})
    assert newer.data.layout == "brats_nifti" and newer.data.label_map is None


def test_tumour_alone_and_pictures():
    metadata = changed_metadata(labels={"background": 0, "tumour": 1}, target="binary")
    assert metadata.data.classes == "tumour" and metadata.data.layout == "brats_nifti"
    assert label_ids(None, metadata.data, "binary", None) == {0: 0, 1: 1}
    pictures = changed_metadata(
        labels={"background": 0, "tumour": 1}, target="binary", modalities=["grey"]
    )
    assert pictures.data.layout == "image_pairs"


def test_what_is_not_of_kerasseg_has_a_sentence():
    for text in (b"", b"{}", b"[]", b'{"labels": 3}'):
        with pytest.raises(UserError, match="cannot be understood"):
            read_metadata(text)
    with pytest.raises(UserError, match="another version of kerasseg"):
        changed_metadata(labels={"background": 0, "liver": 1})
    with pytest.raises(UserError, match="another version of kerasseg"):
        changed_metadata(target="organs")


def test_the_client_outlasts_a_restart_of_the_server():
    """A server with TensorFlow takes 12 seconds and more to start."""
    pauses = []

    def work():
        raise ServerError("gone", gone=True)

    retries = inspect.signature(Client).parameters["retries"].default
    assert inspect.signature(segment).parameters["retries"].default == retries
    with pytest.raises(ServerError, match="gone"):
        retry(work, retries, lambda line: None, pauses.append)
    assert 45 <= sum(pauses) <= 60 and max(pauses) == 10


def test_metadata_of_a_hostile_server_are_refused_at_once():
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    for text in (json.dumps({**METADATA, "config": bomb}), "[" * 100_000):
        with pytest.raises(ServerError, match="cannot be understood"):
            read_metadata(text.encode())
