"""What is said where the packages of the extra `formats` are missing."""

from kerasseg.errors import UserError


def missing_package(error: ImportError, wanted: str) -> UserError:
    """The sentence for a package that could not be imported; `wanted` is the format."""
    return UserError(
        f"{error.name or error} is missing, which --format {wanted} needs: "
        "pip install 'kerasseg[formats]'."
    )
