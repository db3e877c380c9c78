// Outcomes and what becomes of them, the delay of labels, actions and what they change.

import { bars, interval } from "./charts.js";
import { h } from "./dom.js";
import { count, labelledExamples, percent, span, words } from "./format.js";

export function outcomesPage(state) {
  const { live, quality, uplift, label_delay: delay } = state.snapshot;
  const { actions } = live.totals;
  const rules = Object.entries(actions);
  return [h("div", { class: "grid" },
    h("section", { class: "card", "data-key": "outcomes" }, h("h2", null, "Outcomes"), outcomes(live)),
    h("section", { class: "card", "data-key": "predictions" }, h("h2", null, "Predictions"), predictions(live)),
    h("section", { class: "card", "data-key": "examples" }, h("h2", null, "Labelled examples"), examples(live)),
    h("section", { class: "card", "data-key": "delay" }, h("h2", null, "Time from prediction to outcome"), delays(delay)),
    h("section", { class: "card", "data-key": "maturity" }, h("h2", null, "Maturity of labels"),
      h("p", { class: "note" }, "The share of predictions whose outcome is known, by their age."), maturity(quality)),
    h("section", { class: "card", "data-key": "actions" }, h("h2", null, "Actions"),
      rules.length ? actionsTable(rules) : h("p", { class: "empty" }, "There are no rules. A rule in [[actions]] acts on predictions, at once or later.")),
    h("section", { class: "card wide", "data-key": "uplift" }, h("h2", null, "Uplift"),
      h("p", { class: "note" }, "How much more often a label comes when the rule has acted than in its control share; with 95 % intervals."),
      Array.isArray(uplift) && uplift.length ? upliftTable(uplift) : h("p", { class: "empty" }, rules.length ? "No labelled examples with an action yet." : "Without rules there is none.")))];
}

const STATES = {
  joined: "joined with a prediction",
  duplicate: "the same again",
  corrected: "replaced the one before",
  conflicting: "ignored: there was another one",
  unmatched: "no prediction came: dead letter",
  late: "too late: dead letter",
  unknown_label: "unknown label: dead letter",
};

/** Every outcome in one state, so that the bars add up. */
function outcomes({ totals, waiting }) {
  const known = Object.entries(STATES).map(([state, name]) => ({ state, name, value: totals.outcome_results[state] ?? 0 }));
  const now = { state: "waiting", name: "wait for a prediction now", value: waiting.outcomes ?? 0 };
  const states = [known[0], now, ...known.slice(1)];
  const sum = states.reduce((all, one) => all + one.value, 0);
  const unread = { state: "unread", name: "cannot be read: dead letter", value: Math.max(totals.outcomes - sum, 0) };
  return [h("p", { class: "note" }, h("b", { "data-testid": "outcomes-all" }, count(sum + unread.value)), " since the start of the instances, each in one state",
    waiting.outcomes === null ? ". Those that wait are not known." : "."),
    bars([...states, unread], { colour: "c5", label: "Outcomes by state" })];
}

function predictions({ totals, waiting }) {
  return [h("p", { class: "note" }, `Of ${count(totals.predictions)} since the start of the instances. Those that another prediction of their respondent is learned from for are in none of these.`),
    bars([
      { state: "predictions-waiting", name: "wait for their outcome now", value: waiting.predictions },
      { state: "predictions-joined", name: "joined with an outcome", value: totals.outcome_results.joined ?? 0 },
      { state: "predictions-unlabelled", name: "window passed without one", value: totals.unlabelled }], { colour: "c2", label: "Predictions by state" })];
}

/** Every labelled example by the source of its label, so that the bars add up. */
function examples({ totals }) {
  const { outcome = 0, policy = 0, correction = 0 } = totals.examples;
  return [h("p", { class: "note" }, h("b", { "data-testid": "examples-all" }, count(labelledExamples(totals))), " since the start of the instances. Later outcomes have corrected the label of ",
    h("b", { "data-testid": "examples-correction" }, count(correction)), ", which are no further examples."),
    bars([
      { state: "examples-outcome", name: "with the label of an outcome", value: outcome },
      { state: "examples-policy", name: "with the label for no outcome", value: policy }], { colour: "c4", label: "Labelled examples by the source of their label" })];
}

function delays({ bounds, counts }) {
  const total = counts.reduce((sum, one) => sum + one, 0);
  if (!total) return h("p", { class: "empty" }, "No outcome has been joined yet.");
  const names = [...bounds.map((bound) => `up to ${span(bound * 1000)}`), `over ${span(bounds.at(-1) * 1000)}`];
  const rows = counts.map((value, index) => ({ name: names[index], value }));
  const first = rows.findIndex((row) => row.value > 0);
  const last = rows.findLastIndex((row) => row.value > 0);
  return bars(rows.slice(Math.max(first - 1, 0), last + 2), { colour: "c4", label: "Labels by delay" });
}

function maturity(quality) {
  const ages = (quality?.maturity ?? []).filter((one) => one.predictions > 0);
  if (!ages.length) return h("p", { class: "empty" }, "No predictions are summed up yet.");
  return h("ul", { class: "bars", "aria-label": "Share of labelled predictions by age" }, ages.map((one) => h("li", null,
    h("span", { class: "name" }, one.older_than_ms === 0 ? "youngest" : `over ${span(one.older_than_ms)}`),
    h("span", { class: "track" }, h("span", { class: "bar c2", style: { width: `${one.labelled * 100}%` } })),
    h("span", { class: "value" }, percent(one.labelled), h("small", null, ` of ${count(one.predictions)}`)))));
}

function actionsTable(rules) {
  const states = ["requested", "cancelled", "held_out"];
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Actions" }, h("table", { "data-testid": "actions" },
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "Rule"), states.map((name) => h("th", { scope: "col", class: "number" }, words(name))))),
    h("tbody", null, rules.map(([rule, by]) => h("tr", { "data-key": rule }, h("th", { scope: "row" }, rule), states.map((name) => h("td", { class: "number" }, count(by[name] ?? 0))))))));
}

function upliftTable(uplift) {
  const rows = uplift.flatMap((rule) => rule.labels.map((label) => ({ rule, label })));
  const ends = rows.flatMap(({ label }) => (label.uplift ? [label.uplift.low, label.uplift.high] : [])).concat(0);
  const most = Math.max(...ends.map(Math.abs), 0.01) * 1.1;
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Uplift" }, h("table", { "data-testid": "uplift" },
    h("thead", null, h("tr", null, ["Rule", "Label", "Acted on", "with the label", "Held out", "with the label", "Uplift", ""].map((name, index) =>
      h("th", { scope: "col", class: index >= 2 && index <= 6 ? "number" : null }, name || h("span", { class: "hidden" }, "Interval"))))),
    h("tbody", null, rows.map(({ rule, label }) => h("tr", { "data-key": `${rule.rule}/${label.label}` },
      h("th", { scope: "row" }, rule.rule), h("td", null, h("code", null, label.label)),
      h("td", { class: "number" }, count(rule.acted)), h("td", { class: "number" }, percent(label.acted)),
      h("td", { class: "number" }, count(rule.held_out)), h("td", { class: "number" }, percent(label.held_out)),
      h("td", { class: "number" }, label.uplift ? `${label.uplift.difference >= 0 ? "+" : "−"}${percent(Math.abs(label.uplift.difference))}` : "–"),
      h("td", { class: "graph" }, label.uplift && interval({ value: (label.uplift.low + label.uplift.high) / 2, error: (label.uplift.high - label.uplift.low) / 2, low: -most, high: most, zero: 0, colour: label.uplift.low > 0 ? "c4" : label.uplift.high < 0 ? "c2" : "c3" })))))));
}
