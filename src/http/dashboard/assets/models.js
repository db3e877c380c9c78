// The models, the decisions about them, and the commands that change which one serves.

import { bars, calibration, interval } from "./charts.js";
import { h } from "./dom.js";
import { ago, count, digits, moment, signed, version, words } from "./format.js";

const COLOURS = { promoted: "ok", challenger: "warn", refused: "muted", rolled_back: "warn", failed: "bad" };

export function modelsPage(state) {
  const { library, decisions, details, libraryError } = state;
  const { live, quality } = state.snapshot;
  return [
    command(state),
    h("div", { class: "buttons", "data-key": "commands" },
      h("button", { "data-action": "retrain", "data-testid": "retrain" }, "Train now"),
      h("button", { "data-action": "rollback", "data-testid": "rollback" }, "Roll back"),
      h("span", { class: "note" }, "Both ask for a reason first, which is stored with the decision.")),
    libraryError && h("p", { class: "error", role: "alert" }, `The models cannot be read now: ${libraryError}`),
    h("div", { class: "grid" },
      h("section", { class: "card wide", "data-key": "models" }, h("h2", null, "Models"),
        h("p", { class: "note" }, "Each was measured on examples of its own time. To compare two, see the decisions: they measure both on the same."), library ? models(library, live.at) : h("p", { class: "empty" }, "Reading the models.")),
      h("section", { class: "card wide", "data-key": "live" }, h("h2", null, "Live quality by model"),
        h("p", { class: "note" }, "Scored before it was learned from; with 95 % intervals. The newest models are first, after those that score now."), byVersion(state)),
      h("section", { class: "card", "data-key": "calibration" }, h("h2", null, "Calibration of the champion"),
        quality?.calibration?.length ? calibration(quality.calibration) : h("p", { class: "empty" }, "No labels of this model yet. The curve shows whether probabilities are what they say.")),
      h("section", { class: "card", "data-key": "importance" }, h("h2", null, "Feature importance of the champion"),
        details?.importance?.length
          ? bars(details.importance.slice(0, 12).map((one) => ({ name: one.feature, value: one.gain })), { colour: "c2", format: (gain) => count(gain), label: "Gain by feature" })
          : h("p", { class: "empty" }, "The model has no splits.")),
      h("section", { class: "card wide", "data-key": "timeline" }, h("h2", null, "Decisions"),
        decisions?.length ? timeline(decisions, live.at) : h("p", { class: "empty" }, "No training yet. The first runs when enough labelled examples have come (learning.retrain_after), on a schedule, or when you ask for it."))),
  ].filter(Boolean);
}

function command({ command: sent }) {
  if (!sent) return null;
  const colour = { sending: "muted", accepted: "warn", refused: "bad" }[sent.state] ?? COLOURS[sent.state] ?? "ok";
  return h("p", { class: `notice ${colour}`, role: "status", "data-key": "command", "data-testid": "command", "data-state": sent.state },
    h("b", null, `${sent.title}: ${sent.state === "accepted" ? "accepted, and waits for the learner" : words(sent.state)}. `), sent.message ?? "",
    " ", h("button", { "data-action": "dismiss", class: "quiet" }, "Close"));
}

function models({ models: all, aliases }, now) {
  const metrics = ["log_loss", "auc", "accuracy", "f1"];
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Models" }, h("table", { "data-testid": "models" },
    h("thead", null, h("tr", null, ["Version", "Alias", "Training", "Examples", "Log loss", "AUC", "Accuracy", "F1", "Made", ""].map((name, index) =>
      h("th", { scope: "col", class: index >= 2 && index <= 8 ? "number" : null }, name || h("span", { class: "hidden" }, "Commands"))))),
    h("tbody", null, all.slice(0, 50).map((model) => h("tr", { "data-key": model.version },
      h("th", { scope: "row" }, h("code", null, version(model.version))),
      h("td", null, model.aliases.map((alias) => h("span", { class: `state ${{ champion: "ok", challenger: "warn" }[alias] ?? "muted"}`, title: aliases[alias]?.reason ?? "" }, alias))),
      h("td", { class: "number" }, model.training),
      h("td", { class: "number" }, count(model.examples)),
      metrics.map((name) => h("td", { class: "number" }, digits(model.metrics[name]))),
      h("td", { class: "number", title: moment(model.created_at) }, ago(model.created_at, now)),
      h("td", null, !model.aliases.includes("champion") &&
        h("button", { "data-action": "promote", "data-argument": model.version, "data-testid": "promote", "aria-label": `Promote ${version(model.version)}` }, "Promote")))))));
}

// With fewer labels, an interval from the standard error is too narrow.
const LABELS_MIN = 30;

/** The role of a version, and its place in a table: what scores now first, then the newest. */
function standing(state, name) {
  const challenger = state.running().map((one) => one.status?.challenger?.version).find(Boolean);
  const made = state.library?.models.find((one) => one.version === name)?.created_at ?? 0;
  if (name === state.champion()?.version) return { role: "champion", colour: "ok", place: [2, made] };
  if (name === challenger) return { role: "challenger", colour: "warn", place: [1, made] };
  return { role: "former", colour: "muted", place: [0, made] };
}

function byVersion(state) {
  const versions = (state.snapshot.quality?.versions ?? []).filter((one) => one.labels > 0 && one.log_loss !== null)
    .map((one) => ({ ...one, ...standing(state, one.model_version) }))
    .sort((a, b) => b.place[0] - a.place[0] || b.place[1] - a.place[1]);
  if (!versions.length) return h("p", { class: "empty" }, "No labels yet. A model is measured here as soon as outcomes of its predictions come.");
  const margin = (one, error, number = 3) => (one.labels < LABELS_MIN ? " too few for an interval" : ` ±${digits(one[error], number)}`);
  const ends = (value, error) => versions.flatMap((one) => [one[value] - (one[error] ?? 0), one[value] + (one[error] ?? 0)]);
  const scale = (all) => {
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const space = (high - low) * 0.08 || 0.01;
    return { low: low - space, high: high + space };
  };
  const [losses, shares] = [scale(ends("log_loss", "log_loss_error")), scale(ends("accuracy", "accuracy_error"))];
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Live quality by model" }, h("table", { "data-testid": "live-quality" },
    h("thead", null, h("tr", null, ["Version", "Alias", "Labels", "Log loss", "", "Accuracy", "", "AUC"].map((name, index) =>
      h("th", { scope: "col", class: [2, 3, 5, 7].includes(index) ? "number" : null }, name || h("span", { class: "hidden" }, "Interval"))))),
    h("tbody", null, versions.map((one) => h("tr", { "data-key": one.model_version },
      h("th", { scope: "row" }, h("code", null, version(one.model_version))),
      h("td", null, h("span", { class: `state ${one.colour}` }, one.role)),
      h("td", { class: "number" }, count(one.labels)),
      h("td", { class: "number" }, digits(one.log_loss), h("small", null, margin(one, "log_loss_error"))),
      h("td", { class: "graph" }, interval({ value: one.log_loss, error: one.log_loss_error ?? 0, ...losses })),
      h("td", { class: "number" }, digits(one.accuracy, 3), h("small", null, margin(one, "accuracy_error"))),
      h("td", { class: "graph" }, interval({ value: one.accuracy, error: one.accuracy_error ?? 0, ...shares, colour: "c2" })),
      h("td", { class: "number" }, digits(one.auc)))))));
}

function timeline(decisions, now) {
  return h("ol", { class: "timeline", "data-testid": "decisions" }, decisions.slice(0, 20).map((one) => {
    const found = one.comparison;
    return h("li", { "data-key": one.decision_id, class: COLOURS[one.outcome] },
      h("p", null, h("span", { class: `state ${COLOURS[one.outcome]}` }, words(one.outcome)), " ",
        h("b", null, one.decision_id.replace(/^(rollback|judgement)-/, "$1 at ").replace(/^training-/, "training ")), " ",
        one.candidate && h("code", null, version(one.candidate)), " ",
        h("small", { title: moment(one.decided_at) }, ago(one.decided_at, now))),
      h("p", { class: "reason" }, one.reason, one.requested_by ? ` (${one.requested_by})` : ""),
      found && h("p", { class: "note" }, `${words(found.metric)} ${digits(found.candidate)} against ${digits(found.champion)} of ${count(found.examples)} examples; improvement ${signed(found.difference)} (${signed(found.low)} to ${signed(found.high)})`));
  }));
}
