import subprocess
import sys


def test_starting_tensorflow_is_quiet_but_passes_on_what_it_does_not_know():
    """Keras finds the packages that are installed. While devices start nothing is caught: what C++
    writes just before it ends the process must reach the user."""
    code = (
        "import os, sys\nfrom kerasseg.tensorflow_setup import start_tensorflow\n"
        "class Loud:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'tensorflow': os.write(2, b'something is broken\\n')\n"
        "sys.meta_path.insert(0, Loud())\n"
        "def end():\n"
        "    assert {'pandas', 'scipy'} & set(sys.modules)\n"
        "    os.write(2, b'last words\\n')\n"
        "    os._exit(3)\n"
        "start_tensorflow(end)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3 and done.stderr.split("\n") == [
        "something is broken", "last words", ""
    ]  # fmt: skip


def test_packages_that_training_does_not_need_can_be_left_out():
    code = (
        "import sys\nfrom kerasseg.tensorflow_setup import start_tensorflow\n"
        "import matplotlib\n"
        "start_tensorflow(hide_optional_packages=True)\n"
        "import keras, kerasseg.inference.predictor, kerasseg.models.unet\n"
        "there = {'cv2', 'matplotlib', 'pandas', 'scipy.ndimage', 'sklearn'} & set(sys.modules)\n"
        "assert there == {'matplotlib'}, there\n"  # which was imported before
        "import matplotlib.pyplot, scipy.ndimage, sklearn\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
