"""The scores of a campaign's finished run.

`python -m benchmarks.campaign_scores RUN DATA SCORES.csv SETTING...` scores it: every case is
segmented on its file's own grid. Dice is measured twice, over the whole volume, and as Buda et al.
(2019) did: without each volume's first and last slice, and of the largest component alone. With
--tuned it scores the copy RUN_tuned, whose post-processing `kerasseg evaluate
--tune-postprocessing` has chosen on the validation cases. With --sam LiteMedSAM, which was never
trained here, outlines FLAIR in the boxes of what the run finds. With --with OTHER_RUN, which
may be given several times, the probabilities are the mean of all these runs'.
"""

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kerasseg.files import write_csv
from kerasseg.progress import track

if TYPE_CHECKING:
    from kerasseg.prediction.model import Model


class CaseDice(NamedTuple):
    """A case of a run: its side of the split, its Dice, and its Dice as Buda et al. scored."""

    case_id: str
    side: str
    dice: float
    as_buda: float


def dice_as_buda(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the Dice of a volume without its first and last slice, of the largest component.

    It is what Buda et al. (2019) report: their code leaves both slices out when it reads a volume,
    and keeps the largest component of the prediction, voxels being connected at faces, edges and
    corners.

    Args:
        truth: (D, H, W) bool.
        prediction: (D, H, W) bool.
    """
    from kerasseg.inference.postprocessing import keep_largest
    from kerasseg.metrics.overlap import dice

    return dice(truth[1:-1], keep_largest(prediction[1:-1]))


def score_model(model: "Model", split: Mapping[str, Sequence[str]], data: Path) -> list[CaseDice]:
    """Segment validation and test cases on their files' own grid, and score them."""
    from kerasseg.datasets.discovery import discover
    from kerasseg.metrics.overlap import dice

    sides = {case: side for side in ("validation", "test") for case in split[side]}
    sources = discover(model.data.model_copy(update={"root": data}))
    found = []
    for source in track([s for s in sources if s.case_id in sides], len(sides), "Scoring cases"):
        case = source.load()
        assert case.label is not None
        truth, prediction = case.label > 0, model.segment(case).label > 0
        scores = dice(truth, prediction), dice_as_buda(truth, prediction)
        found.append(CaseDice(case.case_id, sides[case.case_id], *scores))
    return found


def tuned_copy(run: Path) -> Path:
    """Return a copy of a run with the post-processing that is best for its validation cases."""
    from kerasseg.evaluation.tune_postprocessing import tune_run

    copy = run.with_name(f"{run.name}_tuned")
    if not copy.exists():
        part = run.with_name(f"{run.name}_part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(run, part)
        tune_run(part)
        part.rename(copy)
    return copy


def zero_shot_sam(run: Path, data: Path) -> Path:
    """Return a run of LiteMedSAM on FLAIR as it is, beside a run."""
    from kerasseg.config.load import load_experiment
    from kerasseg.run_experiment import run_experiment

    folder = run.with_name("sam_zero_shot")
    if not (folder / "checkpoints" / "best.keras").exists():
        shutil.rmtree(folder, ignore_errors=True)
        store = run.parents[1] / "store_sam"
        settings = [f"data.root={data}", f"records.root={store}", f"run.root={run.parent}"]
        settings += [f"run.name={folder.name}", "training.epochs=0"]
        run_experiment(load_experiment("configs/sam_lgg_2d.yaml", settings), evaluated=False)
    return folder


def write_scores(path: Path, scores: Iterable[CaseDice]) -> None:
    """Write scores as CSV in one step."""
    write_csv(path, [CaseDice._fields, *scores], "--out")


def read_scores(path: Path) -> list[CaseDice]:
    """Read what `write_scores` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            CaseDice(row["case_id"], row["side"], float(row["dice"]), float(row["as_buda"]))
            for row in csv.DictReader(file)
        ]


def main(words: Sequence[str]) -> None:
    """Score a run."""
    from kerasseg.prediction.model import load

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.campaign_scores", description=main.__doc__
    )
    for name in ("run", "data", "scores"):
        parser.add_argument(name, type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--sam", action="store_true")
    parser.add_argument("--with", dest="others", type=Path, action="append", default=[])
    options = parser.parse_intermixed_args(words)
    if options.others and options.sam:
        parser.error("--with and --sam: LiteMedSAM gets the boxes of one run")
    run, settings = options.run, list(options.settings)
    split = json.loads((run / "split.json").read_text())
    if options.tuned:
        run = tuned_copy(run)
    if options.sam:
        settings += ["model.sam.prompt=box", f"model.sam.boxes_from={run}"]
        run = zero_shot_sam(run, options.data)
    model = load(run, *options.others, overrides=settings)
    write_scores(options.scores, score_model(model, split, options.data))


if __name__ == "__main__":
    main(sys.argv[1:])
