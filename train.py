"""Train a network: python train.py --config configs/brats20_3d.yaml training.epochs=10

Without --config it trains the demo on generated phantoms. The same as `kerasseg train`.
"""

import sys

from kerasseg.cli.main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]], f"python {sys.argv[0]}")
