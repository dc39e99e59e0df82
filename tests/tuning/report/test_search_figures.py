"""What is drawn is what the search's files say."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kerasseg.tuning.report.importance import Importance, encode
from kerasseg.tuning.report.parameter_figures import (
    draw_important_pair,
    draw_parallel_coordinates,
    draw_parameter_importance,
    score_colours,
)
from kerasseg.tuning.report.read_search import read_search
from kerasseg.tuning.report.score_figures import (
    draw_best_curves,
    draw_score_by_trial,
    draw_score_by_value,
    draw_time_spent,
    minutes_of,
    score_range,
)
from tests.tuning.report.searches import (
    SPACE,
    START,
    a_failed_trial,
    a_trial,
    planted_trials,
    write_search,
)


def _labelled(figure: Figure, label: str) -> np.ndarray:
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == label]
    return np.array(line.get_xydata())


def _dots(axes: Axes, marker: str) -> np.ndarray:
    found = [line.get_xydata() for line in axes.lines if line.get_marker() == marker]
    return np.concatenate(found)


def _drawn(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


@pytest.mark.parametrize("direction", ["max", "min"])
def test_scores_best_so_far_and_failures(tmp_path: Path, direction: str) -> None:
    scores = [0.5, 0.3, 0.7, 0.6, 0.2]
    trials = [a_trial(n, score) for n, score in enumerate(scores, 1)]
    trials += [a_trial(0, 0.65), a_failed_trial(6), a_trial(7, float("nan"))]
    search = read_search(write_search(tmp_path / "s", trials, direction=direction))
    figure = draw_score_by_trial(search)
    assert np.allclose(_labelled(figure, "completed"), list(enumerate(scores, 1)))
    best = [0.5, 0.5, 0.7, 0.7, 0.7] if direction == "max" else [0.5, 0.3, 0.3, 0.3, 0.2]
    assert _labelled(figure, "best so far")[:, 1].tolist() == best
    assert set(_labelled(figure, "baseline 0.65")[:, 1]) == {0.65}
    assert _labelled(figure, "failed")[:, 0].tolist() == [6]
    assert _labelled(figure, "completed, no finite score")[:, 0].tolist() == [7]


def test_a_line_per_trial_through_its_values(tmp_path: Path) -> None:
    trials = [a_trial(2, 0.4), a_trial(3, 0.8), a_failed_trial(4)]
    trials[0]["values"]["optimizer.learning_rate"] = 10**-3.5
    figure = draw_parallel_coordinates(read_search(write_search(tmp_path / "s", trials)))
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == len(SPACE) + 1]
    failed, bad, best = (np.array(line.get_ydata()) for line in lines)
    assert bad[0] == pytest.approx(0.5)
    assert (bad[-1], best[-1]) == (0, 1)
    unused = list(SPACE).index("optimizer.momentum")
    assert bad[unused] == failed[unused] == failed[-1] < -0.1 < best[unused]
    assert lines[2].get_linewidth() > lines[1].get_linewidth()
    assert lines[0].get_linestyle() == "--"
    batch = list(SPACE).index("training.batch_size")
    assert bad[batch] == pytest.approx((3 - 1) / 3)


def test_low_is_on_top_where_low_is_good(tmp_path: Path) -> None:
    trials = [a_trial(1, 0.4), a_trial(2, 0.8)]
    search = read_search(write_search(tmp_path / "s", trials, direction="min"))
    lines = draw_parallel_coordinates(search).axes[0].lines
    whole = [line for line in lines if len(line.get_xdata()) == len(SPACE) + 1]
    assert [line.get_ydata()[-1] for line in whole] == [0, 1]
    colours, scale = score_colours(search)
    assert sum(colours(scale(0.4))[:3]) > sum(colours(scale(0.8))[:3])


def test_a_panel_per_setting(tmp_path: Path) -> None:
    trials = [a_trial(n, n / 10) for n in range(1, 6)] + [a_failed_trial(6)]
    figure = draw_score_by_value(read_search(write_search(tmp_path / "s", trials)))
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_visible()}
    assert set(panels) == set(SPACE)
    rate = panels["optimizer.learning_rate"]
    assert rate.get_xscale() == "log"
    dots = sorted(map(tuple, _dots(rate, "o")[:, ::-1]))
    expected = [(t["score"], t["values"]["optimizer.learning_rate"]) for t in trials[:5]]
    assert np.allclose(dots, sorted(expected))
    failed = trials[5]["values"]["optimizer.learning_rate"]
    assert _dots(rate, "x")[:, 0] == pytest.approx([failed])
    # Only every second trial used it.
    assert len(_dots(panels["optimizer.momentum"], "o")) == 3
    names = panels["optimizer.name"]
    assert [tick.get_text() for tick in names.get_xticklabels()] == ["adamw", "sgd"]
    places = _dots(names, "o")[:, 0]
    assert len(set(places)) == 5 and all(abs(place - round(place)) < 0.2 for place in places)


def test_curves_begin_where_they_were_trained(tmp_path: Path) -> None:
    again = a_trial(2, 0.9, continued_from="0001", epochs_to=7)
    again["executions"][0] |= {"epochs": 7, "curve": [0.6, 0.8, 0.9]}
    trials = [a_trial(1, 0.5), again, a_trial(0, 0.4)]
    figure = draw_best_curves(read_search(write_search(tmp_path / "s", trials)))
    assert _labelled(figure, "trial 2: 0.9").tolist() == [[5, 0.6], [6, 0.8], [7, 0.9]]
    assert _labelled(figure, "trial 1: 0.5")[:, 0].tolist() == [1, 2, 3, 4]
    assert _labelled(figure, "baseline: 0.4")[-1].tolist() == [4, 0.4]


def test_time_by_worker_and_status(tmp_path: Path) -> None:
    running = a_trial(3, None, status="running", ended=None)
    running["executions"][0] |= {"minutes": 2.0, "score": None}
    trials = [a_trial(0), a_trial(1), a_failed_trial(2), running]
    search = read_search(write_search(tmp_path / "s", trials))
    assert minutes_of(search, "completed") == 6.0
    assert minutes_of(search, "failed") == 3.0
    assert search.until == START + 600 + 120
    bars, sums = draw_time_spent(search).axes
    assert [bar.get_width() for bar in bars.patches] == pytest.approx([3, 3, 3, 2])
    assert [bar.get_x() * 60 for bar in bars.patches] == pytest.approx([0, 200, 400, 600])
    assert [bar.get_y() + bar.get_height() / 2 for bar in bars.patches] == [0, 1, 0, 1]
    assert [bar.get_width() for bar in sums.patches] == pytest.approx([6, 3, 2])


def test_bars_and_intervals_of_importance() -> None:
    shares = {"a.b": (0.4, 0.2, 0.6), "c.d": (-0.1, -0.3, 0.1)}
    axes = draw_parameter_importance(Importance(shares, 0.5, 30)).axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([40, 0])
    assert np.allclose(axes.lines[0].get_xdata(), [20, 60])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a.b", "c.d"]


@pytest.mark.parametrize(
    "pair",
    [
        ("optimizer.learning_rate", "model.features"),
        ("training.batch_size", "optimizer.momentum"),
        ("model.residual", "optimizer.name"),
    ],
)
def test_a_map_of_two_settings(tmp_path: Path, pair: tuple[str, str]) -> None:
    search = read_search(write_search(tmp_path / "s", [*planted_trials(20), a_failed_trial(21)]))
    figure = draw_important_pair(search, encode(search), pair)
    axes = figure.axes[0]
    (mesh,) = axes.collections
    guesses = np.asarray(mesh.get_array())
    scores = [trial.score for trial in search.compared]
    assert min(scores) <= guesses.min() and guesses.max() <= max(scores)
    if pair[0] == "optimizer.learning_rate":
        # The planted best rate is 10^-3.2.
        best = guesses.mean(axis=0).argmax() / (guesses.shape[1] - 1)
        assert 0.3 < best < 0.9
    assert sum(line.get_marker() == "x" for line in axes.lines) == 1
    assert _drawn(figure)[..., :3].std() > 5


def test_one_score_beyond_all_does_not_flatten_the_others(tmp_path: Path) -> None:
    trials = [a_trial(n, 0.3 + n / 100) for n in range(1, 9)] + [a_trial(9, 1e6)]
    search = read_search(write_search(tmp_path / "s", trials, direction="min"))
    low, high = score_range(search)
    assert low == pytest.approx(0.31) and high < 1
    assert draw_score_by_trial(search).axes[0].get_ylim()[1] < 1
    high_is_good = read_search(write_search(tmp_path / "t", trials))
    assert score_range(high_is_good)[1] == 1e6


def test_one_trial_of_the_smallest_space(tmp_path: Path) -> None:
    space = {"a": {"choice": ["one", "other"]}, "b.c": {"int": [2, 3]}, "d": {"boolean": True}}
    trials = [a_trial(1, 0.5, values={"a": "one", "b.c": 2, "d": True})]
    search = read_search(write_search(tmp_path / "s", trials, space))
    for draw in (draw_score_by_trial, draw_parallel_coordinates, draw_score_by_value):
        assert _drawn(draw(search))[..., :3].std() > 5
