"""The page: alone, whole, the same twice, and honest about what was left out."""

import base64
import csv
import io
import re
import subprocess
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import load_experiment
from kerasseg.data_report import explore as page_module
from kerasseg.data_report.explore import explore
from kerasseg.errors import UserError
from tests.conftest import TINY, phantom_experiment, write_brats

ALWAYS = {"intensities"}
OF_TUMOURS = {"class_volumes", "tumour_sizes", "tumour_places"}
OF_SLICES = {"slice_presence"}
EXAMPLES = {"example_smallest", "example_median", "example_largest"}


def pngs(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.png")}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def words(path: Path) -> str:
    """The page's text without tags, style, script and figures, with single spaces."""
    text = re.sub(r"<(style|script)>.*?</\1>", "", path.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def pictures_experiment(root: Path, count: int, *overrides: str) -> Experiment:
    """Grey pictures of two sizes with one square tumour each, of growing side."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        shape = (24, 32) if index else (20, 28)
        mask = np.zeros(shape, np.uint8)
        mask[2 : 4 + index, 10 : 12 + index] = 255
        pixels = rng.integers(1, 255, shape).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"images/p{index}.png")
        Image.fromarray(mask).save(root / f"masks/p{index}.png")
    base = (
        "data.layout=image_pairs",
        f"data.root={root}",
        "model.dimensions=2",
        "model.target=binary",
        "records.workers=1",
    )
    return load_experiment(None, [*TINY, "pipeline.patch_size=[16,16]", *base, *overrides])


@pytest.fixture(scope="module")
def explored(tmp_path_factory) -> Path:
    """The page of eight phantoms, one without ET and one without a tumour."""
    folder = tmp_path_factory.mktemp("explore")
    return explore(phantom_experiment(folder), folder / "page" / "explore")


def test_every_figure_is_written_and_lies_in_the_page(explored):
    names = ALWAYS | OF_TUMOURS | OF_SLICES | EXAMPLES | {"example_without_tumour"}
    assert pngs(explored.parent) == names
    embedded = re.findall(r'src="data:image/png;base64,([^"]+)"', explored.read_text())
    files = {(explored.parent / f"{name}.png").read_bytes() for name in names}
    assert {base64.b64decode(data) for data in embedded} == files
    for png in files:
        assert np.ptp(matplotlib.image.imread(io.BytesIO(png))[..., :3]) > 0.5


def test_the_page_refers_to_nothing_outside_itself(explored):
    text = explored.read_text()
    assert set(re.findall(r'src="([^:"]*):', text)) == {"data"}
    links = re.findall(r'href="#([^"]*)"', text)
    assert text.count("href") == len(links) > 4
    assert all(f'id="{link}"' in text for link in links)
    for word in ("<script ", "<link", "url(", "@import", "http"):
        assert word not in text


def test_nothing_is_left_behind_but_what_was_promised(explored):
    kinds = {path.suffix for path in explored.parent.iterdir()}
    assert kinds == {".png", ".html", ".csv"}
    assert not [path for path in explored.parent.iterdir() if path.name.startswith(".")]


def test_the_same_data_give_the_same_bytes_however_many_processes_read(explored, tmp_path):
    experiment = phantom_experiment(tmp_path, "records.workers=2")
    again = explore(experiment, tmp_path / "again")
    for path in explored.parent.iterdir():
        assert (again.parent / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_csv_has_a_row_per_case_with_the_true_numbers(explored, phantoms):
    found = rows(explored.parent)
    assert [row["case_id"] for row in found] == [f"phantom_{i:04d}" for i in range(8)]
    for row, (image, label) in zip(found, phantoms, strict=True):
        assert [int(row[axis]) for axis in ("depth", "height", "width")] == list(label.shape)
        assert int(row["tumour_voxels"]) == np.count_nonzero(label)
        assert int(row["ET_voxels"]) == np.count_nonzero(label == 3)
        voxel = np.prod([float(row[f"spacing_{a}_mm"]) for a in ("depth", "height", "width")])
        assert float(row["ET_ml"]) == pytest.approx(
            np.count_nonzero(label == 3) * voxel / 1000, abs=1e-4
        )
        flair = image[..., 0][image[..., 0] != 0]
        assert float(row["flair_mean"]) == pytest.approx(flair.mean(dtype=float), rel=1e-5)
        assert row["left_out"] == ""
    assert found[7]["tumour_centre_depth"] == "" and found[7]["tumour_components"] == "0"


def test_the_page_says_the_totals_and_the_weights(explored, phantoms):
    text = words(explored)
    assert "8 cases of 8 patients · layout phantom" in text
    assert "8 cases with a segmentation (NCR, ED, ET), 7 of them with tumour." in text
    labels = np.stack([label for _, label in phantoms])
    counts = np.array([np.count_nonzero(labels == i) for i in (1, 2, 3)])
    for count in counts:
        assert f"{count:,}" in text
    weights = counts**-0.5 / (counts**-0.5).mean()
    line = ",".join(f"{round(w, 2):g}" for w in weights)
    assert f"loss.0.weights=[{line}]" in text


@pytest.mark.usefixtures("figures_not_rendered")
def test_a_single_channel_needs_no_weights_but_its_share_is_told(tmp_path, phantoms):
    text = words(explore(phantom_experiment(tmp_path, "model.target=binary"), tmp_path / "out"))
    tumour = sum(np.count_nonzero(label) for _, label in phantoms)
    brain = sum(np.count_nonzero(image.any(axis=-1)) for image, _ in phantoms)
    assert "model.target=binary has one channel, which needs no weight" in text
    assert f"Its foreground is {100 * tumour / brain:.3g} % of the brain" in text
    assert "loss.0.weights" not in text


@pytest.mark.usefixtures("figures_not_rendered")
def test_a_class_that_never_occurs_is_named(tmp_path, phantoms):
    image, label = phantoms[0]
    write_brats(tmp_path / "scans", "a", (image, np.where(label == 3, 1, label)))
    text = words(explore(brats(tmp_path), tmp_path / "out"))
    assert "ET of model.target=subregions never occurs in these cases" in text
    assert "loss.0.weights" not in text


def brats(folder: Path, *overrides: str) -> Experiment:
    base = ("data.layout=brats_nifti", f"data.root={folder / 'scans'}", "records.workers=1")
    return load_experiment(None, [*TINY, *base, *overrides])


@pytest.mark.usefixtures("figures_not_rendered")
def test_bad_cases_are_named_and_left_out(tmp_path, phantoms):
    root = tmp_path / "scans"
    write_brats(root, "good", phantoms[0])
    (write_brats(root, "lacking", phantoms[1]) / "lacking_t2.nii.gz").unlink()
    cut = write_brats(root, "cut", phantoms[2]) / "cut_t1.nii.gz"
    cut.write_bytes(cut.read_bytes()[:1000])
    page = explore(brats(tmp_path), tmp_path / "out")
    text = words(page)
    assert "1 case of 1 patient" in text
    assert "2 cases of 3 were left out , because they cannot be read:" in text
    assert re.search(r"lacking : \S+: case lacking has no t2 file", text)
    assert re.search(r"cut : \S+cut_t1.nii.gz: cannot be read as NIfTI", text)
    found = {row["case_id"]: row for row in rows(page.parent)}
    assert set(found) == {"good", "lacking", "cut"}
    assert "has no t2 file" in found["lacking"]["left_out"] and found["lacking"]["depth"] == ""
    assert pngs(page.parent) == ALWAYS | OF_TUMOURS | OF_SLICES | {"example_median"}


def test_no_good_case_is_an_error(tmp_path, phantoms):
    (write_brats(tmp_path / "scans", "a", phantoms[0]) / "a_t2.nii.gz").unlink()
    with pytest.raises(
        UserError,
        match=r"data.root: none of the 1 case\(s\) below .*scans can be read. The first, a: .*"
        "has no t2 file",
    ):
        explore(brats(tmp_path), tmp_path / "out")


@pytest.mark.usefixtures("figures_not_rendered")
def test_cases_without_a_segmentation_count_where_none_is_needed(tmp_path, phantoms):
    root = tmp_path / "scans"
    write_brats(root, "with", phantoms[0])
    (write_brats(root, "without", phantoms[1]) / "without_seg.nii.gz").unlink()
    page = explore(brats(tmp_path), tmp_path / "out")
    text = words(page)
    assert "2 cases of 2 patients" in text
    assert "1 case with a segmentation (NCR, ED, ET), 1 of them with tumour." in text
    assert "Without a segmentation: 1 case, which counts in the shapes and intensities" in text
    assert text.count("no segmentation") == 1  # its row of the table
    assert rows(page.parent)[1]["tumour_voxels"] == ""
    assert f"{np.count_nonzero(phantoms[0][1] == 2):,}" in text


def test_a_data_set_without_any_segmentation(tmp_path, phantoms):
    root = tmp_path / "scans"
    for index in range(2):
        (write_brats(root, f"c{index}", phantoms[index]) / f"c{index}_seg.nii.gz").unlink()
    page = explore(brats(tmp_path), tmp_path / "out")
    assert pngs(page.parent) == {"intensities", "example_smallest", "example_largest"}
    assert "Class weights" not in words(page)


def test_pictures_are_counted_in_pixels_and_drawn_in_one_plane(tmp_path):
    page = explore(pictures_experiment(tmp_path / "p", 3), tmp_path / "out")
    assert pngs(page.parent) == ALWAYS | OF_TUMOURS | EXAMPLES
    text = words(page)
    assert "3 cases; which of them are of one patient is not known" in text
    assert "do not say how large a voxel is, so sizes are counted in pixels." in text
    assert "mL" not in text and "mm" not in text
    assert "1 x 24 x 32 2 1 x 20 x 28 1" in text
    found = rows(page.parent)
    assert [row["tumour_voxels"] for row in found] == ["4", "9", "16"]
    assert "tumour_ml" not in found[0] and found[0]["spacing_depth_mm"] == ""


@pytest.mark.usefixtures("figures_not_rendered")
def test_a_long_list_shows_the_extremes_only(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "_LONGEST_TABLE", 6)
    monkeypatch.setattr(page_module, "_EXTREMES", 2)
    monkeypatch.setattr(page_module, "_MOST_COUNTS", 1)
    page = explore(pictures_experiment(tmp_path / "p", 7), tmp_path / "out")
    text = words(page)
    assert "All 7 are in cases.csv" in text
    assert len(rows(page.parent)) == 7
    listed = text.split("The 2 smallest tumours")[1]
    assert re.findall(r"\bp\d\b", listed) == ["p0", "p1", "p5", "p6"]
    assert "1 x 24 x 32 6 others 1" in text


def test_figures_of_an_earlier_page_do_not_stay(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("example_without_tumour.png", "slice_presence.png", "mine.png"):
        (out / name).write_bytes(b"old")
    explore(pictures_experiment(tmp_path / "p", 2), out)
    assert not (out / "example_without_tumour.png").exists()
    assert not (out / "slice_presence.png").exists()
    assert (out / "mine.png").read_bytes() == b"old"


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_read(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Making .*file failed: .*--output=FOLDER"):
        explore(phantom_experiment(tmp_path), tmp_path / "file")


@pytest.mark.usefixtures("figures_not_rendered")
def test_names_are_escaped(tmp_path, phantoms):
    write_brats(tmp_path / "scans", "a&<b>", phantoms[0])
    text = explore(brats(tmp_path), tmp_path / "out").read_text()
    assert "a&amp;&lt;b&gt;" in text and "<b>" not in text


def test_no_tensorflow_is_imported(python):
    program = (
        "import sys, kerasseg.data_report.explore;"
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
