"""One trial: executions, retries, what is taken down."""

import threading

import pytest

from kerasseg.tuning.trial_process import TrialOutcome
from kerasseg.tuning.trials import NextTrial, TrialRunner, trial_name, trial_number
from tests.tuning.searches import fake_job, make_search, records

VALUES = {"optimizer.learning_rate": 1e-3, "model.features": 1}


class Jobs:
    """Gives the outcomes one after the other, and keeps the jobs."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.jobs = []

    def __call__(self, job, environment, stop):
        self.jobs.append(job)
        outcome = self.outcomes.pop(0)
        return fake_job(job, environment, stop) if outcome is None else outcome


def run(search, *outcomes, values=None, stop=None):
    jobs = Jobs(*outcomes)
    stop = stop or threading.Event()
    trial = NextTrial("RUNNING", "0", values or VALUES)
    record = TrialRunner(search, "w", stop=stop, run_job=jobs).run(trial)
    assert records(search)[0]["status"] == record.status, "what is returned is on disk"
    return record, jobs.jobs


def test_the_record_has_what_a_report_needs(tmp_path):
    search = make_search(tmp_path)
    record, (job,) = run(search, None)
    (written,) = records(search)
    assert list(written) == [
        "trial_id", "number", "status", "reason", "score", "values", "executions", "started",
        "ended", "worker", "bracket", "round", "epochs_to", "continued_from",
    ]  # fmt: skip
    assert written["values"] == {"optimizer.learning_rate": 1e-3, "model.features": [6, 8]}
    assert (written["trial_id"], written["number"], written["worker"]) == ("0", 1, "w")
    assert written["status"] == "completed" and written["reason"] is None
    assert written["ended"] >= written["started"] > 1e9
    (execution,) = written["executions"]
    assert list(execution) == ["run", "score", "epochs", "minutes", "curve", "peak_memory_gib"]
    assert execution["run"] == "runs/trial_1" and execution["epochs"] == 2
    assert execution["score"] == written["score"] == execution["curve"][-1]
    experiment = job.experiment
    assert experiment.model.features == (6, 8) and experiment.optimizer.learning_rate == 1e-3
    assert experiment.run.root / experiment.run_name == search.folder / "runs" / "trial_1"
    assert experiment.store_root == search.base.store_root and job.last_epoch == 2
    assert record.score == written["score"]


def test_executions_have_seeds_of_their_own_and_the_score_is_their_mean(tmp_path):
    search = make_search(tmp_path, executions_per_trial=3, epochs=7, patience=4)
    scores = [TrialOutcome("completed", None, score, 7) for score in (0.3, 0.6, 0.9)]
    record, jobs = run(search, *scores)
    assert record.score == pytest.approx(0.6)
    assert [job.experiment.run.seed for job in jobs] == [0, 1, 2]
    assert len({job.folder for job in jobs}) == len({e.run for e in record.executions}) == 3
    training = jobs[0].experiment.training
    assert (training.epochs, training.early_stopping_patience) == (7, 4)


def test_what_was_killed_is_tried_once_more_and_goes_on(tmp_path):
    killed = TrialOutcome("killed", "the process was killed by SIGKILL", None, 1, 2.0, [0.1])
    record, jobs = run(make_search(tmp_path / "a"), killed, None)
    assert record.status == "completed" and record.reason is None and len(jobs) == 2
    assert jobs[0].experiment == jobs[1].experiment
    assert record.minutes == pytest.approx(2.01)
    record, jobs = run(make_search(tmp_path / "b"), killed, killed)
    assert record.status == "failed" and len(jobs) == 2 and record.score is None
    assert record.reason.startswith("the process was killed by SIGKILL") and "2 times" in (
        record.reason
    )


def test_what_failed_by_itself_is_not_tried_again(tmp_path):
    failed = TrialOutcome("failed", "The loss is not finite in epoch 1", None, 0)
    record, jobs = run(make_search(tmp_path), failed)
    assert (record.status, record.reason, len(jobs)) == ("failed", failed.reason, 1)
    record, jobs = run(make_search(tmp_path))
    assert (record.status, record.reason, len(jobs)) == ("failed", failed.reason, 0)


def test_values_that_do_not_go_together_fail_without_a_process(tmp_path):
    space = {
        "model.features": {"choice": [[4, 6], [4, 6, 8, 8, 8]]},
        "pipeline.patch_size": {"choice": [[8, 16, 12], [32, 32, 32]]},
    }
    values = {"model.features": 1, "pipeline.patch_size": 0}
    record, jobs = run(make_search(tmp_path, space), values=values)
    assert record.status == "failed" and not jobs
    assert "must be divisible by 32" in record.reason


def test_what_is_stopped_goes_on_with_the_execution_it_was_at(tmp_path):
    search = make_search(tmp_path, executions_per_trial=2)
    stopped = TrialOutcome("stopped", None, 0.2, 1, 1.0, [0.2])
    record, jobs = run(search, None, stopped)
    assert record.status == "stopped" and record.ended is None and len(jobs) == 2
    assert record.executions[1].score is None and record.executions[1].curve == [0.2]
    record, jobs = run(search, None)
    assert record.status == "completed" and len(jobs) == 1
    assert jobs[0].experiment.run.seed == 1 and record.executions[1].minutes > 1.0


def test_a_kill_while_stopping_is_no_failure(tmp_path):
    stop = threading.Event()
    stop.set()
    record, jobs = run(make_search(tmp_path), TrialOutcome("killed", "SIGTERM"), stop=stop)
    assert record.status == "stopped" and len(jobs) == 1


def test_the_record_of_an_earlier_search_is_not_taken_for_this_one(tmp_path):
    search = make_search(tmp_path)
    run(search, None)
    leftover = search.folder / "runs" / "trial_1" / "config.yaml"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    record, jobs = run(search, None, values=VALUES | {"model.features": 0})
    assert len(jobs) == 1 and record.values["model.features"] == [4, 6]
    assert not leftover.exists()


def test_files_have_the_number_of_the_screen_but_in_searches_of_earlier_versions(tmp_path):
    names = {"baseline": "baseline", "0000": "0001", "0009": "0010"}
    assert {trial_id: trial_name(tmp_path, trial_id) for trial_id in names} == names
    (tmp_path / "runs" / "trial_0000").mkdir(parents=True)
    assert trial_name(tmp_path, "0001") == "0001", "its files have KerasTuner's ids"
    assert trial_number("0001") == 2 and trial_number("baseline") == 0


def test_a_promotion_goes_on_from_the_same_execution_of_the_earlier_trial(tmp_path):
    search = make_search(tmp_path, tuner="hyperband", executions_per_trial=2, epochs=4, factor=2)
    first = VALUES | {"tuner/epochs": 1, "tuner/bracket": 2, "tuner/round": 0}
    run(search, None, None, values=first)
    later = first | {"tuner/epochs": 2, "tuner/round": 1, "tuner/trial_id": "0"}
    jobs = Jobs(None, None)
    record = TrialRunner(search, "w", run_job=jobs).run(NextTrial("RUNNING", "1", later))
    assert (record.bracket, record.round, record.epochs_to) == (2, 1, 2)
    assert record.continued_from == "0"
    runs = search.folder / "runs"
    assert [job.continue_from for job in jobs.jobs] == [
        runs / "trial_1",
        runs / "trial_1_execution_2",
    ]
    assert all(job.last_epoch == 2 for job in jobs.jobs)
    assert jobs.jobs[0].experiment.training.epochs == 4, "the schedule is that of all epochs"
