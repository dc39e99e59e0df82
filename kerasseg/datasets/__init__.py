"""File layouts -> `Case`. One file per layout; `discovery.LAYOUTS` names them."""
