#!/usr/bin/env python3
"""Reads each dashboard with Grafana's own types (grafana-foundation-sdk) and fails if a field of it is not theirs.

Run by `make deploy-check`: validate.py deploy/grafana/dashboards/*.json
"""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def lost(before, after, place=""):
    """Where `after` lacks a value of `before`. Values that are empty or null may be left out."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            if name in after:
                yield from lost(value, after[name], f"{place}.{name}")
            elif value not in (None, [], {}, "", False):
                yield f"{place}.{name}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after)):
            yield from lost(one, other, f"{place}[{index}]")
    elif before != after:
        yield f"{place}: {before!r} became {after!r}"


def faults_of(read):
    """Ids that occur twice, and panels that overlap or leave the grid."""
    panels = read["panels"]
    ids = [panel["id"] for panel in panels]
    if len(ids) != len(set(ids)):
        yield "two panels have one id"
    cells = set()
    for panel in panels:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        covered = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        if columns.stop > 24 or cells & covered:
            yield f"{panel['title']}: it overlaps another panel, or leaves the grid"
        cells |= covered


def main(paths):
    register_default_plugins()
    faults = [] if paths else ["no dashboards are given"]
    for path in map(Path, paths):
        read = json.loads(path.read_text(encoding="utf-8"))
        written = json.loads(json.dumps(Dashboard.from_json(read), cls=JSONEncoder))
        faults += [f"{path.name}: {fault}" for fault in [*lost(read, written), *faults_of(read)]]
    for fault in faults:
        print(f"grafana: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
