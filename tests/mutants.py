"""Break each rule of the resolver and of the relay in turn: the tests must notice every one.

``python -m tests.mutants [WORD ...]`` runs all mutants, or those whose rule contains a word. A
mutant is one exact piece of the source, what takes its place, and the test that must notice. It
is killed if that test fails. It has failed if the test passes, cannot run or is gone, or if the
piece is not in the source exactly once, so that this table cannot fall behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

from tests.relay_mutants import RULES

ROOT = Path(__file__).parent.parent
RESOLVER, ADVICE = "supplemented/resolver.py", "supplemented/lookahead.py"
TESTS = (
    *(
        "tests/supplemented/test_resolver_rules.py",
        "tests/supplemented/test_resolver.py",
        "tests/blobs/test_relay.py",
    ),
    *("tests/test_resumption.py", "tests/aio/test_breaker.py", "tests/blobs/test_health.py"),
    "tests/supplemented/test_supplemented.py",
)
WORKERS = min(4, os.cpu_count() or 1)
HANGS = 120.0
"""Seconds after which a mutant counts as noticed: it never ends."""


class Mutant(NamedTuple):
    """One way to break one rule."""

    rule: str
    by: str
    """The test that must notice."""
    file: str
    old: str
    new: str


class Verdict(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    killed: bool
    reason: str


UNAVAILABLE = (
    *("NetworkError", "TruncatedError", "SourceTimeoutError", "ServerError"),
    *("TooManyRequestsError", "UnauthorizedError", "ForbiddenError", "PermissionDeniedError"),
)


def unavailable_without(*names: str) -> str:
    """The tuple of classes in the source, without some."""
    kept = "".join(f"    {name},\n" for name in UNAVAILABLE if name not in names)
    return f"_UNAVAILABLE: Final = (\n{kept})"


QUEUE = (
    Mutant(
        "X-06 entries of the top go to the back",
        "test_X06_a_list_within_the_top_goes_to_the_back_and_within_a_supplement_to_the_front",
        RESOLVER,
        "self._queue.append(entry)",
        "self._queue.appendleft(entry)",
    ),
    Mutant(
        "X-06 entries of others go to the front",
        "test_X06_later_supplements_go_first_each_list_reversed_and_the_top_last",
        RESOLVER,
        "self._queue.appendleft(entry)",
        "self._queue.append(entry)",
    ),
    Mutant(
        "X-06 in front, the last of a list is read first",
        "test_X06_later_supplements_go_first_each_list_reversed_and_the_top_last",
        RESOLVER,
        "for digest in chosen:\n",
        "for digest in chosen if member == TOP else reversed(chosen):\n",
    ),
    Mutant(
        "X-06 at the back, the first of a list is read first",
        "test_X06_a_list_within_the_top_goes_to_the_back_and_within_a_supplement_to_the_front",
        RESOLVER,
        "for digest in chosen:\n",
        "for digest in reversed(chosen) if member == TOP else chosen:\n",
    ),
    Mutant(
        "X-06 only member 0 is the top",
        "test_X06_later_supplements_go_first_each_list_reversed_and_the_top_last",
        RESOLVER,
        "if want.member == TOP:",
        "if want.member <= 1:",
    ),
    Mutant(
        "X-06 what was read is not read again",
        "test_X06_an_instance_that_was_read_is_not_read_again",
        RESOLVER,
        "if want.digest not in sources and want not in dropped:",
        "if want not in dropped:",
    ),
    Mutant(
        "X-06 a list never takes back what a default holds",
        "test_laws_of_wants",
        RESOLVER,
        "if digest not in self.sources:\n",
        "if digest:\n",
    ),
    Mutant(
        "who missed is not asked again",
        "test_a_member_that_missed_is_not_asked_again",
        RESOLVER,
        "if want.digest not in sources and want not in dropped:",
        "if want.digest not in sources:",
    ),
    Mutant(
        "defaults come before all instances",
        "test_X02_the_top_comes_first_and_each_default_is_remembered",
        RESOLVER,
        "        if self._unopened:\n            return self._unopened[0]\n",
        "        if self._unopened and not self._queue:\n            return self._unopened[0]\n",
    ),
    Mutant(
        "outcomes count for their member only",
        "test_an_outcome_counts_for_its_member_only",
        ADVICE,
        "outcome = self.waiting.pop(want, None)",
        "outcome = self.waiting.pop("
        "next((w for w in self.waiting if w.digest and w.digest == want.digest), want), None)",
    ),
    Mutant(
        "the first outcome of a want counts",
        "test_the_first_outcome_of_a_want_counts",
        RESOLVER,
        "elif not (self.done or want in self._outcomes.waiting or want.digest in self.sources):",
        "elif not (self.done or want.digest in self.sources):",
    ),
    Mutant(
        "after the end nothing is taken",
        "test_after_the_end_nothing_is_taken",
        RESOLVER,
        "        self._head = None\n",
        "",
    ),
)

COMMITS = (
    Mutant(
        "X-14 a default takes its digest over",
        "test_X14_a_default_takes_its_digest_over_from_an_earlier_member",
        RESOLVER,
        "        self.sources[digest] = member\n",
        "        self.sources.setdefault(digest, member)\n",
    ),
    Mutant(
        "X-08 the last commit of a blob wins",
        "test_X08_the_last_commit_that_names_a_blob_wins",
        RESOLVER,
        "for _, manifest in self.commits\n",
        "for _, manifest in reversed(self.commits)\n",
    ),
    Mutant(
        "commits are kept in order",
        "test_X02_the_top_comes_first_and_each_default_is_remembered",
        RESOLVER,
        "self.commits.append((member, digest))",
        "self.commits.insert(0, (member, digest))",
    ),
    Mutant(
        "X-02 each member's default is remembered",
        "test_X02_the_top_comes_first_and_each_default_is_remembered",
        RESOLVER,
        "            self.defaults[member] = digest\n",
        "            self.defaults.setdefault(0, digest)\n",
    ),
    Mutant(
        "a default takes the place of the contribution",
        "test_X14_a_default_takes_its_digest_over_from_an_earlier_member",
        RESOLVER,
        "        self.committed[digest] = Committed(\n"
        "            digest, member, manifest.media_type, size, parent, blobs, instances\n"
        "        )\n",
        "        self.committed.setdefault(digest, Committed(\n"
        "            digest, member, manifest.media_type, size, parent, blobs, instances\n"
        "        ))\n",
    ),
    Mutant(
        "the list that an instance came from is known",
        "test_X02_the_top_comes_first_and_each_default_is_remembered",
        RESOLVER,
        "(entry.parent, entry.depth) if entry",
        "(None, entry.depth) if entry",
    ),
    Mutant(
        "X-04 a malformed digest of a blob raises at its commit",
        "test_X04_a_malformed_digest_raises_at_its_commit",
        RESOLVER,
        "    check_digests([blob.digest for blob in blobs])\n",
        "",
    ),
    Mutant(
        "X-04 a malformed digest in a list raises, chosen or not",
        "test_X04_a_malformed_digest_in_a_list_raises_even_where_it_is_not_chosen",
        RESOLVER,
        "except UnsupportedDigestError:",
        "except ValueError:",
    ),
    Mutant(
        "X-04 an unknown algorithm is refused only where it is chosen",
        "test_X04_an_unknown_algorithm_is_refused_only_where_it_is_chosen",
        RESOLVER,
        "                continue  # Another",
        "                raise  # Another",
    ),
    Mutant(
        "an error of a commit says where",
        "test_X04_a_malformed_digest_raises_at_its_commit",
        RESOLVER,
        "            error.locate(member=head.member, digest=outcome.digest)\n            raise\n",
        "            raise\n",
    ),
    Mutant(
        "an error of a read says where",
        "test_X07_a_missing_instance_raises_and_says_whose",
        RESOLVER,
        "        error.locate(member=want.member, digest=want.digest)\n",
        "",
    ),
    Mutant(
        "alternates: later members first",
        "test_X06_a_default_is_always_read_and_a_list_never_takes_it_back",
        RESOLVER,
        "tuple(sorted(holding, reverse=True))",
        "tuple(sorted(holding))",
    ),
    Mutant(
        "alternates: not who serves it",
        "test_X14_a_default_takes_its_digest_over_from_an_earlier_member",
        RESOLVER,
        "        others.discard(self.sources[digest])\n",
        "",
    ),
    Mutant(
        "alternates: not who missed",
        "test_missing_fallback_serves_the_digest_at_the_place_of_the_other_entry",
        RESOLVER,
        " if Want(m, digest) not in self._outcomes.dropped)",
        ")",
    ),
    Mutant(
        "alternates: who had it as default",
        "test_X14_a_default_takes_its_digest_over_from_an_earlier_member",
        RESOLVER,
        "            self._note_holder(digest, (member,))\n",
        "",
    ),
    Mutant(
        "alternates: who lists it",
        "test_X07_a_sparse_top_is_served_by_its_supplements",
        RESOLVER,
        "            self._note_holder(digest, alone)\n",
        "",
    ),
    Mutant(
        "alternates: every one of them",
        "test_X06_a_default_is_always_read_and_a_list_never_takes_it_back",
        RESOLVER,
        "self.holders[digest] = known + holder",
        "self.holders[digest] = holder",
    ),
)

POLICIES = (
    Mutant(
        "X-07 what is not tolerated raises when serial order meets it",
        "test_X07_a_missing_instance_raises_and_says_whose",
        RESOLVER,
        "            raise error\n        if want.digest is None:",
        "            return\n        if want.digest is None:",
    ),
    Mutant(
        "a failure counts in serial order, not in time",
        "test_the_failure_is_the_first_in_serial_order_not_in_time",
        RESOLVER,
        "            self._outcomes.add(want, outcome)\n",
        "            self._outcomes.add(want, outcome)\n"
        "            if isinstance(outcome, SupplementedError):\n"
        "                if not self._outcomes.tolerates(want, outcome):\n"
        "                    self.failure, self.done, self._head = outcome, True, None\n",
    ),
    Mutant(
        "missing=raise raises",
        "test_X07_a_missing_instance_raises_and_says_whose",
        ADVICE,
        'if self.missing == "raise":',
        'if self.missing == "never":',
    ),
    Mutant(
        "missing=fallback goes on after a miss",
        "test_missing_fallback_serves_the_digest_at_the_place_of_the_other_entry",
        ADVICE,
        'if self.missing == "raise":',
        'if self.missing != "skip":',
    ),
    Mutant(
        "missing=fallback raises what nobody served",
        "test_missing_fallback_raises_the_first_unserved_in_the_end",
        RESOLVER,
        'self._outcomes.missing == "fallback"',
        'self._outcomes.missing == "never"',
    ),
    Mutant(
        "missing=fallback raises the first of them",
        "test_missing_fallback_raises_the_first_unserved_in_the_end",
        RESOLVER,
        "raise next(iter(unserved.values()))",
        "raise list(unserved.values())[-1]",
    ),
    Mutant(
        "missing=fallback forgives what another member served",
        "test_missing_fallback_serves_the_digest_at_the_place_of_the_other_entry",
        RESOLVER,
        "            for want, error in self._outcomes.dropped.items()\n"
        "            if want.digest not in self.sources\n",
        "            for want, error in self._outcomes.dropped.items()\n",
    ),
    Mutant(
        "missing=skip records what nobody supplied",
        "test_missing_skip_records_what_nobody_supplied",
        RESOLVER,
        "                self.missing.append(Missing(want.member, want.digest))\n",
        "                pass\n",
    ),
    Mutant(
        "X-05b requested digests found nowhere raise",
        "test_X05b_requested_digests_found_nowhere_raise_together",
        RESOLVER,
        'if absent and self._outcomes.missing != "skip":',
        'if absent and self._outcomes.missing == "never":',
    ),
    Mutant(
        "X-05b they are recorded under skip",
        "test_X05b_requested_digests_found_nowhere_are_recorded_under_skip",
        RESOLVER,
        'if absent and self._outcomes.missing != "skip":',
        "if absent:",
    ),
    Mutant(
        "X-05b the error names them all",
        "test_X05b_requested_digests_found_nowhere_raise_together",
        RESOLVER,
        "digests=absent)",
        "digests=absent[:1])",
    ),
    Mutant(
        "X-05b what a member missed is not recorded twice",
        "test_X05b_requested_digests_found_nowhere_are_recorded_under_skip",
        RESOLVER,
        " for digest in absent if digest not in recorded)",
        " for digest in absent)",
    ),
    Mutant(
        "X-16 a platform that no list offers is no miss",
        "test_X16_a_platform_that_no_list_offers_is_no_miss",
        ADVICE,
        " and not isinstance(error, PlatformNotFoundError)",
        "",
    ),
    Mutant(
        "unavailable=skip never leaves out the top",
        "test_a_member_that_cannot_be_opened",
        ADVICE,
        'self.unavailable == "skip" and want.member != TOP',
        'self.unavailable == "skip"',
    ),
    Mutant(
        "unavailable=raise leaves nobody out",
        "test_a_member_that_cannot_be_opened",
        ADVICE,
        'self.unavailable == "skip" and want.member != TOP',
        "want.member != TOP",
    ),
    Mutant(
        "unavailable=skip never tolerates wrong content",
        "test_a_member_that_cannot_be_opened",
        ADVICE,
        "            return skips and is_unavailable(error)\n",
        "            return skips\n",
    ),
    Mutant(
        "unavailable=skip covers a default that is not found",
        "test_a_member_that_cannot_be_opened",
        ADVICE,
        "return is_miss(error) or isinstance(error, _UNAVAILABLE)",
        "return isinstance(error, _UNAVAILABLE)",
    ),
    Mutant(
        "unavailable=skip covers instances where misses are tolerated",
        "test_an_instance_that_cannot_be_read",
        ADVICE,
        "return is_miss(error) or (skips and is_unavailable(error))",
        "return is_miss(error)",
    ),
    Mutant(
        "instances that are out of reach raise unless unavailable=skip",
        "test_an_instance_that_cannot_be_read",
        ADVICE,
        "return is_miss(error) or (skips and is_unavailable(error))",
        "return is_unavailable(error)",
    ),
    Mutant(
        "who was left out is recorded",
        "test_a_member_that_cannot_be_opened",
        RESOLVER,
        "            self.unavailable[want.member] = error\n",
        "            pass\n",
    ),
    *(
        Mutant(
            f"unavailable=skip covers {name}",
            "test_what_is_a_miss_and_what_is_unavailable",
            ADVICE,
            unavailable_without(),
            unavailable_without(name),
        )
        for name in UNAVAILABLE
    ),
)

BOUNDS = (
    Mutant(
        "X-15 as many instances as the cap pass",
        "test_X15_distinct_manifests_are_bounded",
        RESOLVER,
        "if len(self._known) > self._bounds.instances:",
        "if len(self._known) >= self._bounds.instances:",
    ),
    Mutant(
        "X-15 chosen instances are counted",
        "test_X15_twenty_thousand_manifests_pass_and_one_more_does_not",
        RESOLVER,
        "        self._admit(chosen)\n",
        "",
    ),
    Mutant(
        "X-15 defaults are counted",
        "test_X15_a_default_counts_as_a_manifest",
        RESOLVER,
        "            self._admit((digest,))\n",
        "",
    ),
    Mutant(
        "X-15 as many entries as the cap pass",
        "test_X15_entries_are_bounded",
        RESOLVER,
        "if self._pushes + len(chosen) > self._bounds.entries:",
        "if self._pushes + len(chosen) >= self._bounds.entries:",
    ),
    Mutant(
        "X-15 entries of all lists are counted together",
        "test_X15_entries_are_bounded",
        RESOLVER,
        "if self._pushes + len(chosen) > self._bounds.entries:",
        "if len(chosen) > self._bounds.entries:",
    ),
    Mutant(
        "X-15 lists may nest as deep as the cap",
        "test_X15_lists_nest_eight_deep",
        RESOLVER,
        "if depth > self._bounds.nesting:",
        "if depth >= self._bounds.nesting:",
    ),
    Mutant(
        "X-15 the depth of a list is counted",
        "test_X15_lists_nest_eight_deep",
        RESOLVER,
        "parsed, depth + 1)",
        "parsed, 1)",
    ),
    Mutant(
        "X-15 as many bytes as the cap pass",
        "test_X15_bytes_are_bounded",
        RESOLVER,
        "if self._bytes > self._bounds.total_bytes:",
        "if self._bytes >= self._bounds.total_bytes:",
    ),
    Mutant(
        "X-15 the bytes of all manifests are counted together",
        "test_X15_bytes_are_bounded",
        RESOLVER,
        "if self._bytes > self._bounds.total_bytes:",
        "if size > self._bounds.total_bytes:",
    ),
    Mutant(
        "as many bytes as the cap may wait",
        "test_manifests_that_wait_stop_the_lookahead_at_the_cap_of_bytes",
        RESOLVER,
        "self._outcomes.size > self._bounds.read_ahead",
        "self._outcomes.size >= self._bounds.read_ahead",
    ),
    Mutant(
        "more bytes stop the lookahead",
        "test_manifests_that_wait_stop_the_lookahead_at_the_cap_of_bytes",
        RESOLVER,
        "if n == 0 or self._outcomes.size > self._bounds.read_ahead:",
        "if n == 0:",
    ),
    Mutant(
        "what was taken waits no more",
        "test_manifests_that_nobody_needs_any_more_do_not_count_as_waiting",
        ADVICE,
        "            self.size -= outcome.size\n",
        "            pass\n",
    ),
    Mutant(
        "what serial order went past waits no more",
        "test_manifests_that_nobody_needs_any_more_do_not_count_as_waiting",
        RESOLVER,
        "            queue.popleft()\n            self._outcomes.take(want)\n",
        "            queue.popleft()\n",
    ),
)

WANTS = (
    Mutant(
        "wants: the head comes first",
        "test_the_head_comes_first_although_a_miss_brought_it_up",
        RESOLVER,
        "        return [head, *(want for want in wanted if want != head)][: n + 1]\n",
        "        return wanted\n",
    ),
    Mutant(
        "wants: the head and n more",
        "test_tolerated_misses_keep_the_lookahead_busy",
        RESOLVER,
        "wanted = self._advice.first(n + 1)",
        "wanted = self._advice.first(n)",
    ),
    Mutant(
        "wants: no more than n more",
        "test_the_head_comes_first_although_a_miss_brought_it_up",
        RESOLVER,
        "        return [head, *(want for want in wanted if want != head)][: n + 1]\n",
        "        return [head, *(want for want in wanted if want != head)]\n",
    ),
    Mutant(
        "wants: the cost is that of what it gives",
        "test_wants_touches_no_more_than_it_gives",
        ADVICE,
        "wants = list(islice(plan, n))",
        "wants = list(plan)[:n]",
    ),
    Mutant(
        "wants: defaults only, until all are committed",
        "test_before_all_defaults_are_committed_only_defaults_are_wanted",
        ADVICE,
        "plan = self.unopened or self.planned",
        "plan = self.planned or self.unopened",
    ),
    Mutant(
        "wants: nothing behind a failure that would raise",
        "test_a_failure_that_would_raise_stops_what_lies_behind_it",
        ADVICE,
        "        if self.failed:\n            barrier",
        "        if not wants:\n            barrier",
    ),
    Mutant(
        "wants: the first such failure counts",
        "test_of_several_failures_that_would_raise_the_first_one_stops",
        ADVICE,
        "barrier = min(self.failed.values())",
        "barrier = max(self.failed.values())",
    ),
    Mutant(
        "wants: what failed is not wanted again",
        "test_a_failure_that_would_raise_stops_what_lies_behind_it",
        ADVICE,
        "if plan[want] < barrier]",
        "if plan[want] <= barrier]",
    ),
    Mutant(
        "wants: a failure that is queued again moves up",
        "test_a_failure_moves_up_when_it_is_queued_again_in_front",
        ADVICE,
        "        if fate is Fate.FAILED:\n            self.failed[entry.want] = entry.place\n",
        "",
    ),
    Mutant(
        "wants: a failure behind another entry stops nothing",
        "test_a_failure_stops_nothing_while_another_entry_may_serve_its_digest",
        ADVICE,
        "            self.failed.pop(want, None)\n",
        "            pass\n",
    ),
    Mutant(
        "wants: what was fetched is not wanted",
        "test_a_miss_that_is_tolerated_stops_nothing",
        ADVICE,
        "        plan.pop(want, None)\n",
        "",
    ),
    Mutant(
        "wants: what was committed is not wanted",
        "test_laws_of_wants",
        ADVICE,
        "            self._withdraw(leader.want)\n            if leader.want != entry.want:",
        "            if leader.want != entry.want:",
    ),
    Mutant(
        "wants: what waits is not wanted when it is queued again",
        "test_what_waits_is_not_wanted_when_it_is_queued_again",
        ADVICE,
        "        if fate is not Fate.HELD:\n            self.planned",
        "        if entry:\n            self.planned",
    ),
    Mutant(
        "wants: entries in front are wanted first",
        "test_a_failure_stops_nothing_while_another_entry_may_serve_its_digest",
        ADVICE,
        "            self.planned.move_to_end(entry.want, last=False)\n",
        "            pass\n",
    ),
    Mutant(
        "wants: after a miss, whom an entry in front had displaced",
        "test_after_a_miss_the_next_entry_for_the_digest_is_wanted",
        ADVICE,
        "                self.behind.setdefault(digest, []).append(leader)\n",
        "                pass\n",
    ),
    Mutant(
        "wants: after a miss that waits, the next in line",
        "test_after_a_miss_the_next_entry_for_the_digest_is_wanted",
        ADVICE,
        "if fate is Fate.MISSED and digest is not None and",
        "if fate is Fate.FAILED and digest is not None and",
    ),
    Mutant(
        "wants: after a miss of the head, the next in line",
        "test_after_a_miss_of_the_head_the_next_entry_for_the_digest_is_wanted",
        RESOLVER,
        "            self._outcomes.dropped[want] = error\n            self._advice.heed(want)\n",
        "            self._outcomes.dropped[want] = error\n",
    ),
    Mutant(
        "wants: who missed before is passed over",
        "test_who_missed_is_not_wanted_when_it_is_queued_again",
        ADVICE,
        "        if want in self.dropped:\n            return Fate.MISSED\n",
        "",
    ),
)

RELAY = tuple(Mutant(*each) for each in RULES)

MUTANTS = (*QUEUE, *COMMITS, *POLICIES, *BOUNDS, *WANTS, *RELAY)


def prepare(directory: Path) -> None:
    """Copy what the tests need."""
    ignored = shutil.ignore_patterns("__pycache__", "oracle", "interop")
    for name in ("asupplemented", "tests"):
        shutil.copytree(ROOT / name, directory / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", directory)


def find_test(name: str, directory: Path) -> str | None:
    """The address of a test for pytest, None if there is no such test."""
    for path in TESTS:
        if f"def {name}(" in (directory / path).read_text("utf-8"):
            return f"{path}::{name}"
    return None


def run_tests(directory: Path, *tests: str) -> tuple[int | None, str]:
    """The exit status of pytest, None if it never ends, and the last that it said."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {
        **os.environ,
        "HYPOTHESIS_PROFILE": "mutants",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(directory),
    }
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=HANGS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, "it never ends"
    return done.returncode, (done.stdout + done.stderr)[-800:]


def judge(mutant: Mutant, directory: Path) -> Verdict:
    """Apply a mutant to a copy of the project, run its test, and put the source back."""
    path = directory / "asupplemented" / mutant.file
    source = path.read_text("utf-8")
    if (found := source.count(mutant.old)) != 1:
        return Verdict(mutant, killed=False, reason=f"its piece is in the source {found} times")
    if (test := find_test(mutant.by, directory)) is None:
        return Verdict(mutant, killed=False, reason=f"{mutant.by} is gone")
    path.write_text(source.replace(mutant.old, mutant.new), "utf-8")
    try:
        status, said = run_tests(directory, test)
    finally:
        path.write_text(source, "utf-8")
    if status in {None, 1}:
        return Verdict(mutant, killed=True, reason=mutant.by)
    if status == 0:
        return Verdict(mutant, killed=False, reason=f"it survived {mutant.by}")
    return Verdict(mutant, killed=False, reason=f"its test does not run: {said}")


def show(verdict: Verdict, width: int) -> None:
    """Print one line of the table."""
    word = "killed" if verdict.killed else "FAILED"
    sys.stdout.write(f"{word}  {verdict.mutant.rule:<{width}}  {verdict.reason}\n")
    sys.stdout.flush()


def run(mutants: list[Mutant], home: Path) -> list[Verdict]:
    """Judge mutants side by side, each worker in its own copy of the project."""
    copies: SimpleQueue[Path] = SimpleQueue()
    for number in range(WORKERS):
        prepare(home / str(number))
        copies.put(home / str(number))
    width = max(len(mutant.rule) for mutant in mutants)

    def work(mutant: Mutant) -> Verdict:
        directory = copies.get()
        try:
            return judge(mutant, directory)
        finally:
            copies.put(directory)

    verdicts: list[Verdict] = []
    with ThreadPoolExecutor(WORKERS) as pool:
        for verdict in pool.map(work, mutants):
            show(verdict, width)
            verdicts.append(verdict)
    return verdicts


def main(words: list[str]) -> int:
    """Run the mutants; the exit status is 1 unless every one was killed."""
    started = perf_counter()
    mutants = [m for m in MUTANTS if not words or any(word in m.rule for word in words)]
    if not mutants:
        sys.stderr.write(f"no rule contains {' or '.join(words)}\n")
        return 2
    with TemporaryDirectory(prefix="mutants-") as home:
        prepare(Path(home) / "whole")
        status, said = run_tests(Path(home) / "whole", *TESTS)
        if status != 0:
            sys.stderr.write(f"the tests fail without any mutant: {said}\n")
            return 1
        verdicts = run(mutants, Path(home))
    killed = sum(verdict.killed for verdict in verdicts)
    seconds = perf_counter() - started
    failed = len(verdicts) - killed
    sys.stdout.write(f"{killed} passed, {failed} failed in {seconds:.0f}s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
