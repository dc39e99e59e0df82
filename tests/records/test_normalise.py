import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kerasseg.records.normalise import brain_box, z_score


def test_z_score_against_the_formula():
    rng = np.random.default_rng(0)
    image = rng.normal(500, 90, (4, 5, 6, 3)).astype(np.float32)
    image[rng.random((4, 5, 6)) < 0.4] = 0
    scored, mean, std = z_score(image)
    for channel in range(3):
        values = image[..., channel]
        inside = values[values != 0].astype(np.float64)
        expected = np.where(values != 0, (values - inside.mean()) / (inside.std() + 1e-8), 0)
        np.testing.assert_allclose(scored[..., channel], expected, atol=1e-5)
        assert (scored[..., channel][values == 0] == 0).all()
        assert np.isclose(mean[channel], inside.mean()) and np.isclose(std[channel], inside.std())


def test_constant_and_empty_channels_are_finite():
    image = np.zeros((3, 4, 5, 2), np.float32)
    image[..., 0] = 7
    scored, _, std = z_score(image)
    assert np.isfinite(scored).all() and not scored.any() and std == [0.0, 0.0]


@given(hnp.arrays(bool, (4, 5, 6, 2)), st.booleans())
def test_box_holds_every_signal_and_is_tight(signal, with_label):
    image = signal.astype(np.float32)
    label = np.zeros((4, 5, 6), np.uint8)
    if with_label:
        label[3, 0, 2] = 1
    box = brain_box(image, label)
    inside = image.any(axis=-1) | (label > 0)
    assert inside[box].sum() == inside.sum()
    for axis in range(3):
        if inside.any():
            faces = np.moveaxis(inside[box], axis, 0)
            assert faces[0].any() and faces[-1].any()
