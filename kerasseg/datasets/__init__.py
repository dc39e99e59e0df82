"""File layouts -> `Case`: a file per layout, whose facts are a row of `config/layouts.py`."""
