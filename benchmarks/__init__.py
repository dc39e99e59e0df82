"""`make bench`: what the README claims, measured here and now against a peer in the same run."""
