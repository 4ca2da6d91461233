"""Deliberate defects, each of a kind that has broken a system like this one before.

Every one must be caught: by the simulation, whose checker then names the invariant, or by a test. One
that is not caught is a hole in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

SEEDS = 1000
"""How long the simulation looks for a defect."""


@dataclass(frozen=True)
class Defect:
    """One change of the code that makes it wrong."""

    name: str
    file: str
    code: str
    """What stands in the file, exactly once."""
    instead: str
    tests: tuple[str, ...] = ()
    """The tests that should catch it; none: the simulation should."""


SERVER = "server/seatkeeper/server"
CLIENT = "client/seatkeeper/client"

DEFECTS = (
    Defect(
        "no guard compare",
        f"{SERVER}/pool/committer.py",
        "            Unchanged(guard, self._mirror.guard_revision),\n",
        "",
    ),
    Defect(
        "fence reused",
        f"{SERVER}/decide/serving.py",
        "    draft.fence += 1\n",
        "    draft.fence = max(1, draft.fence)\n",
    ),
    Defect(
        "blind retry after an unknown outcome",
        f"{SERVER}/pool/committer.py",
        "                self._unsettled = True\n"
        "                self._unknown.remember(decision_id, decision, ended)\n"
        "                await self._bring_in("
        "await self._store.list(self._keys.seats(self._pool)))\n"
        "                raise\n",
        "                await self._bring_in("
        "await self._store.list(self._keys.seats(self._pool)))\n"
        "                committed = await self._send("
        "asks, decision, writes, decision_id, succeeded)\n",
    ),
    Defect(
        "an absent record taken for proof: the guard is not moved after an unknown outcome",
        f"{SERVER}/pool/committer.py",
        "            if decision.changes or self._unsettled:\n",
        "            if decision.changes:\n",
        tests=("tests/unit/pool/test_pool_loop.py", "tests/unit/pool/test_pool_loop_chaos.py"),
    ),
    Defect(
        "the safety window counted from the answer",
        f"{CLIENT}/session/holding.py",
        "    sent_at = view.sent_at\n    if now >= sent_at",
        "    sent_at = now\n    if now >= sent_at",
        tests=("tests/client/session/test_holding.py",),
    ),
    Defect(
        "wall clock for the safety window",
        "core/seatkeeper/core/clock.py",
        "    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)\n",
        "    return time.time()\n",
        tests=("tests/client/core/test_clock.py",),
    ),
    Defect(
        "no dead-lease isolation",
        f"{SERVER}/pool/committer.py",
        "                await self._set_dead_sessions_apart(decision)\n                continue\n",
        "                raise\n",
    ),
    Defect(
        "watch trusted without relist",
        f"{SERVER}/store/follow.py",
        "    while True:\n        try:\n            listing = await store.list(prefix)\n"
        "            await view.reset(listing)\n",
        "    listing = await store.list(prefix)\n    await view.reset(listing)\n"
        "    while True:\n        try:\n",
    ),
    Defect(
        "release that ignores the holder",
        f"{SERVER}/decide/releasing.py",
        "        if found.session_id != command.session_id:\n"
        "            draft.deny_not_yours(command)\n            return\n"
        "        recorded = True\n",
        "        recorded = True\n",
    ),
    Defect(
        "queue order by wall clock",
        f"{SERVER}/domain/state.py",
        "    return (-ticket.priority, ticket.place, ticket.grant_id)\n",
        "    return (-ticket.priority, ticket.queued_at, ticket.grant_id)\n",
    ),
    Defect(
        "expired token accepted",
        "core/seatkeeper/core/tokens.py",
        '    if seconds >= claims["exp"] + slack:\n',
        "    if False:\n",
        tests=("tests/client/core/test_tokens.py",),
    ),
    Defect(
        "publish without fence",
        f"{SERVER}/engines/registry.py",
        "                    Unchanged(grant_key, found.mod_revision),\n",
        "",
    ),
    Defect(
        "a fence forgotten once another pool's grant has published",
        f"{SERVER}/engines/registry.py",
        "        fences = {published.pool: published.fence, **earlier.fences}\n",
        "        fences = {published.pool: published.fence}\n",
        tests=("tests/unit/service/test_engine_service.py",),
    ),
    Defect(
        "a wait measured by the time of day",
        f"{SERVER}/pool/wait_timers.py",
        "        self._now = clock.monotonic\n",
        "        self._now = lambda: clock.now() / 1000\n",
    ),
    Defect(
        "a wait counted from when the node saw it, not from when it was asked",
        f"{SERVER}/pool/delivery.py",
        "            if isinstance(outcome, Queued):\n"
        "                self._waits.asked(command, asked_at[id(command)])\n",
        "",
        tests=("tests/unit/pool/test_pool_loop_waits.py",),
    ),
    Defect(
        "completed ids forgotten",
        f"{SERVER}/domain/completed.py",
        "            grant_id in session.recent\n"
        "            or session.is_old(grant_id)\n"
        "            or _span_of(session.listed, grant_id) is not None\n",
        "            False\n",
    ),
    Defect(
        "ended sessions forgotten",
        f"{SERVER}/sessions/sessions.py",
        "                only_if=[Unchanged(key, 0), Unchanged(opened, 0)],\n",
        "                only_if=[Unchanged(key, 0)],\n",
    ),
    Defect(
        "a session's lease id that follows from its own id",
        f"{SERVER}/sessions/sessions.py",
        "        lease_id = random.getrandbits(63) | 1\n",
        "        lease_id = lease_id_of(session_id)\n",
        tests=(
            "tests/unit/service/test_closed_sessions.py",
            "tests/unit/service/test_seat_service.py",
        ),
    ),
    Defect(
        "old updates of grants and tickets believed by the view",
        f"{SERVER}/pool/mirror.py",
        "        known = self._revisions.get(key, 0)\n",
        "        known = self._revisions.get(key, 0) if key.endswith('/guard') else 0\n",
    ),
    Defect(
        "a release answered before it is committed",
        f"{SERVER}/pool/loop.py",
        "        if not self._inbox.add(command, listener, batch_delay=batch_delay):\n",
        "        if isinstance(command, Release):\n"
        "            from seatkeeper.server.domain import Released\n"
        "            listener.receive(self.pool, Released(command.grant_id))\n"
        "        if not self._inbox.add(command, listener, batch_delay=batch_delay):\n",
    ),
    Defect(
        "a grant reported before it is committed",
        f"{SERVER}/pool/delivery.py",
        "                listener.expect(self._pool, grant)\n",
        "                from seatkeeper.server.domain import Granted\n"
        "                listener.receive(self._pool, Granted(grant))\n",
    ),
    Defect(
        "a token's end counted from when the renewal was answered",
        f"{SERVER}/sessions/sessions.py",
        "        sent_at = self._clock.now()\n"
        "        ttl = await self._keep_alive(session.session_id, session.lease_id)\n",
        "        ttl = await self._keep_alive(session.session_id, session.lease_id)\n"
        "        sent_at = self._clock.now()\n",
        tests=("tests/unit/service/test_session_renewal.py",),
    ),
    Defect(
        "a seat that has expired is published as released, too",
        f"{SERVER}/pool/delivery.py",
        "        gone = self._mirror.expired_ids.copy()\n",
        "        gone: set[str] = set()\n",
        tests=("tests/unit/events/test_usage_feed.py",),
    ),
    Defect(
        "a commit whose answer was lost is never published",
        f"{SERVER}/pool/unknown.py",
        "        self._observer.usage.publish_all(self._changes.pop(decision_id, ()))\n",
        "        self._changes.pop(decision_id, ())\n",
        tests=("tests/unit/events/test_usage_feed.py",),
    ),
    Defect(
        "every node that follows a pool publishes what expires",
        f"{SERVER}/pool/ownership.py",
        "        if self.elsewhere is not None:\n            expired.clear()\n            return\n",
        "",
        tests=("tests/unit/events/test_usage_of_a_workload.py",),
    ),
    Defect(
        "no request may wait",
        f"{SERVER}/decide/waiting.py",
        "        if command.may_wait:\n",
        "        if False:\n",
    ),
    Defect(
        "a ticket that can never be served is left in the queue",
        f"{SERVER}/decide/possible.py",
        "            yield (ticket, *why)\n",
        "            return\n",
        tests=("tests/unit/decide/test_impossible.py",),
    ),
    Defect(
        "a closed pool turns everybody away",
        f"{SERVER}/decide/possible.py",
        "    if 0 < spec.seats < asked.seats:\n",
        "    if spec.seats < asked.seats:\n",
        tests=("tests/unit/decide/test_impossible.py",),
    ),
    Defect(
        "the loop does not wake at the time that the plan names",
        f"{SERVER}/pool/background.py",
        "        if (wake := self.plan.next_wake) is not None:\n",
        "        if (wake := self.plan.next_wake) is not None and False:\n",
        tests=("tests/unit/pool/test_other_policies.py",),
    ),
    Defect(
        "the loop knows the order of service by itself",
        f"{SERVER}/pool/background.py",
        "        return self._policy.plan(pool, self._clock.now())\n",
        "        from seatkeeper.server.policy.fifo import FIFO\n"
        "        return FIFO.plan(pool, self._clock.now())\n",
        tests=("tests/policies/test_trial.py",),
    ),
    Defect(
        "the decision knows the order of service by itself",
        f"{SERVER}/pool/committer.py",
        "                policy=self._config.policy,\n",
        "",
        tests=("tests/policies/test_trial.py",),
    ),
    Defect(
        "a guard that is written anew, without what a newer node wrote",
        f"{SERVER}/store/records.py",
        "    record = state_pb2.GuardRecord.FromString(guard.kept)\n",
        "    record = state_pb2.GuardRecord()\n",
        tests=("tests/unit/store/test_unknown_fields.py",),
    ),
    Defect(
        "a grant that forgets what its ticket said",
        f"{SERVER}/domain/attribution.py",
        "            message.attributes.ParseFromString(self.kept)\n",
        "            pass\n",
        tests=("tests/unit/domain/test_attribution.py",),
    ),
    Defect(
        "a record of a newer format is guessed at",
        f"{SERVER}/store/formats.py",
        "    if number > (known := NEWER.get(record.DESCRIPTOR.full_name, FORMAT)):\n",
        "    if False:\n",
        tests=("tests/unit/pool/test_pool_loop_formats.py",),
    ),
    Defect(
        "a decision on a record of a newer format, seen while it was decided again",
        f"{SERVER}/pool/committer.py",
        "        if (error := self.unsupported) is not None:\n            raise error\n",
        "",
        tests=("tests/unit/pool/test_pool_loop_formats.py",),
    ),
    Defect(
        "a seat that is held back from a request is taken for one that it may get",
        f"{SERVER}/decide/admission.py",
        "    return plan.hold_back(ticket)\n",
        "    return False\n",
        tests=("tests/unit/pool/test_other_policies.py",),
    ),
    Defect(
        "an estimate for a ticket that no freed seat helps",
        f"{SERVER}/decide/estimate.py",
        "        if self.plan.hold_back(ticket):\n",
        "        if False:\n",
        tests=("tests/unit/pool/test_other_policies.py",),
    ),
    Defect(
        "a pool grants its part of a gang alone",
        f"{SERVER}/policy/snapshot.py",
        "        if ticket.gang:\n"
        "            return ticket.grant_id not in self.joined\n"
        "        return bool(",
        "        return bool(",
        tests=("tests/unit/decide/test_gangs.py",),
    ),
    Defect(
        "seats are kept free for a gang from those before it as well",
        f"{SERVER}/policy/keeping_free.py",
        "        serve=[each for each in plan.serve if each.grant_id != kept.grant_id],\n",
        "        serve=[],\n",
        tests=("tests/unit/decide/test_keeping_free.py",),
    ),
    Defect(
        "seats are kept free for a gang for as long as it waits",
        f"{SERVER}/policy/keeping_free.py",
        "    if kept is None or now >= kept.until or",
        "    if kept is None or",
        tests=("tests/unit/decide/test_keeping_free.py",),
    ),
    Defect(
        "seats are kept free for one gang after the other",
        f"{SERVER}/pool/keeping.py",
        "            at = Instant(max(at, before.next_from))\n",
        "            at = Instant(max(at, before.until))\n",
        tests=("tests/unit/pool/test_keeping.py",),
    ),
    Defect(
        "who takes seats over has them twice",
        f"{SERVER}/decide/taking_over.py",
        "        _end(draft, taken)\n",
        "        pass\n",
        tests=("tests/unit/decide/test_taking_over.py",),
    ),
    Defect(
        "a decision in which seats are taken over serves by a plan without them",
        f"{SERVER}/decide/taking_over.py",
        "    draft.is_closed = True\n",
        "",
        tests=("tests/unit/decide/test_taking_over.py",),
    ),
    Defect(
        "another holder takes seats over",
        f"{SERVER}/decide/taking_over.py",
        "not isinstance(taken, Grant) or taken.holder != command.holder or taken.gang",
        "not isinstance(taken, Grant) or taken.gang",
        tests=("tests/unit/decide/test_taking_over.py",),
    ),
    Defect(
        "a longest hold begins anew where seats are taken over",
        f"{SERVER}/decide/taking_over.py",
        "        taken_from=taken.held_since,\n",
        "",
        tests=("tests/unit/decide/test_taking_over.py", "tests/unit/oracle"),
    ),
    Defect(
        "of several alternatives one is granted, and the others wait on",
        f"{SERVER}/decide/administering.py",
        "        draft.give_up(found)\n"
        "        draft.note_denial(found, Refusal.GRANTED_ELSEWHERE, message)\n",
        "",
        tests=("tests/unit/service/test_alternatives.py",),
    ),
    Defect(
        "a later alternative is granted at once",
        f"{SERVER}/pool/gangs.py",
        "        if ticket is None or now < due_at(member, ticket):\n",
        "        if ticket is None:\n",
        tests=("tests/unit/service/test_alternatives.py",),
    ),
    Defect(
        "alternatives are granted as a gang is",
        f"{SERVER}/domain/gang.py",
        "    return bool(gang) and gang[0].after_millis is not None\n",
        "    return False\n",
        tests=("tests/unit/service/test_alternatives.py",),
    ),
    Defect(
        "a gang is granted although others have decided in one of its pools",
        f"{SERVER}/pool/gangs.py",
        "only_if=[unchanged for part in parts for unchanged in part.only_if],",
        "only_if=[*parts[0].only_if],",
        tests=("tests/unit/service/test_gangs.py",),
    ),
    Defect(
        "seats of two sessions are granted as one gang",
        f"{SERVER}/pool/gangs.py",
        "        sessions.add(ticket.session_id)\n",
        "        sessions.add(gang)\n",
        tests=("tests/unit/service/test_gangs.py",),
    ),
    Defect(
        "a gang goes before those whose turn it is",
        f"{SERVER}/policy/joined.py",
        "        return self.policy.plan(replace(pool, joined={self.grant_id}), now)\n",
        "        plan = self.policy.plan(replace(pool, joined={self.grant_id}), now)\n"
        "        own = [pool.state.tickets[self.grant_id]]\n"
        "        return replace(plan, serve=own)\n",
        tests=("tests/unit/decide/test_gangs.py",),
    ),
    Defect(
        "an estimate by requests, and not by the seats that they want",
        f"{SERVER}/decide/estimate.py",
        "        seats = position if self.is_of_singles else self._seats_to[ticket.grant_id]\n",
        "        seats = position\n",
        tests=("tests/unit/decide/test_estimate.py",),
    ),
    Defect(
        "an interval as narrow as if the latest holds were all there are",
        f"{SERVER}/decide/futures.py",
        "        wider = (1 + seats / len(self._holds)) ** 0.5\n",
        "        wider = 0.5\n",
        tests=("tests/unit/decide/test_estimate.py",),
    ),
    Defect(
        "positions by the order of acceptance, not by the plan",
        f"{SERVER}/pool/background.py",
        "        return forecast(self._mirror.state, self._planned(), holds, self._clock.now())\n",
        "        from seatkeeper.server.policy.fifo import FIFO\n"
        "        pool = PoolSnapshot.of(self._mirror.state)\n"
        "        plan = FIFO.plan(pool, self._clock.now())\n"
        "        return forecast(self._mirror.state, plan, holds, self._clock.now())\n",
        tests=("tests/unit/pool/test_other_policies.py",),
    ),
    Defect(
        "a policy is believed when it serves more seats than are free",
        f"{SERVER}/decide/serving.py",
        "        is_free = takes <= free or draft.is_advisory\n",
        "        is_free = True\n",
        tests=("tests/unit/pool/test_other_policies.py",),
    ),
    Defect(
        "a plan without effect is tried again at once",
        f"{SERVER}/pool/loop.py",
        "            self._wake.set_in(self._backoff.pause)\n",
        "            self._wake.set()\n",
        tests=("tests/unit/pool/test_other_policies.py",),
    ),
    Defect(
        "a release known before the watch shows it is not remembered",
        f"{SERVER}/pool/mirror.py",
        "            self.state.completed.add_ended(ahead[1], ahead[2])\n",
        "",
        tests=("tests/unit/pool/test_pool_loop_forwarding.py",),
    ),
    Defect(
        "a release known before the watch shows it is reported as a loss",
        f"{SERVER}/pool/mirror.py",
        "        self._remember_end(Released(grant_id))\n",
        "",
    ),
    Defect(
        "a token signed from what a node remembers",
        f"{SERVER}/service/seat_api.py",
        "        found = await self.seats.confirmed(pool, asked.tokens | asked.reclaimable)\n",
        "        loop = await self.seats.loop(pool)\n"
        "        state = loop.state.grants if loop else {}\n"
        "        found = await self.seats.confirmed(pool, ())\n"
        "        found.grants.update({k: state[k] for k in asked.tokens if k in state})\n",
        tests=("tests/unit/service/test_tokens_on_demand.py",),
    ),
    Defect(
        "what the watch shows of another node's commit is taken for this node's own",
        f"{SERVER}/pool/committer.py",
        "        return next((r for r, made_by in self._guards(batch) if made_by == decision_id), 0)\n",
        "        return next((r for r, _ in self._guards(batch)), 0)\n",
    ),
    Defect(
        "an own commit is applied before what happened before it",
        f"{SERVER}/pool/loop.py",
        "            if before := tuple(c for c in batch.changes if c.revision < own):\n",
        "            if before := tuple(c for c in batch.changes if c.revision < 0):\n",
        tests=("tests/unit/pool/test_pool_loop.py",),
    ),
    Defect(
        "own commits are decoded again when the watch shows them",
        f"{SERVER}/pool/loop.py",
        "        if own := self._committer.own_revision(batch):\n",
        "        if own := 0:\n",
        tests=("tests/unit/pool/test_pool_loop.py",),
    ),
    Defect(
        "a commit without writes hides what others wrote at its revision",
        f"{SERVER}/pool/mirror.py",
        "        for write in writes:\n            if is_whole:\n",
        "        self._own_revision = revision\n"
        "        for write in writes:\n            if is_whole:\n",
        tests=("tests/unit/pool/test_mirror.py",),
    ),
    Defect(
        "of what one decision gives and ends, the first to arrive counts",
        f"{SERVER}/pool/mirror.py",
        "(revision == known and (entry or key in self._deleted))",
        "(revision == known)",
        tests=("tests/unit/pool/test_mirror.py",),
    ),
    Defect(
        "one write of a revision is taken for the whole of it",
        f"{SERVER}/pool/mirror.py",
        "        if is_whole:\n",
        "        if True:\n",
    ),
    Defect(
        "a listing that is half brought in passes for the whole",
        f"{SERVER}/pool/mirror.py",
        "                guard = entry\n                continue\n",
        "                guard = entry\n",
        tests=("tests/unit/pool/test_mirror.py",),
    ),
    Defect(
        "a listing that the watch has overtaken is brought in to its end",
        f"{SERVER}/pool/mirror.py",
        "            if listing.revision < self._complete:\n"
        "                return  # overtaken",
        "            if False:\n                return  # overtaken",
        tests=("tests/unit/pool/test_mirror.py",),
    ),
    Defect(
        "a request for a pool that is not followed yet is dropped",
        f"{SERVER}/pool/router.py",
        "            return self._open_and_submit(pool, command, listener, may_delay=may_delay)\n",
        "            return DONE\n",
        tests=("tests/unit/pool/test_pool_router.py",),
    ),
    Defect(
        "one work has two holders",
        f"{SERVER}/policy/snapshot.py",
        "        return any(each not in self.ended "
        "for each in self.state.work_held.get(work_key, ()))\n",
        "        return False\n",
    ),
    Defect(
        "the end of work is not known to those who wait for it",
        f"{SERVER}/decide/decision.py",
        "    end_works(draft)\n",
        "",
        tests=("tests/unit/decide/test_work.py",),
    ),
    Defect(
        "work ends with the release of a place in the queue",
        f"{SERVER}/decide/releasing.py",
        "            if command.work_end is not None and found.work_key:\n"
        "                draft.works_ended[found.work_key] = command.work_end\n"
        "        else:\n",
        "            pass\n"
        "        if command.work_end is not None and found.work_key:\n"
        "            draft.works_ended[found.work_key] = command.work_end\n"
        "        if not isinstance(found, Grant):\n",
        tests=("tests/unit/decide/test_work.py",),
    ),
    Defect(
        "a guarantee that is not kept",
        f"{SERVER}/policy/project_tree.py",
        "        return self._held + ticket.seats <= self._guaranteed\n",
        "        return False\n",
    ),
    Defect(
        "a limit that is not kept",
        f"{SERVER}/policy/project_tree.py",
        "        return self._held + ticket.seats <= self._limit\n",
        "        return True\n",
    ),
    Defect(
        "a limit that does not count what parts hold",
        f"{SERVER}/policy/project_tree.py",
        "        for each in policy.path(project):\n            found[each]",
        "        for each in (project,):\n            found[each]",
    ),
    Defect(
        "weights that are not looked at",
        f"{SERVER}/policy/project_tree.py",
        "        self._weight = has.share.weight\n",
        "        self._weight = 1\n",
    ),
    Defect(
        "a small request of a project passes its next one at the limit",
        f"{SERVER}/policy/project_tree.py",
        "            if may_wait:\n                return\n",
        "",
    ),
    Defect(
        "a ticket may be overtaken without end",
        f"{SERVER}/policy/overtaking.py",
        "        room = rule.seats - before.get(ticket.grant_id, 0)\n",
        "        room = rule.seats\n",
    ),
    Defect(
        "how far a ticket was overtaken is not written",
        f"{SERVER}/decide/serving.py",
        "        draft.overtaken.note(takes, passed)\n",
        "        pass\n",
    ),
    Defect(
        "a ticket may be overtaken however long it has waited",
        f"{SERVER}/policy/overtaking.py",
        "        if self._now - ticket.queued_at >= rule.within / timedelta(milliseconds=1):\n",
        "        if self._now < 0:\n",
    ),
    Defect(
        "usage that is not looked at",
        f"{SERVER}/policy/project_tree.py",
        "        self._used = USED_COUNTS * has.used\n",
        "        self._used = 0.0\n",
    ),
    Defect(
        "usage that is never forgotten",
        f"{SERVER}/policy/usage.py",
        "    left = exp(-rate * millis)\n",
        "    left = 1.0\n",
        tests=("tests/unit/policy/test_usage.py",),
    ),
    Defect(
        "what is served does not count as held",
        f"{SERVER}/policy/project_tree.py",
        "        self._held += self.head.seats\n        self._parts[0][2].take()\n",
        "        self._parts[0][2].skip()\n",
        tests=("tests/unit/policy/test_shares.py",),
    ),
    Defect(
        "what is excluded is let in",
        "core/seatkeeper/core/pool_rules.py",
        "        if self.excluded_by(holder, project, host) is not None:\n",
        "        if False:\n",
    ),
    Defect(
        "others than those included are let in",
        "core/seatkeeper/core/pool_rules.py",
        "        if not self.includes(holder, project, host):\n",
        "        if False:\n",
    ),
    Defect(
        "a limit of each that is off by one",
        f"{SERVER}/policy/at_most.py",
        "        fits = self.has(name) + seats <= self.most\n",
        "        fits = self.has(name) + seats <= self.most + 1\n",
    ),
    Defect(
        "what one plan serves does not count against the limit of each",
        f"{SERVER}/policy/at_most.py",
        "        self._of_holders.add(ticket.holder, ticket.seats)\n"
        "        self._of_hosts.add(ticket.host.lower(), ticket.seats)\n"
        "        self._of_projects.add(ticket.project, ticket.seats)\n",
        "",
        tests=("tests/unit/policy/test_each.py",),
    ),
    Defect(
        "one that a limit of each holds back keeps all others waiting",
        f"{SERVER}/policy/at_most.py",
        "        yield from filter(self.admits, waiting)\n",
        "        from itertools import takewhile\n"
        "        yield from takewhile(self.admits, waiting)\n",
        tests=("tests/unit/policy/test_each.py",),
    ),
    Defect(
        "one that a limit of each holds back is passed by its own",
        f"{SERVER}/policy/at_most.py",
        "            self.closed.add(queue)\n",
        "            pass\n",
        tests=("tests/unit/policy/test_each.py",),
    ),
    Defect(
        "the limit of a host is counted by the letters of its name",
        f"{SERVER}/domain/rule_index.py",
        "            self.of_hosts.add(grant.seats, grant.group, grant.host.lower())\n",
        "            self.of_hosts.add(grant.seats, grant.group, grant.host)\n",
        tests=("tests/unit/decide/test_rules_of_hosts.py",),
    ),
    Defect(
        "what says no host is of every host",
        "core/seatkeeper/core/pool_rules.py",
        "        if host and (by := self._hosts",
        "        if (by := self._hosts",
        tests=("tests/unit/decide/test_rules_of_hosts.py",),
    ),
    Defect(
        "rules that come do not end what waits",
        f"{SERVER}/decide/possible.py",
        "pool.tickets and pool.by_rules.hopeless",
        "not pool.tickets and pool.by_rules.hopeless",
    ),
    Defect(
        "rules are looked at as they were when they were first asked for",
        f"{SERVER}/domain/state.py",
        "self._by_rules is None or self._by_rules.rules is not rules",
        "self._by_rules is None",
        tests=("tests/unit/decide/test_rules.py",),
    ),
    Defect(
        "a limit of tickets that is off by one",
        f"{SERVER}/decide/entering.py",
        "waiting >= most.per_holder.tickets:\n",
        "waiting > most.per_holder.tickets:\n",
        tests=("tests/unit/decide/test_rules.py",),
    ),
    Defect(
        "rules that an older node overlooks",
        f"{SERVER}/store/records.py",
        "        return RULES_FORMAT\n",
        "        return POLICY_FORMAT\n",
        tests=("tests/unit/service/test_pool_rules.py",),
    ),
    Defect(
        "the id of a request that was taken out of the queue is not completed",
        f"{SERVER}/decide/administering.py",
        "            answer = removed(found, command.reason)\n            draft.give_up(found)\n",
        "            answer = removed(found, command.reason)\n"
        "            draft.gone.add(found.grant_id)\n"
        "            draft.decision.tickets_ended.append(found.grant_id)\n",
        tests=("tests/unit/decide/test_forced.py",),
    ),
    Defect(
        "a forced release that keeps the grant, and with it the fence",
        f"{SERVER}/decide/draft.py",
        "        self.decision.reclaimed_fences.append(grant.fence)\n        self.end_grant(grant)\n",
        "        self.decision.reclaimed_fences.append(grant.fence)\n",
    ),
    Defect(
        "a forced release of a grant that is another by now",
        f"{SERVER}/decide/forced.py",
        "    if isinstance(found, Grant) and found.fence != command.fence:\n",
        "    if isinstance(found, Grant) and not command.fence:\n",
        tests=("tests/unit/decide/test_forced.py",),
    ),
    Defect(
        "a drained pool grants what is released",
        f"{SERVER}/decide/draft.py",
        "max(0, spec.open_seats - draft.held)",
        "max(0, spec.seats - draft.held)",
        tests=("tests/unit/decide/test_drained.py",),
    ),
    Defect(
        "a change of a pool opens it",
        f"{SERVER}/pool/admin.py",
        "kept=before.kept, drain=before.drain)",
        "kept=before.kept)",
        tests=("tests/unit/service/test_drained_pools.py",),
    ),
    Defect(
        "a move sent again is made again",
        f"{SERVER}/decide/moving.py",
        "found.move.move_id == command.move_id",
        "False",
        tests=("tests/unit/decide/test_moving.py",),
    ),
    Defect(
        "a move before one goes before the one before it, too",
        f"{SERVER}/domain/move.py",
        "    return place_between(max([ceil(high) - 1, *below]), high)\n",
        "    return place_between(ceil(high) - 1, high)\n",
    ),
    Defect(
        "a move that an older node overlooks",
        f"{SERVER}/store/moves.py",
        "    record.format = RULES_FORMAT\n",
        "",
        tests=("tests/unit/pool/test_pool_loop_moves.py",),
    ),
    Defect(
        "a request that is granted in the decision that moves it is written as waiting",
        f"{SERVER}/decide/moving.py",
        "                self.tickets.pop(grant_id, None)\n",
        "                pass\n",
        tests=("tests/unit/decide/test_moving.py",),
    ),
    Defect(
        "the holder of a grant that was ended by force is not notified",
        f"{SERVER}/pool/mirror.py",
        "            for lost in mark.lost:\n                self._remember_end(lost)\n",
        "",
        tests=("tests/unit/pool/test_pool_loop_forced.py",),
    ),
    Defect(
        "a policy that an older node overlooks",
        f"{SERVER}/store/records.py",
        "    message.format = _format_of(spec)\n",
        "",
        tests=("tests/unit/service/test_pool_policies.py",),
    ),
    Defect(
        "an update that says nothing of a policy removes it",
        f"{SERVER}/pool/admin.py",
        "    return _with_policy(changed, before.policy) if keep_policy else changed\n",
        "    return changed\n",
        tests=("tests/unit/service/test_pool_policies.py",),
    ),
    Defect(
        "a seat is taken before its notice is over",
        f"{SERVER}/pool/reclaim_timers.py",
        "    return reclaim.within.total_seconds() * (1 + DRIFT)\n",
        "    return reclaim.within.total_seconds() / 2\n",
        tests=("tests/unit/service/test_reclaims.py",),
    ),
    Defect(
        "a seat is called back that its project is guaranteed",
        f"{SERVER}/policy/reclaiming.py",
        "- grant.seats >= self._policy.guaranteed.get(each, 0)",
        "- grant.seats >= 0",
        tests=("tests/unit/policy/test_reclaiming.py",),
    ),
    Defect(
        "a seat is called back that was held for less than the minimum",
        f"{SERVER}/policy/reclaiming.py",
        "        if at > self._now:\n",
        "        if at > self._now + 60_000:\n",
        tests=("tests/unit/policy/test_reclaiming.py",),
    ),
    Defect(
        "more is called back than is needed",
        f"{SERVER}/policy/reclaiming.py",
        "            if sum(each.seats for each in taken) - grant.seats >= need:\n",
        "            if False:\n",
        tests=("tests/unit/policy/test_reclaiming.py",),
    ),
    Defect(
        "seats of a client that does not know reclaims are called back",
        f"{SERVER}/policy/reclaiming.py",
        "                if grant.heeds_within is not None:\n",
        "                if True:\n",
        tests=("tests/unit/policy/test_reclaiming.py",),
    ),
    Defect(
        "a seat is called back twice: the second time under the first one's number",
        f"{SERVER}/decide/reclaimed.py",
        "            number += 1\n",
        "            number = max(1, number)\n",
        tests=("tests/unit/decide/test_reclaimed.py",),
    ),
    Defect(
        "a seat is taken although its asker has left",
        f"{SERVER}/decide/reclaimed.py",
        "    running = pool.guard.reclaims.running\n    for each in plan.reclaim:\n",
        "    running = pool.guard.reclaims.running\n"
        "    yield from (pool.grants[g] for g, r in running.items() if r.number in over)\n"
        "    for each in ():\n",
        tests=("tests/unit/decide/test_reclaimed.py",),
    ),
    Defect(
        "an extension of the longest hold is not kept",
        f"{SERVER}/domain/hold_times.py",
        "            held += _millis(extended)\n",
        "            held += 0\n",
        tests=("tests/unit/policy/test_holding.py",),
    ),
    Defect(
        "a node whose clock is behind takes back what was called back for its time",
        f"{SERVER}/policy/holding.py",
        "(now >= begins or _stands(reclaim, begins))",
        "now >= begins",
        tests=("tests/unit/policy/test_holding.py",),
    ),
    Defect(
        "a grant is taken whose revoke is withdrawn at the last moment",
        f"{SERVER}/decide/reclaimed.py",
        "        if is_over and each.grant.grant_id not in said:\n",
        "        if is_over:\n",
        tests=("tests/unit/decide/test_holding.py",),
    ),
    Defect(
        "the notice of a revoked grant begins before its holder has answered",
        f"{SERVER}/service/seat_api.py",
        "                if grant_id in asked.reclaimable:\n",
        "                await self._heeded(grant, session, found)\n"
        "                if grant_id in asked.reclaimable:\n",
        tests=("tests/unit/service/test_held_grants.py",),
    ),
    Defect(
        "a revoked grant is counted on from the latest renewal of its session",
        "client/seatkeeper/client/session/holdings.py",
        "        held.recall = Recall.of(view, now)\n",
        "        held.recall = Recall.of(view, now + view.ttl)\n",
        tests=("tests/client/session/test_reclaiming.py",),
    ),
    Defect(
        "a renewal does not say that a grant is called back",
        f"{SERVER}/service/seat_api.py",
        "                    if reclaim is not None:\n",
        "                    if False:\n",
        tests=("tests/unit/service/test_reclaims.py",),
    ),
    Defect(
        "a token outlives the notice",
        f"{SERVER}/service/seat_api.py",
        "    return Instant(min(alive_until, reclaim.decided_at + _millis(reclaim.within)))\n",
        "    return alive_until\n",
        tests=("tests/unit/service/test_reclaims.py",),
    ),
    Defect(
        "an answer that says nothing of a grant counts as its confirmation",
        "client/seatkeeper/client/session/recallable.py",
        "        if confirmed is None or held.recall is None:\n",
        "        if confirmed is None and held.recall is not None:\n"
        "            held.recall.confirm(sent_at)\n"
        "        elif confirmed is None or held.recall is None:\n",
        tests=("tests/client/session/test_reclaiming.py",),
    ),
    Defect(
        "a confirmation counts from when it came",
        "client/seatkeeper/client/session/reclaiming.py",
        "        self.confirmed_at = max(self.confirmed_at, sent_at)\n",
        "        self.confirmed_at = sent_at + 3\n",
        tests=("tests/client/session/test_reclaiming.py",),
    ),
    Defect(
        "a reclaim is counted on that may have been followed by a shorter one",
        "client/seatkeeper/client/session/reclaiming.py",
        "            if self.is_unreported\n",
        "            if False\n",
        tests=("tests/client/session/test_reclaiming.py",),
    ),
    Defect(
        "seats are called back in a drained pool, for no one",
        f"{SERVER}/policy/shares.py",
        " or not pool.is_open:\n",
        ":\n",
        tests=("tests/unit/policy/test_reclaiming.py",),
    ),
    Defect(
        "a lot that ends is not taken away",
        "core/seatkeeper/core/lots.py",
        "            lot.seats for lot in self.lots if lot.state is LotState.IN_FORCE\n",
        "            lot.seats for lot in self.lots if lot.state is not LotState.PENDING\n",
    ),
    Defect(
        "a lot counted twice",
        "core/seatkeeper/core/lots.py",
        "        return self.seats + sum(\n            lot.seats for lot in self.lots if lot.state",
        "        return self.seats + 2 * sum(\n            lot.seats for lot in self.lots if lot.state",
    ),
    Defect(
        "the state of a lot goes back by a slower clock",
        "core/seatkeeper/core/lots.py",
        "    if lot.state is LotState.ENDED:\n        return lot\n    if lot.ends",
        "    if lot.state is LotState.ENDED and lot.ends is not None and now >= lot.ends:\n"
        "        return lot\n    if lot.state is LotState.ENDED:\n"
        "        lot = replace(lot, state=LotState.PENDING)\n    if lot.ends",
        tests=("tests/unit/core/test_lots.py",),
    ),
    Defect(
        "a lot that is over is not ended before a decision",
        f"{SERVER}/pool/committer.py",
        "        await self._write_lots()\n",
        "",
        tests=("tests/unit/service/test_lots.py",),
    ),
    Defect(
        "a lot is written whatever another node has written",
        f"{SERVER}/pool/lots.py",
        "                [Put(key, value)], only_if=[Unchanged(key, found.mod_revision)]\n",
        "                [Put(key, value)]\n",
        tests=("tests/unit/service/test_lots.py",),
    ),
    Defect(
        "the states of lots are what an administrator says",
        f"{SERVER}/pool/lots.py",
        "    lots = succeeding(wanted, there)\n",
        "    lots = wanted\n",
        tests=("tests/unit/service/test_lots.py",),
    ),
    Defect(
        "twice the overdraft that contracts allow",
        f"{SERVER}/domain/state.py",
        "        return self.seats + self.overdraft if self.lots else self.seats\n",
        "        return self.seats + 2 * self.overdraft if self.lots else self.seats\n",
    ),
    Defect(
        "seats are marked with a lot whatever others have of it",
        "core/seatkeeper/core/lot_use.py",
        "        free = max(0, lot.seats - marked.by_lot[lot.name, lot.began_at])\n",
        "        free = lot.seats\n",
    ),
    Defect(
        "an overdraft comes before a burst",
        "core/seatkeeper/core/lot_use.py",
        "    for lot, free in room:\n        if (taken",
        "    for lot, free in room:\n"
        "        if overdraft and lot is not None and lot.kind is LotKind.BURST:\n"
        "            break\n        if (taken",
    ),
    Defect(
        "a rule starts a burst beyond the hours of its month",
        "core/seatkeeper/core/rule_bursts.py",
        "        if month.millis > rule.hours_per_month * HOUR_MILLIS:\n",
        "        if False:\n",
        tests=("tests/unit/core/test_rule_bursts.py",),
    ),
    Defect(
        "a burst of a rule is written whatever another node has written",
        f"{SERVER}/pool/burst_rules.py",
        "                [Put(key, value)], only_if=[Unchanged(key, found.mod_revision)]\n",
        "                [Put(key, value)]\n",
        tests=("tests/unit/service/test_burst_rules.py",),
    ),
    Defect(
        "what a burst takes of a month is forgotten with the next change of the pool",
        "core/seatkeeper/core/lots.py",
        "    return PoolLots(lots, wanted.seats, rule=rule, months=before.months)\n",
        "    return PoolLots(lots, wanted.seats, rule=rule)\n",
        tests=("tests/unit/core/test_rule_bursts.py",),
    ),
    Defect(
        "a window off by an hour at a change of clocks",
        "core/seatkeeper/core/recurrence.py",
        "        span = instant(day, when.opens, zone), instant(day, when.closes, zone)\n",
        "        begins = instant(day, when.opens, zone)\n"
        "        span = begins, begins + 60_000 * (when.closes - when.opens)\n",
        tests=("tests/unit/core/test_recurrence.py",),
    ),
    Defect(
        "a slower clock opens a window again",
        "core/seatkeeper/core/reservations.py",
        "    span = following(reservation.when, after, max(now, before.ends))\n",
        "    span = following(reservation.when, None, now)\n",
        tests=("tests/unit/core/test_reservations.py",),
    ),
    Defect(
        "a node with other data of time zones opens the window of a day again",
        "core/seatkeeper/core/reservations.py",
        "    after = before.begins + SAME_DAY_MILLIS\n",
        "    after = before.begins\n",
        tests=("tests/unit/service/test_time_zone_data.py",),
    ),
    Defect(
        "a login that its caller no longer waits for is begun anew",
        f"{SERVER}/store/etcd/auth.py",
        "                return await asyncio.shield(login)\n",
        "                return await login\n",
        tests=("tests/contract/test_etcd_slow_logins.py",),
    ),
    Defect(
        "seats that a window keeps are granted to others",
        f"{SERVER}/policy/kept.py",
        "        return ticket.seats <= self.free - self.for_others(ticket)\n",
        "        return ticket.seats <= self.free\n",
    ),
    Defect(
        "a window calls back seats of those whom it is for",
        f"{SERVER}/policy/opening.py",
        " and not any(map(kept.is_for, members_of(pool, grant)))\n",
        "\n",
        tests=("tests/unit/policy/test_opening.py",),
    ),
    Defect(
        "a window that calls seats back opens when it begins, so they are free too late",
        "core/seatkeeper/core/reservations.py",
        "        return self.notice + HEEDED_MILLIS if self.notice else 0\n",
        "        return 0\n",
        tests=("tests/unit/replay/test_calendar.py", "tests/unit/core/test_reservations.py"),
    ),
    Defect(
        "whom a window is for passes those who wait for the same seats",
        f"{SERVER}/policy/kept.py",
        "        return spared < ticket.seats\n",
        "        return False\n",
    ),
    Defect(
        "an administrator's change fails because a window opened",
        f"{SERVER}/pool/lots.py",
        "    said = (spec.lots.edited_revision, spec.windows.edited_revision)\n",
        "    said = (spec.lots.edited_revision,)\n",
        tests=("tests/unit/service/test_reservations.py",),
    ),
    Defect(
        "a grant of an advisory pool is not marked by what the decision itself grants",
        f"{SERVER}/decide/counting.py",
        "    return min(after - before, max(0, after - spec.seats))\n",
        "    return min(after - before, max(0, before - spec.seats))\n",
        tests=("tests/unit/decide/test_advisory.py",),
    ),
    Defect(
        "what an advisory pool grants beyond its seats looks like every grant",
        f"{SERVER}/decide/serving.py",
        "        mark=_advisory_mark(draft, ticket, takes) if draft.is_advisory else None,\n",
        "        mark=None,\n",
    ),
    Defect(
        "an advisory pool marks what a binding one would have granted",
        f"{SERVER}/policy/advisory.py",
        "        if ticket.grant_id in by_plan:\n            return None\n",
        "",
        tests=("tests/unit/decide/test_advisory.py",),
    ),
    Defect(
        "the seats of a request are multiplied again when it is sent again",
        f"{SERVER}/decide/asking.py",
        "    return asked_seats(asked), asked.project",
        "    return asked.seats, asked.project",
        tests=("tests/unit/decide/test_weighing.py",),
    ),
    Defect(
        "a class that the pool does not list costs what the default does",
        f"{SERVER}/decide/weighing.py",
        "    if not name or counting.cost_of(name) is not None:\n",
        "    if True:\n",
        tests=("tests/unit/decide/test_weighing.py",),
    ),
    Defect(
        "the seats of the lost are free until a node writes that they are kept",
        f"{SERVER}/domain/state.py",
        "        if (stay := self.stays.get(grant_id)) is not None and grant_id not in self.grants:\n",
        "        stay = self.stays.get(grant_id)\n"
        "        if stay is not None and stay.until and grant_id not in self.grants:\n",
        tests=("tests/unit/decide/test_staying.py",),
    ),
    Defect(
        "each decision keeps the seats of the lost anew",
        f"{SERVER}/decide/staying.py",
        "        if stay.until:\n            if pool.spec",
        "        if stay.until and stay.was_released:\n            if pool.spec",
        tests=("tests/unit/decide/test_staying.py",),
    ),
    Defect(
        "one who comes back has a second seat",
        f"{SERVER}/decide/serving.py",
        "        for kept in taken:\n            draft.free_kept(kept)\n",
        "",
        tests=("tests/unit/decide/test_staying.py",),
    ),
    Defect(
        "what was called back when it was lost comes back",
        f"{SERVER}/policy/returning.py",
        "rule.resurrection is not None and not is_called_back\n",
        "rule.resurrection is not None\n",
        tests=("tests/unit/decide/test_staying.py",),
    ),
    Defect(
        "a wall clock that jumps ends a lock delay",
        f"{SERVER}/pool/stay_timers.py",
        "            if known is not None and known[0] == stay:\n",
        "            if False:\n",
        tests=("tests/unit/pool/test_pool_loop_stays.py",),
    ),
    Defect(
        "a borrowed seat is freed at its day, without the skew",
        f"{SERVER}/decide/borrowing.py",
        "grant.borrow.free_at <= now",
        "grant.borrow.until <= now",
    ),
    Defect(
        "a borrowed seat goes with its session",
        f"{SERVER}/decide/borrowing.py",
        "        lease_id=0,\n",
        "",
    ),
    Defect(
        "anybody gives a borrowed seat back",
        f"{SERVER}/service/borrow_service.py",
        "if not is_signed(request.statement, key, RETURN_KIND, **said, fence=found.fence):",
        "if not request.statement:",
    ),
    Defect(
        "of two machines that borrow at once both get the last that may be borrowed",
        f"{SERVER}/decide/borrowing.py",
        "    lent += draft.decision.lent.values()\n",
        "",
        tests=("tests/unit/decide/test_borrowing.py",),
    ),
    Defect(
        "a late copy of the request takes a seat after the machine has given it back",
        f"{SERVER}/decide/borrowing.py",
        "    draft.marks.complete(found.session_id, found.lease_id, grant_id, recorded=False)\n",
        "",
        tests=("tests/unit/service/test_borrowing.py",),
    ),
    Defect(
        "no node looks for borrowed seats of a pool that no client uses",
        f"{SERVER}/pool/router.py",
        "        self._borrowed.start()\n",
        "",
        tests=("tests/unit/service/test_borrowed_after_a_restart.py",),
    ),
    Defect(
        "what a machine gets is called back by the same decision",
        f"{SERVER}/decide/new_guard.py",
        "draft.gone | decision.lent.keys() if decision.lent else draft.gone",
        "draft.gone",
        tests=("tests/unit/decide/test_borrowing.py",),
    ),
    Defect(
        "the loop does not wake at the day of a borrowed seat",
        f"{SERVER}/pool/background.py",
        "        if (day := next_due(self._mirror.state)) is not None:\n",
        "        if (day := None) is not None:\n",
        tests=("tests/unit/pool/test_pool_loop_borrows.py",),
    ),
    Defect(
        "a batch overlooks what changed since it was seen",
        f"{SERVER}/pool/batches.py",
        "            if revision == change.seen_revision or _only_lots_moved(change, found):\n",
        "            if True:\n",
        tests=("tests/unit/service/test_apply_pools.py",),
    ),
    Defect(
        "a batch overlooks what is written while it is committed",
        f"{SERVER}/pool/batches.py",
        "self._keys.pools(), listing.revision)",
        "self._keys.pools(), listing.revision + 1000)",
        tests=("tests/unit/service/test_apply_pools.py",),
    ),
    Defect(
        "a batch brings back a pool that was deleted meanwhile",
        f"{SERVER}/pool/batches.py",
        "PutOver(key, records",
        "Put(key, records",
        tests=("tests/unit/service/test_apply_pools.py",),
    ),
    Defect(
        "a batch begins the fences of a pool anew",
        f"{SERVER}/pool/batches.py",
        "PutNew(self._keys.guard",
        "Put(self._keys.guard",
        tests=("tests/unit/service/test_apply_pools.py",),
    ),
    Defect(
        "the seats of a group go with its largest member, whatever the others hold",
        f"{SERVER}/domain/counted_once.py",
        "            seats = max(0, seats - max(sizes, default=0))\n        self._count(name, -seats)",
        "        self._count(name, -seats)",
    ),
    Defect(
        "a group takes the sum of its members",
        f"{SERVER}/domain/counted_once.py",
        "return max(0, seats - self._largest((name, group))) if group else seats",
        "return seats",
        tests=("tests/unit/decide/test_counting_once.py",),
    ),
    Defect(
        "grants of two projects count once",
        f"{SERVER}/domain/counted_once.py",
        '    found = [("project", asked.project)]\n',
        '    found = [("project", "")]\n',
        tests=("tests/unit/decide/test_counting_once.py",),
    ),
    Defect(
        "one of whose host nothing is known counts once with another",
        f"{SERVER}/domain/counted_once.py",
        "        if not (value := _value(name, asked)):\n            return NO_GROUP\n",
        "        value = _value(name, asked)\n",
        tests=("tests/unit/decide/test_counting_once.py",),
    ),
    Defect(
        "one that takes no seat is granted while more is held than there is",
        f"{SERVER}/policy/counting_once.py",
        "    if pool.in_use.of() > spec.open_seats and not",
        "    if not spec.open_seats and not",
        tests=("tests/unit/decide/test_counting_once.py",),
    ),
    Defect(
        "a group that is called back has new members, and is never free",
        f"{SERVER}/policy/snapshot.py",
        "            if reclaim is not None and reclaim.cause in FOR_ANOTHER:\n",
        "            if reclaim is None and False:\n",
        tests=("tests/unit/policy/test_counting_once.py",),
    ),
    Defect(
        "one of a group is called back alone, which frees nothing",
        f"{SERVER}/policy/reclaiming.py",
        "            for member in self._members(each.grant)\n",
        "            for member in [each.grant]\n",
        tests=("tests/unit/policy/test_counting_once.py",),
    ),
    Defect(
        "what a group takes of lots gets more when one of it ends",
        f"{SERVER}/decide/marking.py",
        "            marks = within((larger.marks, larger.seats), inner, seats)\n",
        "            marks = larger.marks if seats > 1 else None\n",
        tests=("tests/unit/decide/test_counting_once.py",),
    ),
    Defect(
        "a seat that others share leaves with a machine",
        f"{SERVER}/decide/borrowing.py",
        "    if refusal is None and _is_shared(draft, found):\n",
        "    if False:\n",
        tests=("tests/unit/decide/test_counting_once.py",),
    ),
    Defect(
        "an older node counts each of a group",
        f"{SERVER}/store/counted_once.py",
        "        record.format = max(record.format, COUNT_FORMAT)\n",
        "        pass\n",
        tests=("tests/unit/decide/test_counting_once.py",),
    ),
    Defect(
        "one who may not borrow does",
        "core/seatkeeper/core/borrowing.py",
        "    if (by := finder(rule.exclude, there)(*asked)) is not None:\n",
        "    if (by := finder(rule.exclude, ())(*asked)) is not None and not by:\n",
        tests=("tests/unit/decide/test_borrowing.py",),
    ),
    Defect(
        "what each project may borrow is counted over all",
        f"{SERVER}/decide/borrowing.py",
        "    theirs = sum(each.seats for each in lent if each.project == found.project)\n",
        "    theirs = sum(each.seats for each in lent)\n",
        tests=("tests/unit/decide/test_borrowing.py",),
    ),
    Defect(
        "an older node lends to those who may not borrow",
        f"{SERVER}/store/records.py",
        " or (policy.borrow is not None and policy.borrow.names_some)",
        "",
        tests=("tests/unit/store/test_borrows.py",),
    ),
)
