"""Signals end a loop even where Python discards what their handlers raise."""

from __future__ import annotations

import signal
import threading
import weakref

import pytest

from hsf_finetune.cli.main import EXIT_TERMINATED, explain
from hsf_finetune.system.console import progress
from hsf_finetune.system.interruption import end_if_asked, heed_interrupts


class Referred:
    """What a weak reference can refer to."""


def send_where_it_is_lost(number: int) -> None:
    """Sends a signal whose handler runs in a callback of a weak reference."""
    referred = Referred()
    reference = weakref.ref(referred, lambda _: signal.raise_signal(number))
    del referred
    assert reference() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, EXIT_TERMINATED)]
)
def test_a_command_ends_at_the_first_signal(number: int, code: int) -> None:
    done = []

    def work() -> int:
        with progress("working") as tick:
            for step in range(3):
                send_where_it_is_lost(number)
                done.append(step)
                tick(step, 3)
        return 0

    before = signal.getsignal(signal.SIGINT)
    assert explain(work) == code
    assert done == [0]
    assert signal.getsignal(signal.SIGINT) == before
    end_if_asked()  # nothing is left


def test_between_steps_the_second_interrupt_is_at_once() -> None:
    with heed_interrupts(), heed_interrupts(between_steps=True):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            end_if_asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    end_if_asked()


def test_programs_keep_their_handlers_and_threads_change_none() -> None:
    def enter() -> None:
        with heed_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    seen: list[object] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        enter()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [before, signal.SIG_IGN]
