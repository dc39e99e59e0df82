"""A search on one page: trials, figures, what to train with."""
