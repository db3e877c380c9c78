#!/usr/bin/env python3
"""Writes deploy/grafana/dashboards/*.json, the dashboards of Foretell for Grafana: change panels.py, then run this.

dashboards.py              write the files
dashboards.py --check      fail if a file differs from what this script writes, or names a metric or a label that
                           docs/metrics.md does not have
dashboards.py --queries    print all queries as a Prometheus rules file, whose syntax promtool checks

Uses only Python's standard library.
"""

import json
import re
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # `make check` writes nothing

from panels import DASHBOARDS  # noqa: E402
from render import dashboard  # noqa: E402

HERE = Path(__file__).resolve().parent
METRICS_PAGE = HERE.parent.parent / "docs" / "metrics.md"
SUFFIXES = ("_bucket", "_sum", "_count")


def known_metrics():
    """The metrics of docs/metrics.md, each with its labels and its type."""
    known = {}
    for line in METRICS_PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        name = re.fullmatch(r"`([a-z_0-9]+)`", cells[0].strip("| "))
        if not name or len(cells) < 3:
            continue
        labels = {part.split("`")[1] for part in cells[2].split(";") if "`" in part} if len(cells) > 3 else set()
        known[name.group(1)] = (labels, cells[1])
    return known


def faults_of(query, known):
    """Metrics and labels of a query that no instance exposes, and types that are used wrongly."""
    names = re.findall(r"\b((?:foretell|process)_[a-z_0-9]+)\b", query)
    faults, labels = [], set()
    for name in names:
        base = next(
            (name.removesuffix(end) for end in SUFFIXES if name.endswith(end) and name.removesuffix(end) in known), name
        )
        if base not in known:
            faults.append(f"there is no metric {name}")
            continue
        its_labels, kind = known[base]
        labels |= its_labels
        is_rate = re.search(rf"\b(?:rate|increase)\({re.escape(name)}\b", query)
        if (kind in ("counter", "histogram")) != bool(is_rate):
            faults.append(f"{name} is a {kind}: {'use rate or increase' if not is_rate else 'it has no rate'}")
    used = {label for group in re.findall(r"\bby \(([^)]*)\)", query) for label in group.split(", ")}
    used |= set(re.findall(r"[{,] ?([a-z_]+)=~?\"", query))
    faults += [
        f"none of its metrics has the label {label}" for label in sorted(used - labels - {"job", "instance", "le"})
    ]
    return faults


def check(files):
    """Prints what is wrong, and returns whether nothing is."""
    known, faults = known_metrics(), []
    if len(known) < 40:
        faults.append(f"found only {len(known)} metrics in {METRICS_PAGE}: is its format another?")
    shown = set()
    for _, title, _, specs in DASHBOARDS:
        for spec in (spec for spec in specs if "row" not in spec):
            for query, legend in spec["targets"]:
                wrong = faults_of(query, known)
                grouped = {label for group in re.findall(r"\bby \(([^)]*)\)", query) for label in group.split(", ")}
                wrong += [
                    f"the legend names {label}, which the query drops"
                    for label in re.findall(r"\{\{(\w+)\}\}", legend)
                    if label not in grouped
                ]
                faults += [f"{title}, {spec['title']}: {fault}" for fault in wrong]
                shown |= {
                    name.removesuffix(end)
                    for name in re.findall(r"\bforetell_[a-z_0-9]+\b", query)
                    for end in ("", *SUFFIXES)
                }
    for path, text in files.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            faults.append(f"{path.name} is stale: run deploy/grafana/dashboards.py")
    extra = sorted(path.name for path in (HERE / "dashboards").glob("*.json") if path not in files)
    faults += [f"{name} is not written by this script" for name in extra]
    for fault in faults:
        print(f"dashboards: {fault}", file=sys.stderr)
    return not faults


def rules():
    """All queries as recording rules, with the variables replaced, for `promtool check rules`."""
    queries = [query for *_, specs in DASHBOARDS for spec in specs if "row" not in spec for query, _ in spec["targets"]]
    plain = [
        query.replace("$__rate_interval", "1m").replace("$job", ".+").replace("$instance", ".+") for query in queries
    ]
    made = [{"record": f"query:{index}", "expr": query} for index, query in enumerate(plain)]
    return json.dumps({"groups": [{"name": "dashboards", "rules": made}]}, indent=1)


def main(arguments):
    files = {
        HERE / "dashboards" / f"{uid.removeprefix('foretell-')}.json": json.dumps(
            dashboard(uid, *rest), indent=1, ensure_ascii=False
        )
        + "\n"
        for uid, *rest in DASHBOARDS
    }
    if arguments == ["--check"]:
        sys.exit(0 if check(files) else 1)
    if arguments == ["--queries"]:
        print(rules())
        return
    if arguments:
        sys.exit(__doc__)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
