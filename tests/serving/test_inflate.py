"""Gzip is inflated up to a limit, and damaged gzip is refused."""

import gzip
import resource
import zlib

import pytest
from isal import igzip

from kerasseg.serving.server.limits import Reason, Refusal, inflate

DATA = bytes(range(256)) * 40


def refused(data: bytes, most: int = len(DATA), reason: Reason = Reason.BAD_INPUT) -> Refusal:
    with pytest.raises(Refusal) as caught:
        inflate(data, most, "data_bytes", reason)
    assert "data_bytes" in caught.value.sentence
    return caught.value


def test_what_was_compressed_comes_back():
    for most in (len(DATA), len(DATA) + 9):
        assert inflate(gzip.compress(DATA), most, "it", Reason.BAD_INPUT) == DATA


def test_every_kind_of_damage_has_its_sentence():
    whole = gzip.compress(DATA)
    assert "cannot be inflated" in refused(b"garbage" * 9).sentence
    assert "cannot be inflated" in refused(zlib.compress(DATA)).sentence
    assert "cut" in refused(whole[: len(whole) // 2]).sentence
    assert "cut" in refused(b"").sentence
    assert "behind" in refused(whole + b"x").sentence
    wrong_sum = whole[:-8] + bytes(4) + whole[-4:]
    assert "cannot be inflated" in refused(wrong_sum).sentence
    assert refused(whole, 100).reason is Reason.BAD_INPUT
    assert refused(whole, 100, Reason.TOO_LARGE).reason is Reason.TOO_LARGE


def test_a_bomb_takes_no_memory():
    bomb = igzip.compress(bytes(2**29), 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "more than the 1000 bytes" in refused(bomb, 1000).sentence
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 32 * 1024, f"{grown} KiB for 512 MiB of zeros"
