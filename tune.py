"""Search for better settings: python tune.py --config configs/tune_lgg_2d.yaml search.max_trials=30

Without --config it searches on generated phantoms. The same as `kerasseg tune`.
"""

import sys

from kerasseg.cli.main import main

if __name__ == "__main__":
    main(["tune", *sys.argv[1:]], f"python {sys.argv[0]}")
