"""`kerasseg export`: runs into the files that a server loads."""
