// One respondent: the session, predictions with their reasons, actions and outcomes.

import { h } from "./dom.js";
import { digits, moment, percent, version, words } from "./format.js";

const COLOURS = { waiting: "warn", learned: "ok", passed_over: "muted", pending: "warn", requested: "ok", held_out: "muted", cancelled: "muted" };

/** The fragment of the page of a respondent. A browser sends no fragment, so the id is in no log of a server or a proxy. */
export const addressOf = (id) => `#/respondent/${encodeURIComponent(id)}`;

/** The id in the fragment of a respondent's page; empty without one, and null on another page. */
export function respondentIn(fragment) {
  const [, id] = fragment.match(/^#\/respondent(?:\/(.*))?$/s) ?? [null, null];
  if (!id) return id === null ? null : "";
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}

export function respondentPage({ respondent }) {
  const { id, result, error, isBusy } = respondent;
  return [
    h("form", { id: "look-up", class: "search", role: "search", "data-key": "look-up" },
      h("label", { for: "respondent-id" }, "Respondent id"),
      h("input", { id: "respondent-id", name: "respondent", value: id, required: true, autocomplete: "off", spellcheck: "false", "data-testid": "respondent-id" }),
      h("button", { type: "submit", class: "primary", "aria-busy": String(isBusy), "data-testid": "look-up" }, isBusy ? "Asking" : "Look up")),
    error && h("p", { class: "error", role: "alert", "data-testid": "respondent-error" }, error),
    !result && !error && h("p", { class: "empty" }, "Any instance can answer: the question goes to the one with the respondent's partition. It needs the token, if one is set."),
    ...(result ? found(result) : []),
  ].filter(Boolean);
}

function found(result) {
  const { open, predictions, outcomes, actions } = result;
  return [h("div", { class: "grid", "data-testid": "respondent" },
    h("section", { class: "card wide", "data-key": "predictions" }, h("h2", null, "Predictions"),
      predictions.length ? predictions.map(prediction) : h("p", { class: "empty" }, "None waits for an outcome or was learned from.")),
    h("section", { class: "card", "data-key": "open" }, h("h2", null, "Session"),
      open
        ? [h("p", { class: "note" }, `Newest answer at ${moment(open.event_time)}; ${open.scored ? "scored" : "not scored yet"}`),
          answers(Object.entries(open.answers))]
        : h("p", { class: "empty" }, "No questionnaire is open.")),
    h("section", { class: "card", "data-key": "actions" }, h("h2", null, "Actions"),
      actions.length
        ? h("ul", { class: "plain", "data-testid": "actions-of-respondent" }, actions.map((one) => h("li", null, h("span", { class: `state ${COLOURS[one.state] ?? "muted"}` }, words(one.state)), " ", h("b", null, one.rule), one.control ? " (control)" : "", h("small", null, ` due ${moment(one.due)}`), one.reason && h("p", { class: "note" }, one.reason))))
        : h("p", { class: "empty" }, "No rule has acted.")),
    h("section", { class: "card", "data-key": "outcomes" }, h("h2", null, "Outcomes that wait for a prediction"),
      outcomes.length
        ? h("ul", { class: "plain" }, outcomes.map((one) => h("li", null, h("code", null, one.label), h("small", null, ` at ${moment(one.outcome_time)}`))))
        : h("p", { class: "empty" }, "None.")))];
}

function prediction({ event_time: time, state, outcome, prediction: made, not_stored: notStored }) {
  return h("article", { class: "prediction", "data-key": String(time) },
    h("h3", null, h("span", { class: `state ${COLOURS[state]}` }, words(state)), " ", moment(time), " ",
      made && h("code", null, version(made.model_version))),
    !made && h("p", { class: "note", "data-testid": "not-stored" }, `No answers and reasons: ${notStored}.`),
    made && h("p", null, "Predicted ", h("b", { "data-testid": "predicted" }, made.label), " with ", Object.entries(made.probabilities).map(([label, share], index) => `${index ? ", " : ""}${label} ${percent(share)}`).join("")),
    outcome && h("p", null, "Outcome ", h("b", null, outcome.label ?? String(outcome))),
    made?.reasons && reasons(made.reasons),
    made?.reasons_error && h("p", { class: "note" }, `No reasons: ${made.reasons_error}`),
    made && h("details", null, h("summary", null, "Answers as scored"), answers(Object.entries(made.features))));
}

function reasons({ features, others }) {
  const most = Math.max(...features.map((one) => Math.abs(one.contribution)), 0.0001);
  const side = (share, isFor) => (share > 0) === isFor && h("span", { class: `bar ${isFor ? "c4" : "c6"}`, style: { width: `${Math.abs(share) * 100}%` } });
  return [h("p", { class: "note" }, "Reasons: what speaks for the label, to the right, and against it, to the left (in log-odds)."),
    h("ul", { class: "reasons", "data-testid": "reasons" }, features.map((one) => h("li", null,
      h("span", { class: "name" }, one.feature, h("small", null, ` ${[one.value].flat().map((value) => value ?? "missing").join(", ")}`)),
      h("span", { class: "track left" }, side(one.contribution / most, false)),
      h("span", { class: "track" }, side(one.contribution / most, true)),
      h("span", { class: "value" }, digits(one.contribution, 3)))), h("li", { class: "note" }, `All others together: ${digits(others, 3)}`))];
}

function answers(pairs) {
  const given = pairs.filter(([, value]) => value !== null);
  return h("dl", { class: "facts" }, given.map(([name, value]) => [h("dt", null, name), h("dd", null, String(value))]), !given.length && h("dd", null, "none"));
}
