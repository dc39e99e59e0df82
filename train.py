"""Train a network: python train.py --config configs/brats20_3d.yaml training.epochs=10

Without --config it trains the demo on generated phantoms. The same as `kerasseg train`.
"""

import sys

from kerasseg.cli.main import app, mistakes_as_sentences

if __name__ == "__main__":
    with mistakes_as_sentences():
        app(["train", *sys.argv[1:]], prog_name=f"python {sys.argv[0]}")
