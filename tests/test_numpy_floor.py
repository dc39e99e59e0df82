"""The package runs with every NumPy that pyproject.toml allows, from 1.26 on."""

import ast
from pathlib import Path

import pytest

import kerasseg

NEW_IN_2 = {
    *("acos", "acosh", "asin", "asinh", "astype", "atan", "atan2", "atanh", "bitwise_count"),
    *("bitwise_invert", "bitwise_left_shift", "bitwise_right_shift", "bool", "concat"),
    *("cumulative_prod", "cumulative_sum", "isdtype", "long", "matrix_transpose", "matvec"),
    *("permute_dims", "pow", "strings", "trapezoid", "ulong", "unique_all", "unique_counts"),
    *("unique_inverse", "unique_values", "unstack", "vecdot", "vecmat"),
    *("linalg.cross", "linalg.diagonal", "linalg.matmul", "linalg.matrix_norm", "linalg.outer"),
    *("linalg.matrix_transpose", "linalg.svdvals", "linalg.tensordot", "linalg.trace"),
    *("linalg.vecdot", "linalg.vector_norm"),
}
"""Functions that NumPy has had since 2.0 or later."""


def new_names(source: str) -> set[str]:
    """The names of `NEW_IN_2` that a file uses as np.NAME."""
    nodes = ast.walk(ast.parse(source))
    return {ast.unparse(n).removeprefix("np.") for n in nodes if isinstance(n, ast.Attribute)} & (
        NEW_IN_2
    )


def test_no_function_of_numpy_2_is_used():
    root = Path(kerasseg.__file__).parents[1]
    assert "numpy>=1.26" in (root / "pyproject.toml").read_text(), (
        "raise the floor in this file too"
    )
    for path in (root / "kerasseg").rglob("*.py"):
        found = new_names(path.read_text(encoding="utf-8"))
        assert not found, f"{path}: np.{', np.'.join(found)} needs NumPy 2"


@pytest.mark.parametrize("name", ["trapezoid", "linalg.vector_norm"])
def test_a_function_of_numpy_2_is_found(name):
    assert new_names(f"import numpy as np\nnp.{name}(x)") == {name}
