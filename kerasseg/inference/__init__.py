"""One volume through a network: the only sliding window of the house."""
