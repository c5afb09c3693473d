"""Runs, their bundles, tokens and logs, in memory."""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence

import attrs

from superlink_trio.state.interface import Clock
from superlink_trio.state.messages import rules
from superlink_trio.state.messages.bell import Bell
from superlink_trio.state.messages.ids import new_run_record
from superlink_trio.state.messages.interface import Claim, Logged, NewRun, NotFound
from superlink_trio.wire.messages import Outcome, RunRecord, RunStatus
from superlink_trio.wire.runs import Fab


@attrs.define(eq=False)
class _Run:
    record: RunRecord
    token: str = attrs.field(default="", repr=False)
    alive_at: float = 0.0
    """When its process was heard of last, in Unix seconds."""
    log: deque[tuple[float, str]] = attrs.field(factory=deque)
    log_size: int = 0
    news: Bell = attrs.field(factory=Bell)


class Runs:
    """Runs by their ids."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock
        self._by_id: dict[int, _Run] = {}
        self._by_token: dict[str, _Run] = {}
        self._fabs: dict[str, Fab] = {}
        # Runs that are not over, by their bundle.
        self._fab_uses: Counter[str] = Counter()
        self._pending: deque[_Run] = deque()
        self.pending = Bell()

    def __contains__(self, run_id: int) -> bool:
        return run_id in self._by_id

    def create(self, new: NewRun) -> RunRecord:
        """See `MessageState.create_run`."""
        self._fabs[new.fab.hash] = new.fab
        self._fab_uses[new.fab.hash] += 1
        record = new_run_record(new, self._now(), taken=self._by_id)
        run = self._by_id[record.run_id] = _Run(record)
        self._wait_for_claim(run)
        return record

    def _wait_for_claim(self, run: _Run) -> None:
        self._pending.append(run)
        self.pending.ring()

    def get(self, run_id: int) -> RunRecord | None:
        """Give a run."""
        run = self._by_id.get(run_id)
        return None if run is None else run.record

    def all(self) -> Iterator[RunRecord]:
        """Give every run, the oldest first."""
        return (run.record for run in self._by_id.values())

    def live(self) -> Mapping[int, RunRecord]:
        """Give the runs that are not over, the oldest first."""
        runs = ((run_id, run.record) for run_id, run in self._by_id.items())
        return {run_id: run for run_id, run in runs if run.status is not RunStatus.FINISHED}

    def newest(self, limit: int, skip: int) -> Sequence[RunRecord]:
        """See `MessageState.runs`."""
        runs = [run.record for run in reversed(self._by_id.values())]
        return runs[skip : skip + limit]

    def fab(self, fab_hash: str) -> Fab | None:
        """Give a bundle."""
        return self._fabs.get(fab_hash)

    @property
    def has_pending(self) -> bool:
        """Whether there is a run to claim."""
        return bool(self._pending)

    def claim(self) -> Claim | None:
        """See `MessageState.claim_run`."""
        if not self._pending:
            return None
        run = self._pending.popleft()
        run.token = secrets.token_hex(32)
        run.alive_at = self._now()
        self._by_token[run.token] = run
        run.record = rules.claimed(run.record, self._now())
        return Claim(run.record, run.token)

    def begin(self, token: str) -> RunRecord:
        """See `MessageState.begin_run`."""
        run = self._by_token.get(token)
        if run is None:
            raise NotFound(rules.NO_TOKEN)
        run.record = rules.begun(run.record, self._now())
        run.alive_at = self._now()
        return run.record

    def of_token(self, token: str) -> RunRecord | None:
        """See `MessageState.run_of_token`."""
        run = self._by_token.get(token)
        return None if run is None else run.record

    def heartbeat(self, token: str) -> bool:
        """See `MessageState.task_heartbeat`."""
        run = self._by_token.get(token)
        if run is None:
            return False
        run.alive_at = self._now()
        return True

    def finish(self, run_id: int, outcome: Outcome, details: str) -> bool:
        """End a run; say whether it was not over yet."""
        run = self._by_id.get(run_id)
        if run is None or run.record.status is RunStatus.FINISHED:
            return False
        if run in self._pending:
            self._pending.remove(run)
        self.log(run_id, rules.last_words(run_id, outcome, details))
        self._by_token.pop(run.token, None)
        run.token = ""
        run.record = rules.finished(run.record, outcome, details, self._now())
        self._release_fab(run.record.fab_hash)
        run.news.ring()
        self._forget_oldest()
        return True

    def _forget_oldest(self) -> None:
        over = [run for run in self._by_id.values() if run.record.status is RunStatus.FINISHED]
        for run in over[: -rules.KEPT_RUNS]:
            del self._by_id[run.record.run_id]
        kept = 0
        for run in reversed(over):
            kept += run.log_size
            if kept > rules.KEPT_LOGS:
                run.log.clear()
                run.log_size = 0

    def _release_fab(self, fab_hash: str) -> None:
        self._fab_uses[fab_hash] -= 1
        if not self._fab_uses[fab_hash]:
            del self._fab_uses[fab_hash], self._fabs[fab_hash]

    async def await_finished(self, run_id: int) -> None:
        """See `MessageState.await_finished`."""
        run = self._by_id.get(run_id)
        while run is not None and run.record.status is not RunStatus.FINISHED:
            await run.news.wait()

    def silent(self) -> Iterator[Claim]:
        """Give the runs that were claimed, or are running, and whose process is silent."""
        now = self._now()
        for run in tuple(self._by_token.values()):
            if rules.is_silent(run.record.status, run.alive_at, now):
                yield Claim(run.record, run.token)

    def claimed(self) -> Sequence[RunRecord]:
        """See `MessageState.claimed_runs`."""
        return [run.record for run in self._by_token.values()]

    def unclaim(self, token: str) -> bool:
        """See `MessageState.unclaim_run`."""
        run = self._by_token.get(token)
        if run is None or run.record.status is not RunStatus.STARTING:
            return False
        del self._by_token[token]
        run.token = ""
        run.record = rules.unclaimed(run.record)
        self._wait_for_claim(run)
        return True

    def log(self, run_id: int, text: str) -> None:
        """See `MessageState.log`."""
        run = self._by_id.get(run_id)
        if run is None or not text:
            return
        latest = run.log[-1][0] if run.log else 0.0
        run.log.append((rules.next_moment(latest, self._now()), text))
        run.log_size += len(text)
        while run.log_size > rules.LONGEST_LOG and len(run.log) > 1:
            run.log_size -= len(run.log.popleft()[1])
        run.news.ring()

    def logs(self, run_id: int, after: float) -> Logged:
        """See `MessageState.logs`."""
        run = self._by_id.get(run_id)
        if run is None:
            raise NotFound(f"run {run_id} is not known")
        texts = [text for when, text in run.log if when > after]
        latest = run.log[-1][0] if run.log else after
        over = run.record.status is RunStatus.FINISHED
        return Logged("".join(texts), max(latest, after), over)

    async def await_logs(self, run_id: int, after: float) -> None:
        """See `MessageState.await_logs`."""
        run = self._by_id.get(run_id)
        while run is not None and run.record.status is not RunStatus.FINISHED:
            if run.log and run.log[-1][0] > after:
                return
            await run.news.wait()
