"""The state machine: what may happen to threads and runs, done to the server and to the model alike.

Between two rules the server is waited for until it is where the model is. But for a run that was created on an idle
thread in a `hurry`: what comes next meets it somewhere on its way to its first step, and the server may have got as far
as it likes.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Final

import httpx
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.model.model import Refused, Run, Step, Thread, stopped_early
from tests.model.world import AT_ONCE, GRAPHS, Known, World

STRATEGIES: Final = ("enqueue", "reject", "interrupt", "rollback")
MOST_THREADS: Final = 3

which = st.integers(0, 5)
strategy = st.sampled_from(STRATEGIES)
kinds = st.lists(st.sampled_from(["go", "go", "ask", "fail"]), max_size=3)
creation = rule(
    at=which,
    kinds=kinds,
    hurry=st.sampled_from([False, False, False, True]),
    is_delayed=st.sampled_from([False] * 7 + [True]),
)


class Machine(RuleBasedStateMachine):
    """Give it a World before it runs."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[Known] = []
        self.deleted: list[str] = []
        self.hurried: set[str] = set()
        self.names = 0
        self.kills_left = self.losses_left = 0

    # Threads

    @initialize(
        graph=st.sampled_from(GRAPHS),
        kinds=kinds,
        kills=st.sampled_from([0] * 24 + [1, 3]),
        losses=st.sampled_from([0, 1, 2, 4]),
    )
    def begin(self, graph: str, kinds: list[str], kills: int, losses: int) -> None:
        self.kills_left, self.losses_left = kills, losses
        self.threads.append(self.world.new_thread(graph))
        self.submit_plan(self.threads[0], "enqueue", kinds)
        self.wait_for(self.threads[0])

    @precondition(lambda self: len(self.threads) < MOST_THREADS)
    @rule(graph=st.sampled_from(GRAPHS))
    def create_thread(self, graph: str) -> None:
        self.fires("create_thread")
        self.threads.append(self.world.new_thread(graph))

    @precondition(lambda self: len(self.threads) == MOST_THREADS)
    @rule(at=which)
    def delete_thread(self, at: int) -> None:
        self.fires("delete_thread")
        known = self.pick(at)
        self.threads.remove(known)
        self.deleted.append(known.thread_id)
        path = f"/threads/{known.thread_id}"
        assert self.world.http.delete(path).status_code == 204
        assert [self.world.http.get(each).status_code for each in (path, f"{path}/runs")] == [404, 404]

    @rule(at=which)
    def update_state(self, at: int) -> None:
        self.fires("update_state")
        known, entry = self.calm(at), f"u{self.new_name()}"
        path = f"/threads/{known.thread_id}/state"
        self.do(
            known,
            lambda: self.world.post(path, values={"log": [entry]}, as_node="step"),
            lambda model: model.update(entry),
        )

    # Runs. A rule for each strategy: hypothesis leaves out some rules from each example.

    @creation
    def create_enqueued(self, **drawn: Any) -> None:
        self.create_run("enqueue", **drawn)

    @creation
    def create_rejecting(self, **drawn: Any) -> None:
        self.create_run("reject", **drawn)

    @creation
    def create_interrupting(self, **drawn: Any) -> None:
        self.create_run("interrupt", **drawn)

    @creation
    def create_rolling_back(self, **drawn: Any) -> None:
        self.create_run("rollback", **drawn)

    def create_run(self, strategy: str, at: int, kinds: list[str], *, hurry: bool, is_delayed: bool) -> None:
        self.fires(f"create_run {strategy}")
        known = self.pick(at)
        was_idle = not known.model.in_flight
        self.submit_plan(known, strategy, kinds, is_delayed=is_delayed)
        if hurry and was_idle and known.model.at:
            self.hurried.add(known.thread_id)
        else:
            self.wait_for(known)

    @rule(at=which, strategy=strategy)
    def go_on(self, at: int, strategy: str) -> None:
        self.fires("go_on")
        known = self.pick(at)
        self.submit(known, Run("", strategy), input=None)
        self.wait_for(known)

    @rule(at=which, strategy=strategy)
    def answer(self, at: int, strategy: str) -> None:
        self.fires("answer")
        known, said = self.calm(at), f"yes{self.new_name()}"
        self.submit(known, Run("", strategy, answer=said), command={"resume": said})
        self.wait_for(known)

    @rule(at=which)
    def rush(self, at: int) -> None:
        """Of several clients that want the thread for themselves, one gets it."""
        self.fires("rush")
        known, name = self.calm(at), str(self.new_name())
        body = {
            "assistant_id": known.graph,
            "input": {"todo": [[name, "go"]]},
            "multitask_strategy": "reject",
        }
        answers = self.world.post_at_once(f"/threads/{known.thread_id}/runs", [body] * AT_ONCE)
        accepted = [answer.json()["run_id"] for answer in answers if answer.is_success]
        refused = [answer.status_code for answer in answers if "already running a task" in answer.text]
        wanted = 0 if known.model.in_flight else 1
        assert (len(accepted), refused) == (wanted, [409] * (AT_ONCE - wanted)), (
            f"{[each.text for each in answers]}"
        )
        if accepted:
            known.unended.update(accepted)
            known.model.create(Run(accepted[0], "reject", plan=((name, "go"),)))
        self.wait_for(known)

    @rule(at=which)
    def step(self, at: int) -> None:
        if (known := self.standing(at)) is not None:
            self.fires("step")
            self.let_through(known)

    @rule(at=which)
    def step_again(self, at: int) -> None:
        self.step(at)

    @rule(at=which)
    def finish(self, at: int) -> None:
        if (known := self.standing(at)) is None:
            return
        self.fires("finish")
        run = known.model.running
        while run and known.model.running is run:
            self.let_through(known)

    @rule(at=which, run=which, action=st.sampled_from(["interrupt", "rollback"]), wait=st.booleans())
    def cancel(self, at: int, run: int, action: str, *, wait: bool) -> None:
        if (known := self.having_runs(at)) is None:
            return
        self.fires(f"cancel {action}")
        chosen = known.model.runs[-1 - run % len(known.model.runs)]
        if known.thread_id in self.hurried and chosen is not known.model.running:
            known = self.calmed(known)
        path = f"/threads/{known.thread_id}/runs/{chosen.name}/cancel?action={action}&wait={wait}".lower()

        def change(model: Thread) -> None:
            same = model.named(chosen.name)
            model.cancel(same) if action == "interrupt" else model.roll_back(same)

        self.do(known, lambda: self.world.http.post(path), change)

    @rule(at=which, run=which)
    def delete_run(self, at: int, run: int) -> None:
        if (known := self.having_runs(at)) is None:
            return
        self.fires("delete_run")
        self.calmed(known)
        chosen = known.model.runs[-1 - run % len(known.model.runs)]
        path = f"/threads/{known.thread_id}/runs/{chosen.name}"
        self.do(
            known, lambda: self.world.http.delete(path), lambda model: model.delete(model.named(chosen.name))
        )
        assert self.world.http.get(path).status_code == 404

    @rule(at=which, run=which)
    def join(self, at: int, run: int) -> None:
        """A run that has ended answers the same whenever it is asked."""
        if (known := self.having_runs(at)) is None:
            return
        self.fires("join")
        self.calmed(known)
        chosen = known.model.runs[-1 - run % len(known.model.runs)]
        if chosen.is_in_flight or (chosen.left and chosen.left.plan is not None):
            return
        path = f"/threads/{known.thread_id}/runs/{chosen.name}/join"
        said = self.world.http.get(path).json()
        if chosen.status == "error":
            assert said["__error__"]["error"] == chosen.error
        elif chosen.status == "interrupted":
            assert said == {}
        elif chosen.left and chosen.left.depth <= known.model.place.depth:
            asked = [each["value"] for each in said.pop("__interrupt__", [])]
            assert said == chosen.left.values
            assert asked == ([chosen.left.asked] if chosen.left.asked else [])

    # What befalls them

    @precondition(lambda self: self.kills_left)
    @rule(at=which)
    def kill_worker(self, at: int) -> None:
        self.kills_left -= 1
        if (standing := self.standing(at)) is None:
            return
        self.fires("kill_worker")
        for known in self.threads:
            self.calmed(known)
        [victim] = self.world.waiting(standing)
        died = [
            known
            for known in self.threads
            if known.model.at and self.world.waiting(known)[0].pid == victim.pid
        ]
        self.world.kill(victim)
        for known in died:
            known.model.crash()
        for known in self.threads:
            self.wait_for(known)

    @precondition(lambda self: self.losses_left)
    @rule(at=which, is_quick=st.booleans())
    def take_away(self, at: int, *, is_quick: bool) -> None:
        """Another node believes ours to be dead: the run goes on in a new attempt, the old one may do nothing more.

        The old one goes on before the new one starts (`is_quick`), or after.
        """
        self.losses_left -= 1
        if (known := self.standing(at)) is None:
            return
        self.fires("take_away")
        [zombie] = self.world.take_away(known)
        if not is_quick:
            self.wait_for(known)
        self.world.gate.open(zombie)
        self.wait_for(known)
        self.let_through(known)

    # How

    def fires(self, what: str) -> None:
        self.world.fired[what] += 1

    def new_name(self) -> int:
        self.names += 1
        return self.names

    def pick(self, at: int) -> Known:
        return self.threads[at % len(self.threads)]

    def calm(self, at: int) -> Known:
        return self.calmed(self.pick(at))

    def calmed(self, known: Known) -> Known:
        """Wait for a thread that nobody has waited for."""
        if known.thread_id in self.hurried:
            self.wait_for(known)
        return known

    # A rule may be chosen whether there is something to do for it or not: that may hang on how far a hurried run got,
    # and hypothesis wants the same choices to lead to the same questions.

    def standing(self, at: int) -> Known | None:
        """A thread with a run at the gate."""
        found = [known for known in self.threads if known.model.at]
        return self.calmed(found[at % len(found)]) if found else None

    def having_runs(self, at: int) -> Known | None:
        found = [known for known in self.threads if known.model.runs]
        return found[at % len(found)] if found else None

    def wait_for(self, known: Known, *, possible: list[Thread] | None = None) -> None:
        self.hurried.discard(known.thread_id)
        self.world.settled(known, possible=possible)

    def let_through(self, known: Known) -> None:
        [knock] = self.world.waiting(known)
        self.world.gate.open(knock)
        known.model.step()
        self.wait_for(known)

    def submit_plan(self, known: Known, strategy: str, kinds: list[str], *, is_delayed: bool = False) -> None:
        name = self.new_name()
        plan: tuple[Step, ...] = tuple(
            (f"{name}{letter}", kind) for letter, kind in zip("abc", kinds, strict=False)
        )
        run = Run("", strategy, plan=plan, is_delayed=is_delayed)
        self.submit(known, run, input={"todo": plan})

    def submit(self, known: Known, run: Run, **body: Any) -> None:
        body |= {"assistant_id": known.graph, "multitask_strategy": run.strategy}
        if run.is_delayed:
            body["after_seconds"] = 3600
        path = f"/threads/{known.thread_id}/runs"
        answer = self.world.post(path, **body)
        if answer.is_success:
            assert answer.json()["status"] == "pending"
            run.name = answer.json()["run_id"]
            known.unended.add(run.name)
        self.change(known, answer, lambda model: model.create(copy.copy(run)))

    def do(self, known: Known, ask: Callable[[], httpx.Response], change: Callable[[Thread], None]) -> None:
        self.change(known, ask(), change)
        self.wait_for(known)

    def change(self, known: Known, answer: httpx.Response, change: Callable[[Thread], None]) -> None:
        """Change the model as the server was changed, or see that both refuse."""
        said = answer.status_code, answer.text
        before, after = known.model, copy.deepcopy(known.model)
        wanted = 200
        try:
            change(after)
        except Refused as refusal:
            wanted = refusal.status
        is_alike = answer.is_success if wanted == 200 else answer.status_code == wanted
        assert is_alike, f"the server answers {said}, the model {wanted}"
        if not answer.is_success:
            return
        known.model = after
        hurried = before.running
        if known.thread_id in self.hurried and hurried and not after.runs_still(hurried):
            self.wait_for(known, possible=[after, *stopped_early(before, change)])

    def teardown(self) -> None:
        """See what is left at the end of an example; after a failure only clear away."""
        failure = sys.exc_info()[1]
        try:
            if failure is None:
                self.come_to_rest()
        except AssertionError as late:
            failure = late
            raise
        finally:
            if isinstance(failure, AssertionError):
                self.world.found.append(str(failure))
            for known in self.threads:
                self.world.http.delete(f"/threads/{known.thread_id}")
            self.world.gate.forget()
        if failure is None:
            gone = [*self.deleted, *(known.thread_id for known in self.threads)]
            assert self.world.leftovers(gone) == 0

    def come_to_rest(self) -> None:
        """Let everything end, and look at all of it once more."""
        for known in self.threads:
            self.calmed(known)
            for run in known.model.in_flight:
                if run.is_delayed:
                    self.cancel_delayed(known, run.name)
            while known.model.at:
                self.let_through(known)
            assert not known.model.in_flight
            if different := self.world.differences(known, known.model, is_last=True):
                raise AssertionError("\n".join(different))
        if broken := self.world.violations():
            raise AssertionError("\n".join(broken))

    def cancel_delayed(self, known: Known, run_id: str) -> None:
        path = f"/threads/{known.thread_id}/runs/{run_id}/cancel"
        self.do(known, lambda: self.world.http.post(path), lambda model: model.cancel(model.named(run_id)))
