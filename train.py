"""Train a network: python train.py --config configs/brats20_3d.yaml training.epochs=10

Without --config it trains the demo on generated phantoms. The same as `kerasseg train`.
"""

from kerasseg.cli.main import train_main

if __name__ == "__main__":
    train_main()
