import subprocess
import sys


def test_starting_tensorflow_is_quiet_but_passes_on_what_it_does_not_know():
    """And Keras finds the packages that are installed."""
    code = (
        "import os, sys\nfrom kerasseg.tensorflow_setup import start_tensorflow\n"
        "class Loud:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'tensorflow': os.write(2, b'something is broken\\n')\n"
        "sys.meta_path.insert(0, Loud())\n"
        "start_tensorflow()\n"
        "assert {'pandas', 'scipy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "something is broken"


def test_standard_error_is_not_caught_while_devices_start():
    """What C++ writes just before it ends the process must reach the user."""
    code = (
        "import os\nfrom kerasseg.tensorflow_setup import start_tensorflow\n"
        "start_tensorflow(lambda: (os.write(2, b'last words\\n'), os._exit(3)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3 and done.stderr.strip() == "last words"


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
