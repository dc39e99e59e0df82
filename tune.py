"""Search for better settings: python tune.py --config configs/tune_lgg_2d.yaml search.max_trials=30

Without --config it searches on generated phantoms. The same as `kerasseg tune`.
"""

import sys

from kerasseg.cli.main import app, mistakes_as_sentences

if __name__ == "__main__":
    with mistakes_as_sentences():
        app(["tune", *sys.argv[1:]], prog_name=f"python {sys.argv[0]}")
