"""Processes that are measured: raised in priority, pinned, and never left behind."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time


def raise_priority():
    """Runs in the child. Nice values count within a session only, so it gets one of its own."""
    with contextlib.suppress(OSError):
        os.setsid()
        pathlib.Path("/proc/self/autogroup").write_text("-15")
    with contextlib.suppress(OSError):
        os.nice(-15)


def stop_on_signals():
    """Turns the first signal into an exception, so that everything that was begun is undone."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number, _frame):
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for each in signals:
        signal.signal(each, stop)


def output(command, core):
    """What a command prints, run on one core, or on all when that is None."""
    pinned = command if core is None else ["taskset", "-c", str(core), *command]
    with subprocess.Popen(pinned, stdout=subprocess.PIPE, text=True,
                          preexec_fn=raise_priority) as child:
        try:
            text = child.communicate()[0]
        except BaseException:
            child.terminate()
            child.wait()
            raise
    if child.returncode:
        raise SystemExit(f"failed with {child.returncode}: {' '.join(command)}")
    return text


@contextlib.contextmanager
def daemon(command, log, ready):
    """A command that runs until the block ends; it has said `ready` when the block begins."""
    with open(log, "w", encoding="utf-8") as sink:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sink,
                                 stderr=subprocess.STDOUT, preexec_fn=raise_priority)
    try:
        deadline = time.monotonic() + 120
        while ready not in (said := pathlib.Path(log).read_text(errors="replace")):
            if child.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"did not start: {' '.join(command)}\n{said[-3000:]}")
            time.sleep(0.05)
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
        child.wait()
        child.stdin.close()


@contextlib.contextmanager
def huge_pages(megabytes):
    """Sees to free huge pages of 2 MiB while the block runs; yields whether there are enough."""
    setting = pathlib.Path("/proc/sys/vm/nr_hugepages")
    before = raised = setting.read_text()
    total, free = (meminfo(f"HugePages_{what}") for what in ("Total", "Free"))
    # What others take meanwhile is not to be missed: culvert uses huge pages as well.
    needed = megabytes // 2 + 128
    if free < needed:
        with contextlib.suppress(OSError):
            setting.write_text(str(total - free + needed))
            raised = setting.read_text()
    try:
        yield meminfo("HugePages_Free") >= needed
    finally:
        # Not when somebody else has changed it since.
        if raised != before and setting.read_text() == raised:
            setting.write_text(before)


def meminfo(name):
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def cpu_clock(pid):
    """The clock of a process's CPU time, as clock_getcpuclockid(3) has it.

    The accounts in /proc are only as fine as the kernel's tick.
    """
    return (~pid << 3) | 2


def tsc_ticks_per_nanosecond():
    """The kernel derives BogoMIPS from the frequency of the TSC."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("bogomips"):
            return float(line.split(":")[1]) / 2 / 1e3
    raise SystemExit("no bogomips in /proc/cpuinfo")
