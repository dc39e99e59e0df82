import signal
import threading

import pytest

from kerasseg.training.callbacks import StopOnInterrupt, Stopped


class Ended(Exception):
    """What the handler of before raises."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_waits_for_the_batch_and_the_second_does_not(number):
    def end(*_):
        raise Ended

    before = signal.signal(number, end)
    try:
        with StopOnInterrupt() as callback:
            callback.on_train_batch_end(0)
            callback.on_test_batch_end(0)
            # Not os.kill: that may reach another thread, and the handler would run a moment later.
            signal.raise_signal(number)
            for stopping in (callback.on_train_batch_end, callback.on_test_batch_end):
                with pytest.raises(Stopped, match=number.name) as stopped:
                    stopping(1)
                assert stopped.value.number == number
            with pytest.raises(Ended):
                signal.raise_signal(number)
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, before)


def test_each_signal_has_a_second_of_its_own():
    """SIGTERM after Ctrl-C still waits for the batch."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopOnInterrupt() as callback:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            callback.on_train_batch_end(0)
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]


def test_other_threads_are_left_alone():
    before = signal.getsignal(signal.SIGINT)
    failures = []

    def use():
        try:
            with StopOnInterrupt() as callback:
                callback.on_train_batch_end(0)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert not failures and signal.getsignal(signal.SIGINT) is before
