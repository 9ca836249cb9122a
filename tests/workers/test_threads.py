from __future__ import annotations

import threading

from matins.workers.threads import Threads

PATIENCE_SECONDS = 20


def test_a_thread_that_waits_is_made_up_for() -> None:
    with Threads(1) as threads:
        go = threading.Event()

        def wait() -> bool:
            with threads.waiting():
                return go.wait(PATIENCE_SECONDS)

        waits = [threads.submit(wait) for _ in range(5)]
        threads.submit(go.set)  # the last in line: it needs a thread that none of the others holds
        assert [each.result(PATIENCE_SECONDS) for each in waits] == [True] * 5


def test_what_was_in_line_before_a_thread_began_to_wait_gets_one_too() -> None:
    with Threads(1) as threads:
        begun, go = threading.Event(), threading.Event()

        def wait() -> bool:
            begun.wait(PATIENCE_SECONDS)
            with threads.waiting():
                return go.wait(PATIENCE_SECONDS)

        waits = threads.submit(wait)
        threads.submit(go.set)
        begun.set()  # from here on nothing is submitted
        assert waits.result(PATIENCE_SECONDS)


def test_without_waiting_there_are_no_more_threads_than_that() -> None:
    with Threads(2) as threads:
        with threads.waiting():
            pass
        gate = threading.Barrier(3, timeout=0.2)

        def meet() -> bool:
            try:
                gate.wait()
            except threading.BrokenBarrierError:
                return False
            return True

        assert [each.result() for each in [threads.submit(meet) for _ in range(3)]] == [False] * 3
