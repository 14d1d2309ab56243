#!/usr/bin/env python3
"""Check timerproc.pml with Spin: every configuration has to hold, every mutation has to be objected to.

    python3 tests/model/run.py [--only PATTERN] [--build DIRECTORY]

One line a run. The exit status is 1 when a configuration has an error or does not come to its end, or when a mutation
is not found out.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

MODEL = Path(__file__).resolve().parent / "timerproc.pml"
ROOT = MODEL.parents[2]
MEGABYTES = 3500
DEPTH = 100_000

SAFE = "no deadlock, no lost wake-up, never early, exact ledger"
RESCUED = "no timer left behind for good"
REPLACED = "a dead worker is replaced by the next arming"
LET_GO = "what a dead worker had collected is cancelled by close"
BEHIND = "nobody waits for ever behind a callback that blocks, one owner of the run; and the above"
ON_GRID = "never two calls at once, on the grid, none after a stop, none missing; exact ledger"
LIFE = "the core is freed once, in the end, and not used then; and the above"

# Kinds of search: flags of the C compiler, flags of the verifier.
SAFETY = (["-DSAFETY"], [])
SMALL = (["-DSAFETY", "-O0"], [])                           # to compile it well takes longer than the search
LOOPS = (["-DNP"], ["-l"])
LOOPS_ALONE = (LOOPS[0], [*LOOPS[1], "-A", "-E"])           # neither assertions nor end states
LIVENESS = (["-DNFAIR=4"], ["-a", "-f", "-N", "fires"])
LIVENESS_ALONE = (LIVENESS[0], [*LIVENESS[1], "-A", "-E"])  # likewise

# name, what it shows, parameters, kind of search
CONFIGURATIONS = [
    ("calls", SAFE, "CALLERS=2 OPS=1 CMAX=4 SPURIOUS=1", SAFETY),
    ("more calls", SAFE, "CALLERS=2 OPS=2 CMAX=3 SPURIOUS=0", SAFETY),
    ("four timers", SAFE, "NT=4 CALLERS=2 OPS=1 CMAX=4 SPURIOUS=1", SAFETY),
    ("long", SAFE, "CALLERS=1 OPS=4 CMAX=4 SPURIOUS=1 YIELDS=1", SAFETY),
    ("callbacks arm", SAFE, "CALLERS=1 OPS=2 CMAX=4 SPURIOUS=1 REARMS=2 YIELDS=1", SAFETY),
    ("close", SAFE, "CALLERS=2 OPS=1 CMAX=2 SPURIOUS=1 CLOSES=1 YIELDS=1", SAFETY),
    ("fork", SAFE, "CALLERS=2 OPS=1 CMAX=2 SPURIOUS=0 FORKS=1", SAFETY),
    ("fork and close", SAFE, "CALLERS=1 OPS=1 CMAX=3 SPURIOUS=1 FORKS=1 CLOSES=1 YIELDS=1", SAFETY),
    ("failing start", "no timer left behind, and the above", "CALLERS=2 OPS=1 CMAX=3 SPURIOUS=0 FAILS=1 NO_EXCUSE",
     SAFETY),
    ("failing starts", RESCUED, "CALLERS=2 OPS=1 CMAX=2 SPURIOUS=0 FAILS=3 RESCUES=1", SAFETY),
    ("failing start, fork", "no timer left behind", "CALLERS=1 OPS=1 CMAX=2 SPURIOUS=0 FAILS=1 FORKS=1 NO_EXCUSE",
     SAFETY),
    ("failing start, close", SAFE, "CALLERS=1 OPS=1 CMAX=2 SPURIOUS=0 FAILS=2 CLOSES=1", SAFETY),
    ("dying worker", REPLACED, "CALLERS=2 OPS=1 CMAX=2 SPURIOUS=0 DEATHS=1", SAFETY),
    ("close in a callback", SAFE, "CALLERS=1 OPS=1 CMAX=2 SPURIOUS=0 CLOSES=1 INSIDE=1", SAFETY),
    ("dying worker, close", LET_GO, "CALLERS=1 OPS=2 CMAX=3 SPURIOUS=1 DEATHS=1 CLOSES=1", SAFETY),
    ("life", LIFE, "LIFE CALLERS=2 OPS=1 CMAX=2 SPURIOUS=0", SAFETY),
    ("life, callbacks arm", LIFE, "LIFE CALLERS=1 OPS=2 CMAX=3 SPURIOUS=1 REARMS=1 YIELDS=1", SAFETY),
    ("life, collector", LIFE, "LIFE CALLERS=1 OPS=3 CMAX=2 SPURIOUS=0 COLLECTS=1", SAFETY),
    ("life, collector, fork", LIFE, "LIFE CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 COLLECTS=1 FORKS=1", SAFETY),
    ("life, close", LIFE, "LIFE CALLERS=1 OPS=2 CMAX=2 SPURIOUS=1 CLOSES=1", SAFETY),
    ("life, close in a callback", LIFE, "LIFE CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 CLOSES=1 INSIDE=1", SAFETY),
    ("life, failing starts", LIFE, "LIFE CALLERS=2 OPS=1 CMAX=2 SPURIOUS=0 FAILS=3 RESCUES=1", SAFETY),
    ("life, fork", LIFE, "LIFE CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 FORKS=1", SAFETY),
    ("GIL", SAFE, "GIL CALLERS=2 OPS=2 CMAX=3 SPURIOUS=0", SAFETY),
    ("GIL, fork", SAFE, "GIL CALLERS=2 OPS=1 CMAX=2 SPURIOUS=0 FORKS=1", SAFETY),
    ("GIL, fork, close", SAFE, "GIL CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 FORKS=1 CLOSES=1 YIELDS=1", SAFETY),
    ("GIL, failing starts", RESCUED, "GIL CALLERS=2 OPS=1 CMAX=3 SPURIOUS=0 FAILS=3 RESCUES=1", SAFETY),
    ("GIL, dying worker", REPLACED, "GIL CALLERS=2 OPS=1 CMAX=2 SPURIOUS=0 DEATHS=1", SAFETY),
    ("GIL, life", LIFE, "GIL LIFE CALLERS=2 OPS=2 CMAX=2 SPURIOUS=0", SAFETY),
    ("GIL, life, collector", LIFE, "GIL LIFE CALLERS=1 OPS=3 CMAX=2 SPURIOUS=1 COLLECTS=1 REARMS=1", SAFETY),
    ("GIL, life, close", LIFE, "GIL LIFE CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 CLOSES=1 INSIDE=1", SAFETY),
    ("GIL, life, failing starts", LIFE, "GIL LIFE CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 FORKS=1 FAILS=2", SAFETY),
    ("GIL, life, fork", LIFE, "GIL LIFE CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 FORKS=1 REARMS=1", SAFETY),
    ("hand-over", BEHIND, "PATIENCE BLOCKS=1 CALLERS=2 OPS=1 CMAX=2 SPURIOUS=0", SMALL),
    ("hand-over, twice", BEHIND, "PATIENCE BLOCKS=2 CALLERS=1 OPS=3 CMAX=2 SPURIOUS=0", SMALL),
    ("hand-over, for nothing", BEHIND, "PATIENCE BLOCKS=1 TAKES=1 CALLERS=1 OPS=2 CMAX=2 SPURIOUS=1", SMALL),
    ("hand-over, callbacks arm", BEHIND, "PATIENCE BLOCKS=1 CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 REARMS=2", SMALL),
    ("hand-over, close", BEHIND, "PATIENCE BLOCKS=1 CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 CLOSES=1", SMALL),
    ("hand-over, close, apart", BEHIND, "PATIENCE BLOCKS=1 CALLERS=1 OPS=1 CMAX=2 SPURIOUS=0 CLOSES=1 JOIN_APART",
     SMALL),
    ("hand-over, close inside", BEHIND, "PATIENCE TAKES=1 CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 INSIDE=2", SMALL),
    ("hand-over, close both", BEHIND, "PATIENCE BLOCKS=1 CALLERS=1 OPS=1 CMAX=2 SPURIOUS=0 CLOSES=1 INSIDE=1", SMALL),
    ("hand-over, fork", BEHIND, "PATIENCE BLOCKS=1 CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 FORKS=1", SMALL),
    ("hand-over, dying worker", BEHIND, "PATIENCE BLOCKS=1 TAKES=1 CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 DEATHS=1", SMALL),
    ("hand-over, failing starts", BEHIND, "PATIENCE BLOCKS=1 CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 FAILS=1 CLOSES=1",
     SMALL),
    ("hand-over, life", LIFE, "LIFE PATIENCE BLOCKS=1 CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 CLOSES=1", SMALL),
    ("hand-over, life, fork", LIFE, "LIFE PATIENCE BLOCKS=1 CALLERS=1 OPS=1 CMAX=2 SPURIOUS=0 FORKS=1", SMALL),
    ("GIL, hand-over", LIFE, "GIL LIFE PATIENCE BLOCKS=1 TAKES=1 CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0", SMALL),
    ("GIL, hand-over, close", LIFE,
     "GIL LIFE PATIENCE BLOCKS=1 CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 CLOSES=1 INSIDE=1", SMALL),
    ("GIL, hand-over, fork", BEHIND, "GIL PATIENCE BLOCKS=1 CALLERS=1 OPS=2 CMAX=2 SPURIOUS=0 FORKS=1", SMALL),
    ("every", ON_GRID, "PERIODIC CALLERS=2 OPS=1 CMAX=4 SPURIOUS=0", SMALL),
    ("every, callbacks arm", ON_GRID, "PERIODIC CALLERS=1 OPS=2 CMAX=4 SPURIOUS=0 REARMS=1 NOMEM=1", SMALL),
    ("every, life", LIFE, "LIFE PERIODIC CALLERS=1 OPS=2 CMAX=3 SPURIOUS=0 REARMS=1", SMALL),
    ("every, executor", ON_GRID, "PERIODIC EXECUTOR CALLERS=1 OPS=2 CMAX=4 SPURIOUS=0 CLOSES=1", SMALL),
    ("every, hand-over", ON_GRID, "PERIODIC PATIENCE BLOCKS=1 CALLERS=1 OPS=2 CMAX=4 SPURIOUS=0", SMALL),
    ("GIL, every, close", ON_GRID, "GIL PERIODIC CALLERS=1 OPS=2 CMAX=4 SPURIOUS=0 NOMEM=1 CLOSES=1", SMALL),
    ("GIL, every, hand-over", ON_GRID, "GIL PERIODIC PATIENCE BLOCKS=1 CALLERS=1 OPS=2 CMAX=3 SPURIOUS=0 NOMEM=1",
     SMALL),
    ("loops, hand-over", "every execution is finite",
     "PATIENCE BLOCKS=1 TAKES=1 CALLERS=1 OPS=1 CMAX=2 SPURIOUS=0 REARMS=1", LOOPS),
    ("loops", "every execution is finite", "CALLERS=1 OPS=2 CMAX=3 SPURIOUS=1 YIELDS=1 REARMS=1", LOOPS),
    ("loops, fork", "every execution is finite", "CALLERS=1 OPS=1 CMAX=2 SPURIOUS=0 FORKS=1 FAILS=1", LOOPS),
    ("liveness", "what is due fires or is cancelled", "CALLERS=1 OPS=2 CMAX=3 SPURIOUS=1 LIVENESS", LIVENESS),
]

LOST = "!(lost_wake_up)"
STUCK = "done=="
EARLY = "deadline[t]<=clock"
AFTER_STOP = "said[t]"
OVERDUE = "deadline[0]<=clock"
KEPT = "freed==(live==0)"
FREED = "!(freed)"
GONE = "refs>0"
UNKNOWN = "assertion violated known"
OWNER = "post==(me+1)"
BEHIND_IT = "spare_refused"
RETURNED = "busy[0]"
HANDLE = "handle>0"
CYCLE = "acceptance cycle"
SPIN = "non-progress cycle"

# name, what is wrong, parameters, what the objection has to name, kind of search
MUTANTS = [
    ("M_SIGNAL_SKIPPED", "an earlier deadline does not signal", "OPS=1", LOST, SAFETY),
    ("M_SIGNAL_FIRST", "the signal is sent before the timer is armed", "OPS=1", LOST, SAFETY),
    ("M_RESET_QUIET", "a reset to earlier does not signal", "OPS=2", LOST, SAFETY),
    ("M_STALE_ROOT", "compared with a root read before M was taken, not with wake_at", "OPS=1", LOST, SAFETY),
    ("M_WAKE_AT_LATE", "wake_at is written when the wait has begun, in another hold of M", "OPS=1", LOST, SAFETY),
    ("M_WAKE_AT_STALE", "the worker parks again with the wake_at it woke with", "OPS=1", LOST, SAFETY),
    ("M_STALE_PARK", "the worker sleeps for a stale root's new deadline", "OPS=2", LOST, SAFETY),
    ("M_NO_SECOND_LOOK", "the worker parks after the callbacks without another look", "OPS=1", LOST, SAFETY),
    ("M_DUE_BY_KEY", "a stale key makes its timer due", "OPS=2", EARLY, SAFETY),
    ("M_LAUNCH_BLIND", "launch does not look whether the timer is still due", "OPS=2", AFTER_STOP, SAFETY),
    ("M_NO_SWAP", "the worker makes a timer due by a store, not a swap", "GIL OPS=2", AFTER_STOP, SAFETY),
    ("M_PAUSING_UNCHECKED", "pausing is not looked at again after collect",
     "OPS=2 CALLERS=1 FORKS=1 YIELDS=1", STUCK, SAFETY),
    ("M_LEAVES_IN_TWO_HOLDS", "the worker decides to leave in one hold of M, says so in the next",
     "OPS=1 CALLERS=1 FORKS=1", OVERDUE, SAFETY),
    ("M_JOIN_QUIET", "close does not signal", "OPS=1 CALLERS=1", "invalid end state", SAFETY),
    ("M_START_BLIND", "a start does not look again under M whether there is a worker", "OPS=1", "workers==1", SAFETY),
    ("M_NO_RETRY", "a start that failed is not tried again for the timers of others", "OPS=1 FAILS=1 NO_EXCUSE",
     OVERDUE, SAFETY),
    ("M_DESERTION_UNSEEN", "who arms does not see that the start it relied on has failed", "OPS=1 FAILS=1 NO_EXCUSE",
     OVERDUE, SAFETY),
    ("M_DESERTION_UNSEEN", "nor that the worker it has started has left for a fork", "GIL OPS=1 CALLERS=1 FORKS=1",
     OVERDUE, SAFETY),
    ("M_DESERTION_UNSEEN", "nor that the worker it relied on has died", "GIL OPS=1 DEATHS=1", OVERDUE, SAFETY),
    ("M_RESCUE_FORGETS", "a rescue that fails is not tried again", "OPS=1 FAILS=3 RESCUES=1", OVERDUE, SAFETY),
    ("M_REFUSAL_UNTOLD", "a thread that was refused has not ended for those who await that",
     "OPS=1 CALLERS=1 FAILS=1 CLOSES=1", STUCK, SAFETY),
    ("M_DEATH_UNSEEN", "a dead thread keeps its post", "OPS=1 DEATHS=1", "!(post)", SAFETY),
    ("M_RESUME_FORGETS", "after a fork only the next arming starts the worker", "OPS=1 CALLERS=1 FORKS=1", OVERDUE,
     SAFETY),
    ("M_RESUME_LOOKS_FIRST", "whether something is armed is looked at before the pause is over",
     "OPS=1 CALLERS=1 FORKS=1", OVERDUE, SAFETY),
    ("M_DEATH_UNTOLD", "nobody is told that a dead worker may have left timers behind", "OPS=1 DEATHS=1", OVERDUE,
     SAFETY),
    ("M_RUN_LEFT", "close does not let go of a dead worker's run", "OPS=1 DEATHS=1 CLOSES=1",
     OVERDUE, SAFETY),
    ("M_HOOKS_KEPT", "the worker does not drop the hooks of a heap that its callback has closed",
     "OPS=1 CALLERS=1 INSIDE=1", "!(hooks)", SAFETY),
    ("M_POST_KEPT", "the worker leaves and does not clear the post", "LIFE OPS=1 CALLERS=1 FORKS=1", KEPT, SAFETY),
    ("M_NO_HOLD", "a heap does not hold itself", "LIFE OPS=1 CALLERS=1", "live==0", SAFETY),
    ("M_HEAP_KEPT", "the worker holds its heap while it is parked", "LIFE OPS=1 CALLERS=1", KEPT, SAFETY),
    ("M_HOLD_BLIND", "the worker takes its heap without a look at what is armed", "LIFE OPS=2 CALLERS=1", GONE, SAFETY),
    ("M_HOLD_BLIND", "likewise, with a GIL", "GIL LIFE OPS=2 CALLERS=1", GONE, SAFETY),
    ("M_HELD_AFTER_M", "the worker looks at what is armed under M, and takes its heap after that",
     "LIFE OPS=2 CALLERS=1", GONE, SAFETY),
    ("M_GIVEN_UP_TWICE", "a stop that comes too late gives up the heap's hold once more", "LIFE OPS=2 CALLERS=1",
     "refs>", SAFETY),
    ("M_HELD_TWICE", "a reset of the only armed timer holds the heap once more", "LIFE OPS=2 CALLERS=1", KEPT, SAFETY),
    ("M_HOLD_LATE", "the heap's reference is taken when the caller has none to spare", "LIFE OPS=1 CALLERS=1",
     "refs>", SAFETY),
    ("M_DETACH_QUIET", "detaching does not signal", "LIFE OPS=2 CALLERS=1", KEPT, SAFETY),
    ("M_DETACH_OUTSIDE_M", "detaching does not take M", "LIFE OPS=1 CALLERS=1", FREED, SAFETY),
    ("M_FREED_AT_ONCE", "whoever drops the heap frees the core beside its worker", "LIFE OPS=1 CALLERS=1", FREED,
     SAFETY),
    ("M_NEVER_FREED", "the worker of a detached core does not free it", "LIFE OPS=1 CALLERS=1", KEPT, SAFETY),
    ("M_UNKNOWN", "a start does not see that the collector has cleared the weak reference",
     "GIL LIFE OPS=2 CALLERS=1 COLLECTS=1", UNKNOWN, SAFETY),
    ("M_FORGET_KEEPS_READY", "the weak reference's end does not make arming ask again",
     "GIL LIFE OPS=3 CALLERS=1 COLLECTS=1", UNKNOWN, SAFETY),
    ("M_GIL_UNDER_M", "the worker asks for the GIL while it holds M", "GIL OPS=1", STUCK, SAFETY),
    ("M_GENERATION_LATE", "the worker notes the generation after the hold that says that it fires",
     "PATIENCE TAKES=1 OPS=2 CALLERS=1", OWNER, SAFETY),
    ("M_GENERATION_KEPT", "a hand-over does not count in the generation", "PATIENCE BLOCKS=1 OPS=2 CALLERS=1", OWNER,
     SAFETY),
    ("M_LAUNCH_UNCHECKED", "whose the run is is not looked at in the hold of the launch",
     "PATIENCE TAKES=1 OPS=2 CALLERS=1", OWNER, SAFETY),
    ("M_LAUNCH_UNCHECKED", "nor after the GIL was given up", "GIL PATIENCE TAKES=1 OPS=2 CALLERS=1", OWNER, SAFETY),
    ("M_TAKEN_WITHOUT_GIL", "the standby takes over under M alone", "GIL PATIENCE TAKES=1 OPS=2 CALLERS=1", OWNER,
     SAFETY),
    ("M_TAKEN_IDLE", "the standby takes over from a worker that fires nothing", "PATIENCE TAKES=1 OPS=1 CALLERS=1",
     "invalid end state", SAFETY),
    ("M_TAKEN_CLOSED", "it takes over in a closed heap, and close does not see all posts in one hold",
     "PATIENCE BLOCKS=1 OPS=2 CALLERS=1 CLOSES=1 JOIN_APART", RETURNED, SAFETY),
    ("M_TAKER_ALONE", "who takes over starts no standby", "PATIENCE BLOCKS=2 OPS=3 CALLERS=1", BEHIND_IT, SAFETY),
    ("M_TAKER_UNHELD", "nor holds the heap", "LIFE PATIENCE BLOCKS=1 OPS=1 CALLERS=1", "refs>1", SAFETY),
    ("M_STANDBY_UNWOKEN", "a run does not wake the standby", "PATIENCE BLOCKS=1 OPS=3 CALLERS=1", BEHIND_IT, SAFETY),
    ("M_SLEEPS_BLIND", "the standby sleeps without a look at whether there is a run",
     "PATIENCE BLOCKS=1 OPS=2 CALLERS=1", BEHIND_IT, SAFETY),
    ("M_RESUME_NO_SPARE", "after a fork nobody brings back the standby of a worker that has not left",
     "PATIENCE BLOCKS=1 OPS=2 CALLERS=1 FORKS=1 CMAX=2", BEHIND_IT, SAFETY),
    ("M_FIRING_LATE", "the run ends in another hold than the look at whose it is", "PATIENCE TAKES=1 OPS=2 CALLERS=1",
     "invalid end state", SAFETY),
    ("M_RUN_EMPTIED_LATE", "the run is emptied in another hold than that look",
     "PATIENCE BLOCKS=1 TAKES=1 OPS=2 CALLERS=1", BEHIND_IT, SAFETY),
    ("M_LOST_LEAVES", "who has lost its post leaves it", "PATIENCE BLOCKS=1 OPS=1 CALLERS=1", "!(running)", SAFETY),
    ("M_LOST_UNAWAITED", "close does not wait for those that have lost their post",
     "PATIENCE BLOCKS=1 OPS=1 CALLERS=1 CLOSES=1", RETURNED, SAFETY),
    ("M_SPARE_UNAWAITED", "nor for the standby", "PATIENCE BLOCKS=1 OPS=1 CALLERS=1", "!(spare)", SAFETY),
    ("M_WATCH_QUIET", "close does not signal the standby", "PATIENCE BLOCKS=1 OPS=1 CALLERS=1", "invalid end state",
     SAFETY),
    ("M_SPARE_REFUSAL_UNTOLD", "a standby that was refused has not ended for those who await that",
     "PATIENCE BLOCKS=1 OPS=1 CALLERS=1 FAILS=1 CLOSES=1", STUCK, SAFETY),
    ("M_HOOKS_UNCOUNTED", "the worker drops the hooks beside a callback of one that has lost its post",
     "PATIENCE TAKES=1 OPS=2 CALLERS=1 CLOSES=1 INSIDE=1", "hooks", SAFETY),
    ("M_LOST_HOOKS_KEPT", "the last that comes back does not drop the hooks",
     "PATIENCE TAKES=1 OPS=1 CALLERS=1 CLOSES=1 INSIDE=1", "!(hooks)", SAFETY),
    ("M_LOST_HOOKS_RUNNING", "or leaves them to a worker that has fired its last run",
     "PATIENCE TAKES=1 OPS=2 CALLERS=1 INSIDE=2", "!(hooks)", SAFETY),
    ("M_LOST_DIES_UNCOUNTED", "one that has lost its post and dies still counts",
     "PATIENCE TAKES=1 OPS=1 CALLERS=1 DEATHS=1", "!(hooks)", SAFETY),
    ("M_END_BLIND", "a thread that dies has looked before M whether it has its post",
     "PATIENCE TAKES=1 OPS=1 CALLERS=1 DEATHS=1", "!(hooks)", SAFETY),
    ("M_SPARE_UNSEEN", "whoever drops the heap does not see the standby", "LIFE PATIENCE TAKES=1 OPS=1 CALLERS=1",
     KEPT, SAFETY),
    ("M_SPARE_DETACH_QUIET", "nor signals it", "LIFE PATIENCE TAKES=1 OPS=1 CALLERS=1", KEPT, SAFETY),
    ("M_LEAVES_SPARE", "the worker of a detached core frees it beside the standby",
     "LIFE PATIENCE TAKES=1 OPS=1 CALLERS=1", FREED, SAFETY),
    ("M_SPARE_FREES_NOT", "the standby that leaves last does not free it", "LIFE PATIENCE TAKES=1 OPS=1 CALLERS=1",
     KEPT, SAFETY),
    ("M_PERIOD_SETTLED", "a launch has nothing armed for a moment", "LIFE PERIODIC OPS=1 CALLERS=1 CMAX=4", "live==0",
     SAFETY),
    ("M_GRID_LATE", "missed periods are made up", "PERIODIC OPS=1 CALLERS=1 CMAX=4", "deadline[t]>clock", SAFETY),
    ("M_CALLED_TWICE", "a call begins beside one that runs", "PERIODIC PATIENCE BLOCKS=1 OPS=1 CALLERS=1 CMAX=4",
     "calls==0", SAFETY),
    ("M_CALLING_KEPT", "a call that has returned still runs", "PERIODIC OPS=1 CALLERS=1 CMAX=4", "calls>0", SAFETY),
    ("M_SKIPPED_FORGOTTEN", "after a call that was skipped no other comes",
     "PERIODIC PATIENCE BLOCKS=1 OPS=1 CALLERS=1 CMAX=4", "period==0", SAFETY),
    ("M_HEAD_FIRST", "the entry is done with before there is room for the next key",
     "PERIODIC NOMEM=1 OPS=2 CALLERS=1 CMAX=4", "said[0]", SAFETY),
    ("M_CALL_UNHELD", "the worker calls without a reference to the handle", "PERIODIC OPS=2 CALLERS=1 CMAX=4", HANDLE,
     SAFETY),
    ("M_JOB_KEPT", "stop does not call off a job that waits", "PERIODIC EXECUTOR OPS=2 CALLERS=1 CMAX=4", "called_off",
     SAFETY),
    ("M_SIGNAL_SKIPPED", "an earlier deadline does not signal", "CALLERS=1 OPS=2 CMAX=3 LIVENESS", CYCLE,
     LIVENESS_ALONE),
    ("M_NO_REKEY", "the worker sleeps until the stale key of its root", "CALLERS=1 OPS=2 CMAX=3", SPIN, LOOPS),
    ("M_READY_KEPT", "arming goes on relying on a worker that has left", "CALLERS=1 OPS=1 CMAX=2 FORKS=1", SPIN,
     LOOPS_ALONE),
]


class Outcome:
    """What the verifier said."""

    def __init__(self, text, seconds):
        self.text = text
        self.seconds = seconds
        self.states = self.number(r"([\d.e+]+) states, stored")
        self.depth = self.number(r"depth reached (\d+)")
        self.errors = self.number(r"errors: (\d+)")
        self.memory = self.number(r"([\d.]+)\s+total actual memory usage")
        # A search that ran out of depth or memory has proved nothing.
        self.complete = self.errors is not None and "Search not completed" not in text \
            and "max search depth too small" not in text
        found = re.search(r"^pan:\d+: (.*)", text, re.MULTILINE)
        self.objection = re.sub(r"\s*\(at depth \d+\)", "", found[1]).strip() if found else ""

    def number(self, pattern):
        found = re.search(pattern, self.text)
        return float(found[1]) if found else None


def quietly(command, cwd):
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}")
    return done.stdout


def check(directory, defines, search, optimize):
    """Generate, compile and run one verifier."""
    compiler, verifier = search
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    shutil.copy(MODEL, directory)
    quietly(["spin", "-a", *(f"-D{define}" for define in defines), MODEL.name], directory)
    if not (directory / "pan.c").exists():
        sys.exit(f"spin wrote no verifier in {directory}")
    quietly([os.environ.get("CC", "gcc"), optimize, "-w", f"-DMEMLIM={MEGABYTES}", *compiler, "-o", "pan", "pan.c"],
            directory)
    start = time.monotonic()
    text = subprocess.run(["./pan", f"-m{DEPTH}", "-w24", *verifier], cwd=directory, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    return Outcome(text, time.monotonic() - start)


def replay(directory, defines):
    flags = " ".join(f"-D{define}" for define in defines)
    return f"the steps: cd {directory} && spin -t -p -g {flags} {MODEL.name}"


def run_configurations(build, wanted):
    failed = 0
    for name, shows, parameters, search in CONFIGURATIONS:
        if not wanted(name):
            continue
        directory = build / name.replace(",", "").replace(" ", "-")
        defines = parameters.split()
        got = check(directory, defines, search, "-O2")
        if got.errors is None:
            sys.exit(f"{name}: the verifier did not come to its end\n{got.text}")
        holds = got.complete and got.errors == 0
        failed += not holds
        print(f"{'ok' if holds else 'FAILED':6} {name:25} {got.states:11,.0f} states  depth {got.depth:4.0f}"
              f"  errors {got.errors:.0f}  {got.seconds:5.1f} s  {got.memory:5.0f} MB  {shows} [{parameters}]",
              flush=True)
        if not holds:
            print(f"       {got.objection or 'the search was not complete'}\n       {replay(directory, defines)}",
                  flush=True)
        (directory / "pan").unlink()
    return failed


def run_mutants(build, wanted):
    missed = 0
    for name, wrong, parameters, objection, search in MUTANTS:
        if not wanted(name):
            continue
        directory = build / name
        got = check(directory, [*parameters.split(), name], search, "-O0")
        found = bool(got.errors) and objection in got.objection
        missed += not found
        print(f"{'found' if found else 'NOT FOUND':9} {name:21} {got.seconds:5.1f} s  {wrong}: "
              f"{got.objection or 'no objection'}", flush=True)
        (directory / "pan").unlink()
    return missed


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="a regular expression for the names of what is run")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "model")
    arguments = parser.parse_args()
    for tool, package in (("spin", "spin"), (os.environ.get("CC", "gcc"), "gcc")):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not installed; on Debian: apt install {package}")

    def wanted(name):
        return re.search(arguments.only, name) is not None

    start = time.monotonic()
    failed = run_configurations(arguments.build, wanted)
    missed = run_mutants(arguments.build, wanted)
    print(f"model: {failed} configurations failed, {missed} mutants not found, {time.monotonic() - start:.0f} s")
    return 1 if failed or missed else 0


if __name__ == "__main__":
    sys.exit(main())
