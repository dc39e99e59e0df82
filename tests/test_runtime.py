import os
import subprocess
import sys

import pytest

from kerasseg.tensorflow_setup import FLAGS


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0")])
def test_flags_are_set_before_tensorflow_unless_the_user_did(given, expected):
    environment = {k: v for k, v in os.environ.items() if k not in FLAGS}
    if given is not None:
        environment["TF_ENABLE_ONEDNN_OPTS"] = given
    code = (
        "import kerasseg, os, sys; assert 'tensorflow' not in sys.modules;"
        "print(os.environ['TF_ENABLE_ONEDNN_OPTS'], os.environ['KERAS_BACKEND'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [expected, "tensorflow"]


def test_every_flag_has_a_reason():
    assert all(len(reason) > 30 for _, reason in FLAGS.values())
