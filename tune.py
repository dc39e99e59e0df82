"""Search for better settings: python tune.py --config configs/tune_lgg_2d.yaml search.max_trials=30

Without --config it searches on generated phantoms. The same as `kerasseg tune`.
"""

from kerasseg.cli.main import tune_main

if __name__ == "__main__":
    tune_main()
