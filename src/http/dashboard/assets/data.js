// What the model is given: drift from its training data, missing answers, and the feature contract.

import { compare } from "./charts.js";
import { h } from "./dom.js";
import { count, digits, percent, words } from "./format.js";

// From these a population stability index is a small, and a large change.
const SMALL = 0.1;
const LARGE = 0.25;

const colour = (psi) => (psi >= LARGE ? "bad" : psi >= SMALL ? "warn" : "ok");

export function dataPage(state) {
  const { quality, live } = state.snapshot;
  const violations = new Map(state.running().flatMap((one) => one.status?.contract ?? []).map((one) => [`${one.feature}/${one.problem}`, one]));
  const distributions = quality?.distributions ?? [];
  const indices = new Map((quality?.features ?? []).map((one) => [one.name, one.psi]));
  const { unseen_categories: unseen, out_of_range: outside, predictions } = live.totals;
  return [
    h("div", { class: "tiles" },
      tile("Predictions compared", count(quality?.predictions), "the newest of the champion"),
      tile("Unseen categories", count(unseen), predictions ? `${percent(unseen / predictions, 2)} of predictions` : ""),
      tile("Numbers out of range", count(outside), predictions ? `${percent(outside / predictions, 2)} of predictions` : ""),
      tile("Features drifted", count([...indices.values()].filter((psi) => psi >= LARGE).length), `of ${count(indices.size)} with a stability index`)),
    h("div", { class: "grid" },
      h("section", { class: "card", "data-key": "contract" }, h("h2", null, "Feature contract"),
        violations.size
          ? h("ul", { class: "plain" }, [...violations.values()].map((one) => h("li", null, h("span", { class: "state bad" }, words(one.problem)), " ", h("code", null, one.feature))))
          : h("p", { class: "empty" }, "Every feature of the model is there, of the same kind, and about as often as in training.")),
      h("section", { class: "card", "data-key": "scores" }, h("h2", null, "Drift of the scores"),
        quality?.scores?.length
          ? h("ul", { class: "plain" }, quality.scores.map((one) => h("li", null, h("code", null, one.name), " ", h("span", { class: `state ${colour(one.psi)}` }, digits(one.psi, 3)))))
          : h("p", { class: "empty" }, nothing(quality))),
      h("section", { class: "card wide", "data-key": "features" }, h("h2", null, "Features, live against training"),
        distributions.length
          ? [h("p", { class: "legend" }, h("span", { class: "key c3" }, "training"), h("span", { class: "key c1" }, "live"), h("span", { class: "note" }, "The number is the population stability index: from 0.1 a small, from 0.25 a large change.")),
            h("div", { class: "features", "data-testid": "features" }, distributions.map((one) => feature(one, indices.get(one.name))))]
          : h("p", { class: "empty" }, nothing(quality)))),
  ];
}

function tile(title, number, note) {
  return h("section", { class: "tile", "data-key": title }, h("h2", null, title), h("p", { class: "number" }, number), h("p", { class: "note" }, note));
}

function nothing(quality) {
  if (!quality) return "No predictions are summed up yet: that takes some seconds after the first.";
  return quality.has_profile
    ? "Too few predictions of this model so far (quality.predictions_min)."
    : "This model has no profile of its training data, because an older release trained it.";
}

function feature({ name, bins, trained, live }, psi) {
  const share = (counts) => counts.at(-1) / (counts.reduce((sum, one) => sum + one, 0) || 1);
  const [before, now] = [share(trained), share(live)];
  return h("article", { class: "feature", "data-key": name },
    h("h3", null, name, " ", psi !== undefined && h("span", { class: `state ${colour(psi)}`, title: "Population stability index" }, digits(psi, 3))),
    (before > 0 || now > 0) && h("p", { class: "note" }, `missing: ${percent(now)} live, ${percent(before)} in training`),
    compare(bins.slice(0, -1), trained.slice(0, -1), live.slice(0, -1)));
}
