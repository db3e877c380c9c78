#!/usr/bin/env python3
"""Fails unless alerts.test.yml has, for each alert of alerts.yml, a case in which it fires and one in which it does not."""

import sys
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent


def read(name):
    return yaml.safe_load((HERE / name).read_text(encoding="utf-8"))


def main():
    alerts = [rule["alert"] for group in read("alerts.yml")["groups"] for rule in group["rules"]]
    cases = [case for test in read("alerts.test.yml")["tests"] for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    is_silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    faults = [f"no case of alerts.test.yml fires {name}" for name in alerts if name not in fires]
    faults += [f"no case of alerts.test.yml leaves {name} silent" for name in alerts if name not in is_silent]
    if len(alerts) < 10:
        faults.append(f"found only {len(alerts)} alerts")
    for fault in faults:
        print(f"alerts: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
