import os
import subprocess
import time

import pytest

from kerasseg import parallel
from kerasseg.parallel import parallel_map


def square_or_die(item: int) -> int:
    if item < 0:
        time.sleep(0.2)
        os._exit(9)
    return item * item


def died(item: int) -> str:
    return f"{item} died"


def died_here(item: int) -> str:
    raise AssertionError("nothing died")


SPAWNED = parallel._pool
"""Pools as users have them; those of the tests need no imports (tests/conftest.py)."""


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers, monkeypatch):
    monkeypatch.setattr(parallel, "_pool", SPAWNED)
    assert list(parallel_map(square_or_die, range(9), workers, died_here)) == [
        n * n for n in range(9)
    ]


def test_items_are_taken_as_they_are_needed():
    taken = []

    def items():
        for n in range(20):
            taken.append(n)
            yield n

    results = parallel_map(square_or_die, items(), 2, died_here)
    assert next(results) == 0 and len(taken) == 3
    results.close()
    assert len(taken) == 3


@pytest.mark.parametrize(
    "items", [[-1, 2, 3, 4, 5], [1, -2, 3, 4, 5], [1, 2, -3, -4, 5], [1, 2, 3, 4, -5]]
)
def test_the_death_of_one_is_its_own(items):
    expected = [n * n if n > 0 else f"{n} died" for n in items]
    assert list(parallel_map(square_or_die, items, 2, died)) == expected


def test_a_death_while_nobody_waits_for_it():
    found = []
    for result in parallel_map(square_or_die, [1, -2, 3, 4, 5, 6], 2, died):
        found.append(result)
        time.sleep(0.7 if len(found) == 1 else 0)  # the second dies now, before the next is given
    assert found == [1, "-2 died", 9, 16, 25, 36]


def test_a_script_without_a_guard_is_told_so(tmp_path, python):
    script = tmp_path / "script.py"
    script.write_text(
        "from kerasseg.parallel import parallel_map\n"
        "print(list(parallel_map(abs, range(3), 2, str)))\n"
    )
    result = subprocess.run(
        [python, script], capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode != 0
    said = result.stderr.splitlines()[-1]
    assert "script.py: calls kerasseg outside of `if __name__ == '__main__':`" in said
    script.write_text(script.read_text().replace("2, str", "1, str"))
    alone = subprocess.run([python, script], capture_output=True, text=True, check=True)
    assert alone.stdout == "[0, 1, 2]\n", "no process is started"
