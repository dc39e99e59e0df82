"""Which cases are drawn, and that what is drawn lies where it is."""

import numpy as np
import pytest

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import load_experiment
from kerasseg.data_report.explore import choose_examples
from kerasseg.data_report.figures import draw_example, draw_tumour_places
from kerasseg.data_report.statistics import DataSet, measure_cases
from kerasseg.datasets.discovery import discover
from tests.conftest import phantom_experiment, write_brats


def data_set_of(experiment: Experiment) -> DataSet:
    return DataSet(list(measure_cases(experiment, discover(experiment.data))), [], experiment.data)


def test_examples_are_the_extremes_the_median_and_a_healthy_case(tmp_path, phantoms):
    data_set = data_set_of(phantom_experiment(tmp_path))
    sizes = np.array([np.count_nonzero(label) for _, label in phantoms])
    order = [int(i) for i in np.argsort(sizes, kind="stable") if sizes[i]]
    expected = {
        "smallest": order[0],
        "median": order[len(order) // 2],
        "largest": order[-1],
        "without_tumour": int(np.flatnonzero(sizes == 0)[0]),
    }
    found = {example.name: example.case.case_id for example in choose_examples(data_set)}
    assert found == {name: f"phantom_{i:04d}" for name, i in expected.items()}


def test_planes_go_through_the_most_tumour_with_the_crown_up(tmp_path, phantoms):
    experiment = phantom_experiment(tmp_path)
    case = discover(experiment.data)[0].load()
    box = [np.flatnonzero(case.image.any(axis=-1).any(axis=a)) for a in ((1, 2), (0, 2), (0, 1))]
    label = case.label[tuple(slice(b[0], b[-1] + 1) for b in box)]
    figure = draw_example(case, "title", knows_space=True)
    panels = {axes.get_title().split(" ")[0]: axes for axes in figure.axes}
    assert list(panels) == ["FLAIR", "T1", "T1ce", "T2", "axial", "coronal", "sagittal"]
    for axis, plane in enumerate(("axial", "coronal", "sagittal")):
        areas = (label > 0).sum(axis=tuple(a for a in range(3) if a != axis))
        index = int(areas.argmax())
        assert panels[plane].get_title() == f"{plane} {index + box[axis][0]}"
        truth = label.take(index, axis=axis) > 0
        drawn = panels[plane].get_images()[1].get_array()[..., 3] > 0
        np.testing.assert_array_equal(drawn, truth if axis == 0 else truth[::-1])


@pytest.mark.parametrize(
    ("classes", "names"), [("subregions", ["NCR", "ED", "ET"]), ("tumour", ["tumour"])]
)
def test_the_legend_names_the_classes_of_the_data_set(tmp_path, classes, names):
    case = discover(phantom_experiment(tmp_path).data)[0].load()
    case.classes = classes
    (legend,) = draw_example(case, "title", knows_space=True).legends
    assert [text.get_text() for text in legend.get_texts()] == names


def test_thick_slices_keep_their_height_and_unknown_ones_are_stretched(tmp_path):
    case = discover(phantom_experiment(tmp_path).data)[0].load()
    case.spacing = (4.0, 1.0, 2.0)
    known = {a.get_title().split(" ")[0]: a for a in draw_example(case, "", knows_space=True).axes}
    assert known["axial"].get_aspect() == 0.5
    assert known["coronal"].get_aspect() == 2 and known["sagittal"].get_aspect() == 4
    unknown = draw_example(case, "", knows_space=False).axes
    for axes in unknown:
        if axes.get_title().startswith("coronal"):
            height, width = axes.get_images()[0].get_array().shape
            assert axes.get_aspect() * height / width == pytest.approx(0.8)


def test_a_dot_lies_where_the_tumour_is(tmp_path, phantoms):
    image, _ = phantoms[0]
    label = np.zeros(image.shape[:3], np.uint8)
    inside = np.argwhere(image.any(axis=-1))
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    place = tuple((low + (high - low) * (0.75, 0.4, 0.3)).astype(int))
    label[place] = 2
    write_brats(tmp_path / "scans", "a", (image, label))
    base = ("data.layout=brats_nifti", f"data.root={tmp_path / 'scans'}", "records.workers=1")
    experiment = load_experiment(None, base)
    figure = draw_tumour_places(data_set_of(experiment))
    d, h, w = (np.array(place) + 0.5 - low) / (high - low)
    for axes, expected in zip(figure.axes, ((w, h), (w, d), (h, d)), strict=True):
        np.testing.assert_allclose(axes.collections[0].get_offsets()[0], expected)
    assert figure.axes[0].yaxis_inverted() and not figure.axes[1].yaxis_inverted()


def test_lgg_patients_are_counted_in_voxels(real_data, tmp_path):
    overrides = ("data.layout=lgg", f"data.root={real_data / 'lgg'}", "model.target=binary")
    data_set = data_set_of(load_experiment(None, [*overrides, "records.workers=1"]))
    assert len(data_set.cases) == 18 and data_set.unit == "voxels" and not data_set.flat
    assert data_set.voxels == {"tumour": 290_773}
    assert 0.3 < data_set.tumour_slices < 0.4
