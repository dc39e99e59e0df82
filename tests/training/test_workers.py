"""train.py in two processes under TF_CONFIG: equal to one process, and refused."""

import pytest

from tests.conftest import write_brats
from tests.program import REPOSITORY
from tests.training.worker_processes import (
    SETTINGS,
    check_equal,
    command,
    finish_both,
    run_of_one_process,
    run_workers,
)


@pytest.fixture(scope="session")
def alone(shared_once):
    return run_of_one_process(shared_once)


@pytest.mark.all_only  # those that test_workers_stopped interrupts end as one process does, too
def test_two_workers_equal_one_process(alone, tmp_path):
    check_equal(finish_both(tmp_path), alone)


@pytest.mark.slow
def test_different_data_are_refused_by_both(tmp_path, phantoms):
    """Each machine has scans and a store of its own; of one case the scans differ."""
    for index in range(2):
        scans = tmp_path / f"worker-{index}" / "scans"
        write_brats(scans, "BraTS2021_00000", phantoms[0])
        write_brats(scans, "BraTS2021_00001", phantoms[1 + index])
    data = ("data.layout=brats_nifti", "data.root=scans", "records.root=store")
    settings = [s for s in SETTINGS if not s.startswith(("data.", "split="))]
    arguments = [str(REPOSITORY / "train.py"), *settings, *data, f"run.root={tmp_path / 'runs'}"]
    for worker in run_workers(tmp_path, [arguments] * 2):
        assert worker.code == 2
        assert "do not have the same data" in worker.error
        assert "Traceback" not in worker.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_different_configs_are_refused_by_both(tmp_path):
    commands = [command(tmp_path), command(tmp_path, "model.features=[8]")]
    for worker in run_workers(tmp_path, commands):
        assert worker.code == 2
        assert "do not have the same config" in worker.error
        assert "Traceback" not in worker.stderr
    assert not (tmp_path / "store").exists() and not (tmp_path / "runs").exists()
