import signal
import threading

import pytest

from kerasseg.training.callbacks.stop_on_interrupt import StopOnInterrupt


def test_the_first_waits_for_the_batch_and_the_second_does_not():
    before = signal.getsignal(signal.SIGINT)
    with StopOnInterrupt() as callback:
        callback.on_train_batch_end(0)
        # Not os.kill: that may reach another thread, and the handler would run a moment later.
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            callback.on_train_batch_end(1)
        with pytest.raises(KeyboardInterrupt):
            callback.on_test_batch_end(1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


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
