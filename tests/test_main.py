"""python -m timerheap: its report, its verdict, its exit status."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import threading
import time
from array import array

import pytest
from helpers import FAR, SANITIZER, no_threads

import timerheap
import timerheap.__main__ as command

SMALL = ("--timers", "2000", "--spread", "0.2")


def run(*arguments, cwd, **env):
    """python -m timerheap in a process of its own, outside the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "timerheap", *arguments],
        cwd=cwd,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def started(cwd, *arguments):
    """The command as a process that is under way."""
    return subprocess.Popen(
        [sys.executable, "-m", "timerheap", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def trial(capsys):
    """The main job in this process: its exit status and its report."""

    def call(*arguments):
        status = command.main([*SMALL, "--json", *arguments])
        return status, json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def unhurried(monkeypatch):
    """The first deadline lies a second behind the start of the set-up, which a busy machine may interrupt."""
    monkeypatch.setattr(command, "set_up_pace", lambda count: 0.5 / count)


def test_report_for_a_person(tmp_path):
    done = run(*SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("threads", "bytes a timer", "ns an arm", "lost        0", "lateness", "ok:"):
        assert word in done.stdout


def test_without_a_terminal_progress_is_plain_lines_on_stderr(tmp_path):
    done = run(*SMALL, cwd=tmp_path)
    assert done.stderr.splitlines() == [
        "arming: 2,000 timers",
        "stopping: 500 timers",
        "resetting: 500 timers",
        "firing: 1,500 timers",
    ]


def run_on_terminal(*arguments, cwd, **env):
    """python -m timerheap with a terminal for its stderr: what the terminal shows."""
    shown, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "timerheap", *arguments],
            cwd=cwd,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "100"} | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=terminal,
        )
    finally:
        os.close(terminal)
    seen = b""
    with process, open(shown, "rb", buffering=0) as screen:
        while True:
            try:
                seen += screen.read(4096)
            except OSError:  # the last holder of the other end has gone
                break
        assert process.stdout.read()
    assert process.returncode == 0, seen
    return seen.decode()


@pytest.mark.skipif(SANITIZER == "tsan", reason="the runtime has a thread of its own, which is counted")
def test_on_a_terminal_progress_is_bars(tmp_path):
    pytest.importorskip("rich")
    shown = run_on_terminal("threads", "--timers", "50", cwd=tmp_path)
    assert "AfterFunc" in shown
    assert "50/50" in shown
    assert "AfterFunc: 50 timers" not in shown


def test_on_a_terminal_without_rich_progress_is_plain_lines(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with command.progress() as bars:
        bars.phase("firing", 50)
        bars.done(50)
    assert capsys.readouterr().err == "firing: 50 timers\n"


@pytest.mark.parametrize("missing", [["smaps_rollup"], ["smaps_rollup", "statm"]])
def test_resident_memory_is_known_without_the_kernels_rollup(missing, monkeypatch):
    """As before Linux 4.14, or without /proc: then it is the most there ever was."""

    def refuse(path, *args, **kwargs):
        if path.removeprefix("/proc/self/") in missing:
            raise FileNotFoundError(path)
        return open(path, *args, **kwargs)

    exact = command.resident_bytes()
    monkeypatch.setattr(command, "open", refuse, raising=False)
    assert exact / 2 < command.resident_bytes()
    if "statm" not in missing:
        assert command.resident_bytes() < exact * 2


def test_threads_are_counted_without_the_kernel(monkeypatch):
    def refuse(path):
        raise FileNotFoundError(path)

    with timerheap.TimerHeap() as heap:
        before = threading.active_count()
        timerheap.AfterFunc(FAR, print, heap=heap)
        monkeypatch.setattr(command.os, "listdir", refuse)
        assert command.os_threads() == before + 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.4, "0 us"), (999, "999 us"), (1000, "1 ms"), (1500, "1.5 ms"), (2_500_000, "2.5 s")],
)
def test_a_time_is_told_in_the_unit_a_person_would_choose(value, text):
    assert command.microseconds(value) == text


def test_threads_that_the_system_refuses_are_told():
    with no_threads():
        started, release = command.thread_timers(50, command.Progress())
    release()
    row = {"started": started, "threads": 0, "bytes_per_timer": 0.0, "us_per_timer": 0.0}
    report = {"timers": 50, "AfterFunc": row | {"started": 50}, "threading.Timer": row}
    lines = list(command.describe_threads(report))
    assert started == 0
    assert [line.strip() for line in lines].count("the system refused more threads than these") == 1
    assert "refused" in lines[-1]


def test_report_survives_an_ascii_terminal(tmp_path):
    done = run(*SMALL, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "###" in done.stdout


@pytest.mark.skipif(SANITIZER == "tsan", reason="the runtime has a thread of its own, which is counted")
def test_json_has_the_same_for_a_program(tmp_path):
    done = run(*SMALL, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["timers"] == 2000
    assert report["threads"]["after"] == report["threads"]["before"] + 1
    assert (report["fired"], report["stopped"], report["reset"]) == (1500, 500, 500)
    assert (report["lost"], report["early"], report["extra"]) == (0, 0, 0)
    assert report["ok"] is True
    assert report["bytes_per_timer"].keys() == {"heap", "process"}
    assert report["ns"].keys() == {"arm", "stop", "reset"}
    late = report["late_us"]
    assert 0 <= late["p50"] <= late["p99"] <= late["max"]
    assert sum(row["count"] for row in late["histogram"]) == 1500 - report["set_up"]["left_out"]
    assert late["histogram"][-1]["up_to_us"] is None


def test_the_main_job_runs_on_an_array(tmp_path):
    done = run(*SMALL, "--array", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("bytes a timer", "by number", "10,000 slots a call", "fired       1,500   stopped 500", "ok:"):
        assert word in done.stdout
    assert done.stderr.splitlines()[-1] == "firing: 1,500 timers"


@pytest.mark.parametrize("behind", ["stop", "reset"])
def test_the_main_job_judges_each_slot_of_an_array(behind, trial, unhurried, monkeypatch):
    # Somebody stops a slot behind the back of the job, or makes it fire once more.
    class Array:
        def __init__(self, n, func, *, heap):
            self.timers = timerheap.TimerArray(n, func, heap=heap)
            self.heap = heap
            self.func = func

        def reset(self, slots, delays):
            self.timers.reset(slots, delays)
            if behind == "stop":
                self.timers.stop(7)
            else:
                self.again = timerheap.AfterFunc(delays[7], self.func, [7], heap=self.heap)

        def when(self):
            return self.timers.when()

    monkeypatch.setattr(command, "TimerArray", Array)
    status, report = trial("--array", "--stop", "0", "--reset", "0", "--patience", "0.5")
    assert (status, report["ok"], report["array"]) == (1, False, True)
    assert (report["lost"], report["extra"]) == ((1, 0) if behind == "stop" else (0, 1))
    assert report["fired"] == 2000 + report["extra"] - report["lost"]


@pytest.mark.parametrize("kind", [[], ["--array"]])
def test_shares_may_be_all_or_nothing(kind, trial, unhurried):
    status, report = trial(*kind, "--stop", "1", "--reset", "0")
    assert (status, report["stopped"], report["fired"]) == (0, 2000, 0)
    status, report = trial(*kind, "--stop", "0", "--reset", "1")
    assert (status, report["stopped"], report["reset"], report["fired"]) == (0, 0, 2000, 2000)


def test_a_lost_timer_fails_the_run(trial, monkeypatch):
    # A timer that somebody stops behind the back of the job never fires.
    def arm(*args, heap):
        timer = timerheap.AfterFunc(*args, heap=heap)
        if args[-1] == 7:
            timer.stop()
        return timer

    monkeypatch.setattr(command, "AfterFunc", arm)
    status, report = trial("--stop", "0", "--reset", "0", "--patience", "2")
    assert (status, report["ok"], report["lost"], report["fired"]) == (1, False, 1, 1999)


def test_a_timer_that_fires_twice_fails_the_run(trial, monkeypatch):
    def arm(*args, heap):
        if args[-1] == 7:
            timerheap.AfterFunc(*args, heap=heap)
        return timerheap.AfterFunc(*args, heap=heap)

    monkeypatch.setattr(command, "AfterFunc", arm)
    status, report = trial("--stop", "0", "--reset", "0")
    assert (status, report["ok"], report["extra"], report["fired"]) == (1, False, 1, 2001)


def test_an_early_timer_fails_the_run(trial, unhurried, monkeypatch):
    # A judge whose clock is behind sees every timer fire before its deadline.
    monkeypatch.setattr(command, "now", lambda: time.monotonic() - 30)
    status, report = trial()
    early = 1500 - report["set_up"]["left_out"]  # what fired before its deadline could be asked for is not judged by it
    assert (status, report["ok"], report["lost"], report["early"]) == (1, False, 0, early)
    assert early > 0


@pytest.mark.skipif(SANITIZER == "tsan", reason="the runtime has a thread of its own, which is counted")
def test_threads_compares_one_worker_with_a_thread_each(tmp_path):
    done = run("threads", "--timers", "50", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["AfterFunc"]["started"], report["AfterFunc"]["threads"]) == (50, 1)
    standard = report["threading.Timer"]
    assert (standard["started"], standard["threads"]) == (50, 50)
    assert "AfterFunc" in run("threads", "--timers", "50", cwd=tmp_path).stdout


def test_asyncio_compares_two_loops_on_one_program(tmp_path):
    done = run("asyncio", "--timers", "2000", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["asyncio: 2,000 timers", "timerheap: 2,000 timers"]
    report = json.loads(done.stdout)
    assert (report["timeouts"], report["ok"]) == (2000, True)
    for loop in ("asyncio", "timerheap"):
        row = report[loop]
        assert (row["early"], row["ok"]) == (0, True)
        assert row["us"].keys() == {"enter", "leave"}
        assert min(*row["us"].values(), row["gc_ms"], row["late_us_p50"]) > 0
    table = run("asyncio", "--timers", "20", cwd=tmp_path).stdout
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["asyncio", "timerheap"]


def test_asyncio_on_one_loop_happens_in_this_process(capsys):
    assert command.main(["asyncio", "--timers", "20", "--loop", "timerheap", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"timeouts", "timerheap", "ok"}


def test_asyncio_runs_on_the_loop_that_it_names(monkeypatch, capsys):
    import asyncio

    import timerheap.asyncio

    seen = []

    async def note(count, bars):
        seen.append(type(asyncio.get_running_loop()))
        return {"ok": True}

    monkeypatch.setattr(command, "many_timeouts", note)
    for loop in command.EVENT_LOOPS:
        assert command.main(["asyncio", "--loop", loop, "--json"]) == 0
    assert seen == [asyncio.SelectorEventLoop, timerheap.asyncio.EventLoop]


def test_asyncio_fails_where_a_timeout_is_early(monkeypatch, capsys):
    monkeypatch.setattr(command, "at_least", lambda earliest, delay: earliest + delay + 30)
    assert command.main(["asyncio", "--timers", "20", "--loop", "timerheap"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[2].split()[-1] == str(command.EXPIRING)
    assert out[-1] == "FAILED: a timeout was early"


@pytest.mark.parametrize(("status", "ends_as"), [(-9, command.OUT_OF_MEMORY), (command.UNWRITTEN, command.UNWRITTEN)])
def test_asyncio_ends_as_a_process_of_it_ended(status, ends_as, monkeypatch):
    ended = subprocess.CompletedProcess([], status, b"")
    monkeypatch.setattr(command.subprocess, "run", lambda *_, **__: ended)
    try:
        seen = command.main(["asyncio", "--timers", "20"])
    except SystemExit as exit_:
        seen = exit_.code
    assert seen == ends_as


def test_ctrl_c_ends_both_processes_of_asyncio(tmp_path):
    with started(tmp_path, "asyncio", "--timers", "1000000") as process:
        try:
            assert process.stderr.readline() == "asyncio: 1,000,000 timers\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)  # to the end of stderr, which the other process has too
        finally:
            process.kill()
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


@pytest.mark.skipif(SANITIZER == "tsan", reason="bash does not start with its runtime")
@pytest.mark.parametrize("report", [SMALL, ("threads", "--timers", "20"), ("asyncio", "--timers", "20"), ("info",),
                                    ("info", "--json"), ("--help",)])  # fmt: skip
@pytest.mark.parametrize("stdout", [">&-", ">&- 2>&-", ">&- <&-", ">/dev/full", "| :"])
def test_a_stdout_that_takes_nothing_ends_it_with_a_sentence(tmp_path, report, stdout):
    """Closed, also with the other streams, full, or without a reader."""
    command_line = f"{shlex.join([sys.executable, '-m', 'timerheap', *report])} {stdout}"
    if stdout == "| :":  # the reader has gone before anything is written: it opens and closes at once
        command_line = f"{{ sleep 1; exec {command_line.removesuffix(stdout)}; }} {stdout}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command_line], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == command.UNWRITTEN, done
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    if "2>&-" not in stdout:
        assert "the report could not be written: " in done.stderr.splitlines()[-1]
    assert done.stdout == ""


@pytest.mark.skipif(SANITIZER == "tsan", reason="bash does not start with its runtime")
@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full", "2>&- <&-"])
def test_a_stderr_that_takes_nothing_costs_the_progress_only(tmp_path, stderr):
    command_line = f"{shlex.join([sys.executable, '-m', 'timerheap', *SMALL, '--json'])} {stderr}"
    done = subprocess.run(
        ["bash", "-c", command_line], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["ok"] is True


def test_a_set_up_that_overruns_its_lead_is_told_and_left_out(trial, monkeypatch):
    reset = command.Trial._reset

    def slowly(self, bars):
        spent = reset(self, bars)
        time.sleep(self._lead + 0.5)
        return spent

    monkeypatch.setattr(command.Trial, "_reset", slowly)
    status, report = trial("--spread", "2")
    assert (status, report["lost"], report["early"], report["fired"]) == (0, 0, 0, 1500)
    set_up = report["set_up"]
    assert set_up["overran_s"] > 0
    assert set_up["left_out"] > 0
    assert sum(row["count"] for row in report["late_us"]["histogram"]) == 1500 - set_up["left_out"]
    lines = "\n".join(command.describe_trial(report))
    assert f"overran its lead of {set_up['lead_s']:.1f} s by {set_up['overran_s']:.1f} s: timers were due" in lines


def verdict(fired_at, *, set_up_end):
    """What is said of timers due at 1, 3, 4 and 5 that fired then: the report, and its lines about lateness."""
    job = command.Trial(command.parsed(["--timers", "4", "--stop", "0", "--reset", "0"]))
    job._deadlines[:] = array("d", [1, 3, 4, 5])
    job._fired_at[:] = array("d", fired_at)
    job._fired[:] = bytes(bool(at) for at in fired_at)
    job._set_up_end = set_up_end
    report = job._verdict()
    before = {
        "timers": 4, "array": False, "spread_s": 5.0, "threads": {"before": 1, "after": 2},
        "bytes_per_timer": {"heap": 1, "process": 1}, "ns": {"arm": 1, "stop": 1, "reset": 1},
    }  # fmt: skip
    lines = list(command.describe_trial(before | report))
    start = next(i for i, line in enumerate(lines) if line.startswith("lateness"))
    return json.loads(json.dumps(report)), lines[start:-1]


def test_what_queues_behind_a_late_set_up_is_left_out():
    report, lines = verdict([2.5, 4.5, 4.75, 5.00015], set_up_end=2.0)
    assert report["set_up"]["overran_s"] == 1.0
    assert report["set_up"]["left_out"] == 3
    assert report["late_us"]["p50"] == report["late_us"]["max"] == 150.0
    assert [(row["up_to_us"], row["count"]) for row in report["late_us"]["histogram"] if row["count"]] == [(200, 1)]
    assert lines[0] == "lateness    p50 150 us   p99 150 us   max 150 us"
    assert lines[2] == "  3 that waited for it, or behind those that did, are left out"


def test_lateness_is_not_told_where_all_queue_behind_the_set_up():
    report, lines = verdict([2.5, 4.5, 5.75, 6.5], set_up_end=2.0)
    assert report["set_up"]["left_out"] == 4
    assert report["late_us"]["p50"] is report["late_us"]["p99"] is report["late_us"]["max"] is None
    assert report["ok"] is True
    assert lines[0] == "lateness    not measured: none was on time yet"
    assert "1.0 s: timers were due before all were armed" in lines[1]


def test_after_a_set_up_in_time_nothing_is_left_out():
    """However late it is."""
    report, lines = verdict([1.5, 3.5, 4.5, 5.5], set_up_end=0.5)
    assert report["set_up"] == {"lead_s": 0.0, "overran_s": 0.0, "left_out": 0}
    assert report["late_us"]["p50"] == 500_000.0
    assert lines[0] == "lateness    p50 500 ms   p99 500 ms   max 500 ms"
    assert len(lines) == 1 + len(report["late_us"]["histogram"])


def test_where_nothing_fires_there_is_no_lateness():
    report, lines = verdict([0, 0, 0, 0], set_up_end=0.5)
    assert (report["fired"], report["lost"], report["late_us"]["max"]) == (0, 4, None)
    assert lines == ["lateness    not measured: none has fired"]


def test_the_lead_adapts_to_a_slow_machine(trial, monkeypatch):
    monkeypatch.setattr(command, "set_up_pace", lambda count: 0.0005)
    _, report = trial()
    assert report["set_up"]["lead_s"] == 0.2 + 2 * 0.0005 * 2000
    assert "overran" not in "\n".join(command.describe_trial(report))


def test_info_names_the_build(tmp_path):
    report = json.loads(run("info", "--json", cwd=tmp_path).stdout)
    assert report["timerheap"] == timerheap.__version__
    assert report["build"] in ("release", "debug")
    assert report["extension"] in run("info", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--timers", "0"),
        ("--timers", "many"),
        ("--timers", "1" + 20 * "0"),
        ("threads", "--timers", "1" + 20 * "0"),
        ("asyncio", "--timers", "0"),
        ("asyncio", "--loop", "uvloop"),
        ("--spread", "-1"),
        ("--spread", "inf"),
        ("--patience", "nan"),
        ("--stop", "1.5"),
        ("--stop", "0.6", "--reset", "0.6"),
        ("unknown",),
    ],
)
def test_a_bad_argument_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        command.main(arguments)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_timers_that_find_no_memory_end_in_a_sentence(monkeypatch, capsys):
    def take(*_):
        raise MemoryError

    monkeypatch.setattr(command, "Trial", take)
    assert command.main(["--timers", "10"]) == os.EX_OSERR
    assert capsys.readouterr() == ("", "timerheap: there is not enough memory for so many timers\n")


def test_ctrl_c_ends_it_cleanly(tmp_path):
    with started(tmp_path, "--timers", "1000", "--spread", "3600") as process:
        try:
            for line in process.stderr:
                if line.startswith("firing"):
                    break
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
