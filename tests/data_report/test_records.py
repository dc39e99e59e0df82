import shutil

import pytest

from kerasseg.data_report.verify import verify_records
from kerasseg.errors import UserError
from kerasseg.records.manifest import read_manifest
from kerasseg.records.store import open_store
from kerasseg.records.tfrecord import read_record, write_record
from tests.conftest import phantom_experiment


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Eight phantoms in shards of three."""
    folder = tmp_path_factory.mktemp("whole")
    return open_store(phantom_experiment(folder, "records.cases_per_shard=3"))


@pytest.fixture
def store(whole, tmp_path):
    """A copy to be damaged, with its experiment."""
    shutil.copytree(whole.root, tmp_path / "store")
    return phantom_experiment(tmp_path, "records.cases_per_shard=3")


def rows_of(experiment) -> dict:
    return {row.case_id: row for row in read_manifest(experiment.store_root).cases}


def checks(verification) -> dict[str, list[str]]:
    return {c.case_id: [f.check for f in c.findings] for c in verification.cases if c.findings}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_whole_store_is_ok(store, workers):
    settings = store.records.model_copy(update={"workers": workers})
    verification = verify_records(store.model_copy(update={"records": settings}))
    assert verification.ok and verification.counts == {"ok": 8, "warning": 0, "error": 0}
    rows = rows_of(store)
    assert [case.case_id for case in verification.cases] == list(rows)
    assert verification.cases[0].voxels == rows["phantom_0000"].voxels


def test_every_damaged_record_is_named_with_its_place(store):
    rows = rows_of(store)
    for name in ("phantom_0001", "phantom_0005"):
        path = store.store_root / rows[name].shard
        data = bytearray(path.read_bytes())
        data[rows[name].offset + rows[name].payload_bytes // 2] ^= 1
        path.write_bytes(data)
    verification = verify_records(store)
    assert checks(verification) == {"phantom_0001": ["damaged"], "phantom_0005": ["damaged"]}
    for case in verification.cases:
        for finding in case.findings:
            row = rows[case.case_id]
            assert row.shard in finding.message and f"byte {row.offset} " in finding.message
            assert case.case_id in finding.message
    assert not verification.ok


def test_shards_that_are_cut_or_gone(store):
    rows = rows_of(store)
    path = store.store_root / rows["phantom_0002"].shard
    path.write_bytes(path.read_bytes()[:-5])
    (store.store_root / rows["phantom_0007"].shard).unlink()
    verification = verify_records(store)
    assert checks(verification) == {
        "phantom_0002": ["damaged"],
        "phantom_0006": ["damaged"],
        "phantom_0007": ["damaged"],
    }
    messages = [finding.message for finding in verification.findings]
    assert len(messages) == 2
    assert "the manifest says" in messages[0] and "this shard of the store" in messages[1]


def test_a_record_that_is_another_than_the_manifest_says(store, whole):
    """Checksums are right everywhere: only the manifest knows."""
    rows = rows_of(store)
    root = store.store_root
    manifest = read_manifest(root)
    for row in manifest.cases:
        if row.case_id == "phantom_0000":
            row.voxels["ET"] += 1
            row.patient_id = "somebody"
        if row.case_id == "phantom_0003":
            row.shape = (1, 2, 3, 4)
        if row.case_id == "phantom_0006":
            row.checksum ^= 1
    manifest.write(root)
    verification = verify_records(store)
    assert checks(verification) == {
        "phantom_0000": ["manifest"],
        "phantom_0003": ["manifest"],
        "phantom_0006": ["damaged"],
    }
    messages = {c.case_id: c.findings[0].message for c in verification.cases if c.findings}
    count = rows["phantom_0000"].voxels["ET"]
    assert f"'ET': {count}}}" in messages["phantom_0000"]
    assert (
        "patient_id is phantom_0000 there and somebody in the manifest"
        in (messages["phantom_0000"])
    )
    assert "(1, 2, 3, 4) in the manifest" in messages["phantom_0003"]
    assert "is not the one of case phantom_0006" in messages["phantom_0006"]


def test_a_payload_that_cannot_be_decoded(store):
    root = store.store_root
    manifest = read_manifest(root)
    row = manifest.cases[-1]
    payload = read_record(root / row.shard, row.offset, row.case_id)
    broken = payload.replace(b"row_start", b"row_stare").replace(b"spacing", b"spacinG")
    assert len(broken) == len(payload) and broken != payload
    with (root / row.shard).open("r+b") as file:
        file.seek(row.offset)
        row.checksum = write_record(file, broken)
    manifest.write(root)
    verification = verify_records(store)
    assert checks(verification) == {row.case_id: ["payload"]}
    message = verification.cases[-1].findings[0].message
    assert row.shard in message and f"byte {row.offset} cannot be decoded (KeyError" in message


def test_no_store_is_said_and_none_is_made(tmp_path):
    experiment = phantom_experiment(tmp_path)
    with pytest.raises(UserError, match=r"no finished record store: .*kerasseg convert"):
        verify_records(experiment)
    assert not experiment.store_root.exists()
