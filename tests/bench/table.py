"""Prints the benchmark's table: table.py BARS RESULTS PEER...

Results are lines of metric, peer, value and peak memory (MiB, drivefs only); bars are in bars.tsv.
"""

import re
import statistics
import sys


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                yield line.rstrip("\n").split("\t")


def figure(value):
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def judge(bar, medians):
    """One bar: its text with what was found, and whether it is met (None: not measured)."""
    peer, sign, number = re.fullmatch(r"([a-z0-9]*)(>=|<)([0-9.]+)", bar).groups()
    own, other = medians.get("drivefs"), medians.get(peer) if peer else 1.0
    if own is None or not other:
        return f"{bar}: not measured", None
    found = own / other
    met = found >= float(number) if sign == ">=" else found < float(number)
    if not peer:
        return f"{bar}: {'met' if met else 'MISSED'}", met
    return f"{bar}: {found:.2f} {'met' if met else 'MISSED'}", met


def main():
    bars_path, results_path, *peers = sys.argv[1:]
    values, memory = {}, {}
    for metric, peer, value, mib in read_lines(results_path):
        values.setdefault((metric, peer), []).append(float(value))
        if mib:
            memory[metric] = max(memory.get(metric, 0), int(mib))
    head = ["work", "unit", *peers, "peak MiB", *(f"to {p}" for p in peers if p != "drivefs"), "bars"]
    rows, counts = [], {True: 0, False: 0, None: 0}
    for line in read_lines(bars_path):
        metric, what, unit, bars = (line + [""])[:4]
        medians = {p: statistics.median(values[metric, p]) for p in peers if (metric, p) in values}
        if not medians:
            continue
        own = medians.get("drivefs")
        row = [what, unit, *(figure(medians.get(p)) for p in peers)]
        row.append(str(memory.get(metric, "-")))
        row += [
            f"{own / medians[p]:.2f}" if own is not None and medians.get(p) else "-"
            for p in peers
            if p != "drivefs"
        ]
        judged = [judge(bar, medians) for bar in bars.split()]
        for _, met in judged:
            counts[met] += 1
        row.append("; ".join(text for text, _ in judged) or "-")
        rows.append(row)
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    last = len(head) - 1

    def show(row):
        cells = [c.ljust(w) if i in (0, 1, last) else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))]
        print("| " + " | ".join(cells) + " |")

    show(head)
    print("|" + "|".join("-" * (w + 2) if i in (0, 1, last) else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|")
    for row in rows:
        show(row)
    print()
    print(f"bars: {counts[True]} met, {counts[False]} missed, {counts[None]} not measured")


main()
