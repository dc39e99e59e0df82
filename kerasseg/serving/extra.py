"""What is said where the packages of the extra `serving` are missing."""

from kerasseg.errors import UserError


def missing_extra(error: ImportError) -> UserError:
    """The sentence for a package that could not be imported."""
    return UserError(
        f"{error.name or error} is missing, which serving needs: pip install 'kerasseg[serving]'."
    )
