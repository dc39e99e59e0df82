"""The figures of a search's page, as far as its trials allow."""

from collections.abc import Iterator

from kerasseg.evaluation.drawing import Drawing
from kerasseg.tuning.report.figures.best_curves import draw_best_curves
from kerasseg.tuning.report.figures.important_pair import draw_important_pair
from kerasseg.tuning.report.figures.parallel_coordinates import draw_parallel_coordinates
from kerasseg.tuning.report.figures.parameter_importance import draw_parameter_importance
from kerasseg.tuning.report.figures.score_by_trial import draw_score_by_trial
from kerasseg.tuning.report.figures.score_by_value import draw_score_by_value
from kerasseg.tuning.report.figures.time_spent import draw_time_spent
from kerasseg.tuning.report.importance import importance_in_words, parameter_importance
from kerasseg.tuning.report.score_model import encode, why_no_model
from kerasseg.tuning.report.search import Search

SCORES, SETTINGS, IMPORTANCE, TRAINING = (
    "Scores",
    "Settings",
    "What matters",
    "Training and time",
)


_FIRST_ROUNDS = (
    " Trials that went on from another one are left out, and each score counts from the mean of "
    "the trials with as many epochs."
)


def count_drawings(search: Search) -> int:
    """How many `draw_search` yields."""
    with_model = 0 if why_no_model(search) else min(len(search.parameters), 2)
    return 5 + with_model


def draw_search(search: Search) -> Iterator[Drawing]:
    """One after the other. Those that need a score or a model of it are left out where the trials
    do not give one; `why_no_model` says so in words."""
    yield Drawing(
        "score_by_trial",
        SCORES,
        "Crosses along the bottom ended without a score. A score far worse than the others is "
        "drawn at the edge, here and below.",
        draw_score_by_trial(search),
    )
    yield Drawing(
        "parallel_coordinates",
        SETTINGS,
        "One line is one trial, the best is thick; failed trials are dashed. Lines through one "
        "choice are drawn a little apart.",
        draw_parallel_coordinates(search),
    )
    yield Drawing(
        "score_by_value",
        SETTINGS,
        "The best trial is ringed, the baseline a white diamond; crosses ended without a score: "
        "red failed, orange was stopped; a grey arrow still runs. "
        "The other settings differ from dot to dot as well.",
        draw_score_by_value(search),
    )
    if not why_no_model(search):
        encoded = encode(search)
        importance = parameter_importance(encoded)
        yield Drawing(
            "parameter_importance",
            IMPORTANCE,
            importance_in_words(importance)
            + (_FIRST_ROUNDS if len(search.planned_epochs) > 1 else ""),
            draw_parameter_importance(importance),
        )
        if len(importance.shares) > 1:
            first, second, *_ = importance.shares
            yield Drawing(
                "important_pair",
                IMPORTANCE,
                "The ground is what the random forest guesses, averaged over all other settings; "
                "dots are trials in the same colours. Where there is no dot it is only a guess.",
                draw_important_pair(search, encoded, (first, second)),
            )
    yield Drawing(
        "best_curves",
        TRAINING,
        "Grey: all other trials.",
        draw_best_curves(search),
    )
    yield Drawing(
        "time_spent",
        TRAINING,
        "Numbers are those of the trials. A gap is a worker that waited or prepared.",
        draw_time_spent(search),
    )
