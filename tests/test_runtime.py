import os
import subprocess
import sys

import pytest

from kerasseg.runtime import FLAGS


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


def test_starting_tensorflow_is_quiet_but_passes_on_what_it_does_not_know():
    code = (
        "import kerasseg.runtime as r, os, sys\n"
        "class Loud:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'tensorflow': os.write(2, b'something is broken\\n')\n"
        "sys.meta_path.insert(0, Loud())\n"
        "r.start_tensorflow()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "something is broken"
