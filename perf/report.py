"""The page: Markdown and SVG plots from what run.py has measured.

python perf/report.py DIRECTORY
"""

import json
import statistics
import sys
from pathlib import Path

import arrays
import pyperf

COLOURS = {
    "timerheap": "#c1121f", "Go": "#0077b6", "asyncio": "#2a9d8f", "uvloop": "#8338ec", "gevent": "#e09f3e",
    "Twisted": "#6c757d",    "kombu": "#bc6c25", "sched": "#90be6d", "heapq": "#d16ba5", "threading.Timer": "#000000",
}  # fmt: skip
MILLION = 1_000_000


def nanoseconds(directory):
    """{(subject, operation, size): median ns of an operation}."""
    suite = pyperf.BenchmarkSuite.load(str(directory / "timers.json.gz"))
    found = {}
    for benchmark in suite.get_benchmarks():
        subject, operation, size = benchmark.get_name().rsplit("/", 2)
        found[subject, operation, int(size)] = 1e9 * benchmark.median()
    return found


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def ordered(names):
    return [name for name in COLOURS if name in names]


def figure(value, digits=0):
    return "" if value is None else f"{value:,.{digits}f}"


def ratio(ours, theirs):
    if not ours or not theirs:
        return ""
    return f"{theirs / ours:.1f}x" if theirs < 100 * ours else f"{theirs / ours:,.0f}x"


def operations_table(ns, size):
    """A row an operation, a column a subject; the peers' figures with how many times ours they are."""
    subjects = ordered({subject for subject, _, at in ns if at == size})
    operations = list(dict.fromkeys(operation for subject, operation, at in ns if at == size and subject != "Go"))
    rows = []
    for operation in operations:
        ours = ns.get(("timerheap", operation, size))
        peers = [ns.get((name, operation, size)) for name in subjects if name != "timerheap"]
        if ours or any(peers):
            rows.append(
                [
                    operation,
                    figure(ours),
                    *(f"{figure(peer)} ({ratio(ours, peer)})" if peer and ours else figure(peer) for peer in peers),
                ]
            )
    return table([f"ns at {size:,}", *subjects], rows)


def bars(ns, late, rows, rest):
    """The project's own bars, and what this run says of each."""
    at = {
        operation: ns.get(("timerheap", operation, MILLION))
        for operation in ("arm", "arm_stop", "reset", "stop", "fire", "walk", "walk_reset")
    }
    found = []

    def bar(what, value, limit, digits=2, unit=""):
        verdict = "" if value is None else "holds" if value <= limit else "**missed**"
        found.append([what, figure(value, digits) + unit, f"<= {limit}{unit}", verdict])

    def against(operation, peer, limit, ours=None):
        theirs = ns.get((peer, operation, MILLION))
        value = (ours or at[operation]) / theirs if theirs and at[operation] else None
        bar(f"{operation}, of {peer}'s", value, limit, 3 if limit < 0.2 else 2)

    for operation in ("arm", "arm_stop"):
        against(operation, "Go", 1.0)
        against(operation, "asyncio", 0.05)
    against("reset", "Go", 1.5)
    against("stop", "Go", 1.6)
    against("reset", "asyncio", 0.1)
    against("stop", "asyncio", 0.4)
    for operation, floor in (("reset", "walk_reset"), ("stop", "walk")):
        if at[operation] and at[floor]:
            bar(f"{operation}, of a walk that does nothing", at[operation] / at[floor], 1.5)
    against("fire", "Go", 0.7)
    against("fire", "asyncio", 0.25)
    against("fire", "uvloop", 0.5)
    for row in rows:
        if row["subject"] == "timerheap" and row["count"] == MILLION:
            bar(
                "bytes a timer, handle " + ("held" if row["held"] else "dropped"),
                round(row["rss"], 1),  # a page more or less says nothing
                104 if row["held"] else 56,
                1,
            )
            bar(
                "gc.collect() more, handles " + ("held in a list" if row["held"] else "dropped"),
                row["gc_ms"],
                2,
                1,
                " ms",
            )
            if row["held"]:
                found.append(
                    ["the same for bytes objects as large as handles", figure(row["gc_plain_ms"], 1) + " ms", "", ""]
                )
    for operation, limit in (("arm_stop", 3), ("fire", 4)):
        small, large = ns.get(("timerheap", operation, 1000)), ns.get(("timerheap", operation, 10 * MILLION))
        bar(f"{operation}, 10M of 1k", large / small if small and large else None, limit)
    by = {(row["subject"], row["scenario"]): row for row in late["rows"]}
    ours, gos = by.get(("timerheap", "idle")), by.get(("Go", "idle"))
    if ours and gos:
        bar("lateness idle, p50 of Go's", ours["p50"] / gos["p50"], 0.2, 3)
        bar("lateness idle, p99 of Go's", ours["p99"] / gos["p99"], 0.3, 3)
    for scenario in ("computing", "computing, main"):
        ours = by.get(("timerheap", scenario))
        for peer, limit in (("Go", 0.3), ("asyncio", 0.03)):
            theirs = by.get((peer, scenario))
            if ours and theirs:
                bar(f"lateness {scenario}, p50 of {peer}'s", ours["p50"] / theirs["p50"], limit, 3)
        if ours:
            bar(f"lateness {scenario}, p90", ours["p90"] / 1000, 1, 2, " ms")
    bar("early timers", sum(row["early"] for row in late["rows"] if row["subject"] == "timerheap"), 0, 0)
    for name, figures in rest["stalls"].items():
        bar(f"longest call, {name}", figures["max_us"] / 1000, 5, 2, " ms")
    bar("import, over threading", rest["import_ms"], 15, 1, " ms")
    bar("package zipped", rest["zipped_kb"], 500, 0, " KB")
    return table(["figure", "this run", "bar", ""], found)


def lateness_tables(late):
    for scenario in dict.fromkeys(row["scenario"] for row in late["rows"]):
        rows = [row for row in late["rows"] if row["scenario"] == scenario]
        yield table(
            [f"{scenario}, us", "timers", "early", "p50", "p90", "p99", "p99.9", "max"],
            [
                [
                    row["subject"],
                    row["timers"],
                    row["early"],
                    *(figure(row[key]) for key in ("p50", "p90", "p99", "p99.9", "max")),
                ]
                for row in rows
            ],
        )


def footprint_tables(found):
    subjects = ordered({row["subject"] for row in found["rows"]})
    counts = sorted({row["count"] for row in found["rows"]})
    cells = {(row["subject"], row["count"], row["held"]): row for row in found["rows"]}
    yield table(
        ["bytes a timer, held / dropped", *(f"{count:,}" for count in counts)],
        [
            [
                name,
                *(
                    " / ".join(figure(cells[name, count, held]["rss"], 1) for held in (True, False))
                    if (name, count, True) in cells
                    else ""
                    for count in counts
                ),
            ]
            for name in subjects
        ],
    )
    million = [row for row in found["rows"] if row["count"] == MILLION]
    yield table(
        ["at a million", "handle", "bytes", "peak above", "after stop", "gc.collect(), ms"],
        [
            [
                row["subject"], "held" if row["held"] else "dropped", figure(row["rss"], 1), figure(row.get("peak"), 1),
                figure(row.get("after_stop"), 1), figure(row.get("gc_ms"), 1),
            ]
            for row in million
        ],
    )  # fmt: skip
    splits = [row for row in million if "split" in row]
    if splits:
        yield table(
            ["timerheap's bytes", *splits[0]["split"]],
            [
                ["held" if row["held"] else "dropped", *(figure(size, 1) for size in row["split"].values())]
                for row in splits
            ],
        )
    yield table(
        ["", "B/op", "allocs/op"],
        [
            [f"{name}, {operation}", figure(size, 1), figure(blocks, 2)]
            for name, operations in found["allocations"].items()
            for operation, (size, blocks) in operations.items()
        ],
    )


# A page shows a plot some 800 px wide: eight inches of it, so that 9 points are 12 px, and no exponents, which are
# smaller than other letters.
WIDTH = 8  # inches
COLUMNS = 2


def short(value, _=None):
    """A number as a few letters: 30k, 10M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def spent(ns, _=None):
    """A duration of so many nanoseconds: 100 ns, 10 us."""
    for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if ns >= size:
            return f"{ns / size:g} {unit}"
    return f"{ns:g} ns"


def axes(titles, xlabel, ylabel, height=2.5):
    """A chart with a panel a title, two in a row, and a legend below them to come."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "timerheap", "font.size": 9, "axes.titlesize": 10})
    from matplotlib import pyplot

    columns = min(COLUMNS, len(titles))
    rows = -(-len(titles) // columns)
    size = (WIDTH, height * rows + 0.6)
    chart, panels = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for panel in panels.flat[len(titles) :]:
        panel.remove()
    for panel, title in zip(panels.flat, titles, strict=False):
        panel.set_title(title)
        panel.set_xlabel(xlabel)
        panel.grid(alpha=0.3)
    for panel in panels[:, 0]:
        panel.set_ylabel(ylabel)
    return chart, panels.flat[: len(titles)]


def plain(axis, scale, form, **how):
    """Give an axis that scale, and labels of that form."""
    getattr(axis.axes, f"set_{axis.axis_name}scale")(scale, **how)
    axis.set_major_formatter(form)


def line(panel, xs, ys, name, **how):
    """A subject's line; timerheap's is the one that is looked for."""
    ours = name == "timerheap"
    panel.plot(xs, ys, label=name, color=COLOURS[name], linewidth=2.2 if ours else 1.3, zorder=3 if ours else 2, **how)


def finish(chart, panels, path):
    found = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    chart.legend(found.values(), found, loc="outside lower center", ncols=5, frameon=False)
    chart.savefig(path, metadata={"Date": None})


def plot_operations(ns, path):
    operations = ("arm_stop", "reset", "stop", "fire")
    chart, panels = axes(operations, "timers pending", "an operation")
    for panel, operation in zip(panels, operations, strict=True):
        plain(panel.xaxis, "log", short)
        plain(panel.yaxis, "log", spent)
        for name in ordered({subject for subject, _, _ in ns}):
            points = sorted(
                (size, value) for (subject, what, size), value in ns.items() if (subject, what) == (name, operation)
            )
            if points:
                line(panel, *zip(*points, strict=True), name, marker="o", markersize=3)
    finish(chart, panels, path)


def plot_footprint(found, path):
    chart, panels = axes(("handles held", "handles dropped"), "timers", "bytes a timer", height=3)
    for panel, held in zip(panels, (True, False), strict=True):
        plain(panel.xaxis, "log", short)
        plain(panel.yaxis, "log", short)
        for name in ordered({row["subject"] for row in found["rows"]}):
            points = [
                (row["count"], row["rss"]) for row in found["rows"] if (row["subject"], row["held"]) == (name, held)
            ]
            line(panel, *zip(*points, strict=True), name, marker="o", markersize=3)
    finish(chart, panels, path)


def plot_lateness(late, path):
    scenarios = list(dict.fromkeys(row["scenario"] for row in late["rows"]))
    chart, panels = axes(scenarios, "us late", "share of the timers", height=2.2)
    for panel, scenario in zip(panels, scenarios, strict=True):
        plain(panel.xaxis, "symlog", short, linthresh=10)
        for row in late["rows"]:
            if row["scenario"] == scenario:
                line(panel, row["quantiles"], [i / 200 for i in range(201)], row["subject"])
    finish(chart, panels, path)


# Of the figures of TimerArray, what the page calls them, and the unit where it is not ns.
ARRAY_FIGURES = {
    "arm": "arm all, into an empty heap, slots in order",
    "arm_shuffled": "the same, slots shuffled",
    "reset_later": "reset all to later, shuffled",
    "reset": "reset all to a random deadline, shuffled",
    "stop": "stop all, shuffled, with the sweep",
    "fire": "fire all, spread over a second, after a hold-up",
    "fire_spread": "fire all within a second, processor time",
    "fire_spread_tolerant": "the same with half a millisecond of tolerance",
    "one_hot": "reset a single slot, the same again and again",
    "one_cold": "reset a single slot to a random deadline, shuffled",
    "calls_of_16": "reset to later, 16 slots a call, shuffled",
    "calls_of_256": "reset to later, 256 slots a call, shuffled",
    "bytes": "bytes a timer, handles held",
    "late": "timers beside calls for all slots, the latest, ms",
    "late_call": "calls beside them, the longest, ms",
}
ARRAY_COLOURS = {"TimerArray": "#c1121f", "AfterFunc": "#e0949a", "Go": COLOURS["Go"]}


def array_tables(found):
    """TimerArray's figures, {figure: {subject: values}}, and the bars that are set for them."""
    middle = arrays.medians(found)
    subjects = [name for name in ARRAY_COLOURS if any(subject == name for _, subject in middle)]
    rows = []
    for name, title in ARRAY_FIGURES.items():
        ours = middle.get((name, "TimerArray"))
        if ours is not None:
            others = [middle.get((name, subject)) for subject in subjects if subject != "TimerArray"]
            cells = [f"{figure(other, 1)} ({ratio(ours, other)})" if other else "" for other in others]
            rows.append([title, figure(ours, 1), *cells])
    yield table(["median, ns a timer", *subjects], rows)
    rows = []
    for name, peer, most in arrays.BARS:
        ours, theirs = middle.get((name, "TimerArray")), middle.get((name, peer))
        if ours and theirs:
            verdict = "holds" if ours / theirs <= most else "**missed**"
            rows.append([ARRAY_FIGURES[name], peer, figure(ours / theirs, 3), f"<= {most}", verdict])
    for name, most in arrays.LIMITS:
        ours = middle.get((name, "TimerArray"))
        if ours is not None:
            rows.append(
                [ARRAY_FIGURES[name], "", figure(ours, 1), f"<= {most}", "holds" if ours <= most else "**missed**"]
            )
    if rows:
        yield table(["bar", "of whose", "this run", "", ""], rows)


def plot_arrays(found, path):
    middle = arrays.medians(found)
    names = [name for name in ARRAY_FIGURES if (name, "TimerArray") in middle and not name.startswith("late")][::-1]
    chart, (panel,) = axes(("ns a timer; bytes a timer",), "", "", height=0.45 * len(names))
    plain(panel.xaxis, "log", short)
    panel.margins(y=0.02)
    for at, (subject, colour) in enumerate(ARRAY_COLOURS.items()):
        places = [i for i, name in enumerate(names) if (name, subject) in middle]
        values = [middle[names[i], subject] for i in places]
        panel.barh([i + 0.27 * (1 - at) for i in places], values, height=0.25, label=subject, color=colour)
    panel.set_yticks(range(len(names)), [ARRAY_FIGURES[name] for name in names])
    finish(chart, [panel], path)


def arrays_section(directory):
    """The part of the page about TimerArray; nothing where it has not been measured."""
    path = directory / "arrays.json"
    if not path.exists():
        return []
    measured = json.loads(path.read_text())
    found, machine = measured["figures"], measured["machine"]
    plot_arrays(found, directory / "arrays.svg")
    rounds = max(len(values) for row in found.values() for values in row.values())
    text = (
        f"{measured['count']:,} timers by number, beside as many AfterFuncs and Go's, by handle; in brackets how many "
        f"times the array's figure it is. A fresh process a figure, subjects in turns, {rounds} rounds. "
        f"{machine['python']}; {machine['date']}, commit {machine['commit']}; {machine['system']}.\n"
    )
    plot = "![ns a timer, by TimerArray, AfterFunc and Go](arrays.svg)\n"
    return ["## TimerArray\n", text, plot, *array_tables(found)]


# Of asyncio's figures: (digits, unit), what the page calls them.
FIGURES = {
    "call_later": (0, "call_later, ns"),
    "call_later_1m": (0, "call_later, a million pending, ns"),
    "call_later_cancel": (0, "call_later and cancel"),
    "cancel_later": (0, "cancelled 1,000 later, 100,000 pending"),
    "cancel_among": (0, "cancelled 1,000 later, among deadlines like its own"),
    "fire": (0, "fire, each of 100,000 with one delay"),
    "fire_apart": (0, "fire, each of 100,000 with random delays"),
    "timeout": (0, "async with asyncio.timeout(60), 100,000 pending"),
    "timeout_native": (0, "async with timerheap.asyncio.timeout(60)"),
    "task": (0, "a task that ends at once, of 100,000"),
    "sleep": (0, "a task in asyncio.sleep, of 100,000 with one delay"),
    "sleep_native": (0, "a task in timerheap.asyncio.sleep, with one delay"),
    "sleep_apart": (0, "a task in asyncio.sleep, of 100,000 with random delays"),
    "sleep_apart_native": (0, "a task in timerheap.asyncio.sleep, with random delays"),
    "gc_held": (1, "gc.collect(), a million pending, handles held, ms"),
    "gc_dropped": (1, "gc.collect(), a million pending, handles dropped, ms"),
    "dropped": (1, "gc.collect() that frees a loop with a million, ms"),
    "dropped_bytes": (1, "bytes a timer that are left after it"),
    "bytes": (1, "bytes a timer, handle and context included"),
    "late": (0, "late, a single sleep, p50, us"),
    "late_early": (0, "early, of 100"),
    "late_cpu": (1, "processor time of a single sleep, us"),
    "echo": (1, "echo, asyncio.timeout around each read, us a request"),
    "echo_native": (1, "echo, timerheap.asyncio.timeout, us a request"),
}
# (figure, loop, the asyncio figure and the loop that it is set against, so many times better at least)
GAINS = [
    *((figure, "timerheap", figure, peer, times)
      for figure, stock, zuvloop in (
          ("call_later", 6, 2), ("call_later_1m", 6, 2), ("call_later_cancel", 7, 1.3), ("cancel_later", 10, 1.3),
          ("fire", 12, 1.8), ("timeout", 2, 0.9))
      for peer, times in (("asyncio", stock), ("zuvloop", zuvloop))),
    ("timeout_native", "timerheap", "timeout", "asyncio", 4),
    ("timeout_native", "timerheap", "timeout", "zuvloop", 2.5),
    ("sleep_apart_native", "timerheap", "sleep_apart", "asyncio", 5),
    ("sleep_apart_native", "timerheap", "sleep_apart", "zuvloop", 3),
    ("gc_held", "timerheap", "gc_held", "asyncio", 6),
    ("late", "timerheap", "late", "asyncio", 1 / 0.35),
    ("echo", "timerheap", "echo", "asyncio", 1 / 1.05),
    ("echo", "timerheap over uvloop", "echo", "uvloop", 1 / 0.9),
]  # fmt: skip
LIMITS = [("gc_dropped", "timerheap", 15), ("bytes", "timerheap", 190),
          ("late_early", "timerheap", 0), ("late_early", "timerheap over uvloop", 0)]  # fmt: skip


def best_of(found):
    """{(figure, loop): the best of its values, or of what is early the most}."""
    return {
        (name, loop): (max if name == "late_early" else min)(values)
        for name, row in found.items()
        for loop, values in row.items()
    }


def event_loop_tables(found):
    """asyncio's figures, {figure: {loop: values}}, and the bars that are set for them."""
    loops = list(dict.fromkeys(loop for values in found.values() for loop in values))
    best = best_of(found)
    rows = []
    for name, row in found.items():
        digits, title = FIGURES[name]
        middle = {loop: figure(statistics.median(values), digits) for loop, values in row.items()}
        cells = [f"{figure(best[name, loop], digits)} ({middle[loop]})" if loop in row else "" for loop in loops]
        rows.append([title, *cells])
    yield table(["best (median)", *loops], rows)
    rows = []
    for name, loop, other, peer, least in GAINS:
        ours, theirs = best.get((name, loop)), best.get((other, peer))
        if ours and theirs:
            verdict = "holds" if theirs / ours >= least else "**missed**"
            rows.append([f"{loop}: {FIGURES[name][1]}", peer, f"{theirs / ours:.2f}x", f">= {least:.3g}x", verdict])
    for name, loop, most in LIMITS:
        value = best.get((name, loop))
        if value is not None:
            verdict = "holds" if round(value, 1) <= most else "**missed**"
            rows.append([f"{loop}: {FIGURES[name][1]}", "", figure(value, FIGURES[name][0]), f"<= {most}", verdict])
    if rows:
        yield table(["bar", "set against", "this run", "", ""], rows)


def asyncio_section(directory):
    """The part of the page about asyncio's timers; nothing where they have not been measured."""
    path = directory / "asyncio.json"
    if not path.exists():
        return []
    measured = json.loads(path.read_text())
    found, machine = measured["figures"], measured["machine"]
    rounds = max(len(values) for row in found.values() for values in row.values())
    return [
        "## asyncio\n",
        "What an unchanged program of asyncio's gains by the loop alone: `asyncio` is the stock SelectorEventLoop, "
        "`timerheap` is timerheap.asyncio.EventLoop, `timerheap over uvloop` is loop_class(uvloop.Loop). Processor "
        "time, ns an operation where no unit is given; a fresh process a figure, loops in turns, "
        f"{rounds} rounds; early is the most of any round. {machine['python']}; {machine['date']}, commit "
        f"{machine['commit']}; {machine['system']}. "
        + "; ".join(f"{name} ({what})" for name, what in measured["versions"].items())
        + ".\n",
        *event_loop_tables(found),
        *what_stays(best_of(found)),
    ]


def what_stays(best):
    """What a server does not gain, in words; nothing where the echo server was not measured."""
    stock, ours = best.get(("echo", "asyncio")), best.get(("echo", "timerheap"))
    entered = [best.get(("timeout", loop)) for loop in ("asyncio", "timerheap")]
    if not all((stock, ours, *entered)):
        return []
    gained = f"{100 * abs(1 - ours / stock):.0f} % {'less' if ours <= stock else 'more'}"
    text = (
        "What a server does not gain: asyncio's own Python remains. The timers take "
        f"{(entered[0] - entered[1]) / 1000:.1f} us less a timeout, but of {entered[1] / 1000:.1f} us that are left "
        "most is asyncio's class Timeout, and a request passes through streams, transports, tasks and the "
        f"selector as before: the echo server spends {stock:.1f} us of processor time a request on the stock loop and "
        f"{ours:.1f} us here, {gained}. A program gains by its timers as much as it has of them.\n"
    )
    return [text]


def renewed(rest):
    """What of the page is from another run."""
    if "renewed" not in rest:
        return []
    machine = rest["renewed"]
    when = f"{machine['date']}, commit {machine['commit']}. {machine['python']}. {machine['system']}."
    return [f"How late timers are, and fire_spread_tolerant: {when}\n"]


def write(directory):
    """Write the page of a directory; its path."""
    directory = Path(directory)
    ns = nanoseconds(directory)
    late, memory, rest = (
        json.loads((directory / name).read_text()) for name in ("lateness.json", "footprint.json", "rest.json")
    )
    plot_operations(ns, directory / "operations.svg")
    plot_footprint(memory, directory / "footprint.svg")
    plot_lateness(late, directory / "lateness.svg")
    machine = rest["machine"]
    parts = [
        "# timerheap, measured\n",
        f"{machine['date']}, commit {machine['commit']}. {machine['python']}. {machine['system']}.\n",
        f"Medians of alternating processes, rounds: {rest['rounds']}; {rest['minutes']:.0f} minutes.\n",
        *renewed(rest),
        "How to read it: [perf/README.md](../README.md).\n",
        "Subjects: " + "; ".join(f"{name} ({what})" for name, what in rest["versions"].items()) + ".\n",
        "## The bars\n",
        bars(ns, late, memory["rows"], rest),
        "## Operations\n",
        "In brackets how many times timerheap's figure it is.\n",
        "![ns an operation against timers pending](operations.svg)\n",
    ]
    sizes = sorted({size for _, _, size in ns})
    parts += [
        operations_table(ns, size) for size in (MILLION, *(size for size in sizes if size != MILLION)) if size in sizes
    ]
    parts += ["## Lateness\n", "![distribution of lateness](lateness.svg)\n", *lateness_tables(late)]
    if late["wakeups"]:
        idle, resetting = late["wakeups"]["idle"], late["wakeups"]["resetting"]
        parts.append(
            f"With a million far timers armed the worker wakes {idle['worker']:.1f} times a second (the process "
            f"switches {idle['switches']:.1f} times), and {resetting['worker']:.1f} times while all of them are reset "
            "to later over and over.\n"
        )
    parts += ["## Memory\n", "![bytes a timer against timers](footprint.svg)\n", *footprint_tables(memory)]
    parts += arrays_section(directory)
    parts += asyncio_section(directory)
    parts += [
        "## The longest call\n",
        table(
            ["", "calls", "99.99 % within, us", "longest, us"],
            [
                [name, f"{found['calls']:,}", figure(found["p99.99_us"], 1), figure(found["max_us"], 1)]
                for name, found in rest["stalls"].items()
            ],
        ),
    ]
    page = directory / "README.md"
    page.write_text("\n".join(parts))
    return page


if __name__ == "__main__":
    print(write(sys.argv[1]))
