"""Compare two results files: python benchmarks/compare.py before.json after.json

Prints before / after for every timing that both have (above 1: after is faster), and both values of every figure.
"""

from __future__ import annotations

import argparse

from _bench import load


def compare(before: str, after: str) -> list[str]:
    """Return the lines of the comparison."""
    a, b = load(before), load(after)
    lines = []
    marks = [content.get("fingerprint", {}) for content in (a, b)]
    for key in ("processor", "cores", "python", "versions"):
        if marks[0].get(key) != marks[1].get(key):
            lines.append(f"not the same {key}: {marks[0].get(key)} against {marks[1].get(key)}")
    later = {(t["row"], t["case"]): t for t in b.get("timings", [])}
    for first in a.get("timings", []):
        second = later.pop((first["row"], first["case"]), None)
        if second is None:
            lines.append(f"only before: {first['row']} / {first['case']}")
            continue
        wall, cpu = first["seconds"] / second["seconds"], first["cpu"] / max(second["cpu"], 1e-9)
        # Quartiles that do not overlap: more than the noise of these two runs.
        clear = "*" if first["low"] > second["high"] or second["low"] > first["high"] else " "
        lines.append(f"{wall:7.3f}x{clear} CPU {cpu:7.3f}x  {first['row']} / {first['case']}")
    lines += [f"only after: {row} / {case}" for row, case in later]
    figures = {f["what"]: f for f in b.get("figures", [])}
    for figure in a.get("figures", []):
        second = figures.get(figure["what"])
        if second is not None:
            lines.append(f"{figure['value']:.4g} -> {second['value']:.4g} {figure['unit']}  {figure['what']}")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    args = parser.parse_args()
    print("\n".join(compare(args.before, args.after)))
