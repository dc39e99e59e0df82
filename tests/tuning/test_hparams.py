"""What TensorBoard's own HParams backend reads of the event files."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import (
    api_pb2,
    backend_context,
    get_experiment,
    list_session_groups,
)

from kerasseg.config.load import load_experiment
from kerasseg.errors import UserError
from kerasseg.train_summary import log_settings
from kerasseg.training.tensorboard import write_hparams
from kerasseg.tuning.output import write_hparams_config

SPACE = {
    "optimizer.learning_rate": {"float": [1e-5, 1e-2], "log": True},
    "model.features": {"choice": [[8, 16], [16, 32]]},
    "training.batch_size": {"int": [1, 4]},
    "augment.flip": {"boolean": True},
    "loss.smooth": {"choice": [0.5, "auto"]},
    "optimizer.momentum": {"float": [0.5, 0.99], "when": {"optimizer.name": "sgd"}},
    "optimizer.name": {"choice": ["adam", "sgd"]},
    "pipeline.prefetch": {"choice": [1, 2]},
}
VALUES = {
    "optimizer.learning_rate": 3e-4,
    "model.features": [16, 32],
    "training.batch_size": 2,
    "augment.flip": True,
    "loss.smooth": 0.5,
    "optimizer.name": "adam",
    "pipeline.prefetch": 2,
}


def _backend(folder: Path) -> backend_context.Context:
    multiplexer = plugin_event_multiplexer.EventMultiplexer(
        tensor_size_guidance={"hparams": 100, "scalars": 100}
    )
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(folder))
    return backend_context.Context(TBContext(data_provider=provider))


def _groups(folder: Path, metric: str = "val_dice") -> list[api_pb2.SessionGroup]:
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=100,
        allowed_statuses=[
            api_pb2.STATUS_UNKNOWN,
            api_pb2.STATUS_SUCCESS,
            api_pb2.STATUS_FAILURE,
            api_pb2.STATUS_RUNNING,
        ],
        aggregation_type=api_pb2.AGGREGATION_AVG,
        aggregation_metric=api_pb2.MetricName(tag=metric),
    )
    # The filters that TensorBoard's page sends at first: every value of the domains is ticked.
    for info in _experiment(folder).hparam_infos:
        column = request.col_params.add(hparam=info.name, exclude_missing_values=False)
        if info.HasField("domain_discrete"):
            column.filter_discrete.CopyFrom(info.domain_discrete)
        else:
            column.filter_interval.CopyFrom(info.domain_interval)
    handler = list_session_groups.Handler(RequestContext(), _backend(folder), "", request)
    return list(handler.run().session_groups)


def _experiment(folder: Path) -> api_pb2.Experiment:
    return get_experiment.Handler(
        RequestContext(), _backend(folder), "", api_pb2.GetExperimentRequest()
    ).run()


def test_space_and_metric_are_shown(tmp_path: Path) -> None:
    write_hparams_config(tmp_path, SPACE, "val_dice")
    experiment = _experiment(tmp_path)
    infos = {info.name: info for info in experiment.hparam_infos}
    assert set(infos) == set(SPACE)
    rate = infos["optimizer.learning_rate"].domain_interval
    assert (rate.min_value, rate.max_value) == (1e-5, 1e-2)
    features = infos["model.features"].domain_discrete
    assert {v.string_value for v in features.values} == {"[8, 16]", "[16, 32]"}
    assert infos["augment.flip"].type == api_pb2.DATA_TYPE_BOOL
    assert [m.name.tag for m in experiment.metric_infos] == ["val_dice"]


def test_trials_are_sessions_with_values_and_metric(tmp_path: Path) -> None:
    write_hparams_config(tmp_path, SPACE, "val_dice")
    for name, score in (("a", 0.6), ("b", 0.8)):
        folder = tmp_path / "runs" / name / "tensorboard"
        write_hparams(folder, VALUES, {"val_dice": score}, f"trial_{name}", SPACE)
    second = tmp_path / "runs" / "b-2" / "tensorboard"
    write_hparams(second, VALUES, {"val_dice": 0.9}, "trial_b", SPACE)
    failed = tmp_path / "runs" / "c" / "tensorboard"
    write_hparams(failed, VALUES, {"val_dice": float("nan")}, "trial_c", SPACE, "failed")
    groups = {group.name: group for group in _groups(tmp_path)}
    assert set(groups) == {"trial_a", "trial_b", "trial_c"}
    assert groups["trial_a"].metric_values[0].value == pytest.approx(0.6)
    assert groups["trial_b"].metric_values[0].value == pytest.approx(0.85)
    assert len(groups["trial_b"].sessions) == 2
    assert not groups["trial_c"].metric_values
    assert groups["trial_c"].sessions[0].status == api_pb2.STATUS_FAILURE
    assert groups["trial_a"].sessions[0].status == api_pb2.STATUS_SUCCESS
    shown = groups["trial_a"].hparams
    assert shown["optimizer.learning_rate"].number_value == 3e-4
    assert shown["model.features"].string_value == "[16, 32]"
    assert shown["augment.flip"].bool_value is True
    assert shown["loss.smooth"].string_value == "0.5"
    assert "optimizer.momentum" not in shown


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Writing TensorBoard's files"):
        write_hparams(tmp_path / "file" / "run", VALUES, {}, "a")


def test_single_runs_are_compared_by_their_settings_and_scores(tmp_path: Path) -> None:
    """Two runs of one name, in folders of their own; one was evaluated twice."""
    for folder, rate, dice in (("tiny", 0.01, 0.5), ("tiny_2", 0.02, 0.75), ("tiny_2", 0.02, 0.7)):
        experiment = load_experiment(None, [f"optimizer.learning_rate={rate}"])
        summary = {"run": "tiny", "dice": {"test": {"ET": dice, "mean": None}}}
        log_settings(tmp_path / folder / "tensorboard", experiment, summary)
    found = {
        group.hparams["optimizer.learning_rate"].number_value: group
        for group in _groups(tmp_path, "test_dice/ET")
    }
    assert set(found) == {0.01, 0.02}
    for rate, dice in ((0.01, 0.5), (0.02, 0.7)):
        (metric,) = found[rate].metric_values
        assert metric.value == pytest.approx(dice)
        assert found[rate].hparams["model.features"].string_value == "[32, 64, 128, 256]"
        assert found[rate].hparams["loss.1.gamma"].number_value == 2.0
        assert "data.root" not in found[rate].hparams
