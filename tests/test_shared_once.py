"""The fixture `shared_once` builds a folder one time for all workers."""

import pytest


def test_a_folder_is_built_once_and_again_only_after_a_failure(shared_once):
    built = []

    def build(folder):
        built.append(folder)
        (folder / "half").touch()
        if len(built) == 1:
            raise RuntimeError("no luck")

    with pytest.raises(RuntimeError, match="no luck"):
        shared_once("try", build)
    assert not built[0].exists()
    folder = shared_once("try", build)
    assert shared_once("try", build) == folder == built[0]
    assert len(built) == 2 and (folder / "half").exists()
