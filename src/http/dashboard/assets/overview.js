// What happens now: how much, how fast, and what is wrong.

import { bars, lines, sparkline } from "./charts.js";
import { h } from "./dom.js";
import { ago, count, labelledExamples, millis, short, span, version, words } from "./format.js";

export function overviewPage(state) {
  const { live, quality } = state.snapshot;
  const { history } = state;
  const { totals, rates } = live;
  const letters = Object.entries(totals.dead_letters).filter(([, number]) => number > 0).sort((a, b) => b[1] - a[1]);
  const chart = (id, title, series, more) => h("section", { class: "card wide", "data-key": id }, lines({ id, title, times: history.at, series, ...more }));
  return [
    ...warnings(state),
    h("div", { class: "tiles" },
      tile("events", "Events", rates.events, totals.events, history.events, "c1"),
      tile("predictions", "Predictions", rates.predictions, totals.predictions, history.predictions, "c2"),
      tile("outcomes", "Outcomes", rates.outcomes, totals.outcomes, history.outcomes, "c5"),
      tile("examples", "Labelled examples", rates.examples, labelledExamples(totals), history.examples, "c4"),
      fact("latency", "Event to score", millis(live.scored.p50_ms), `p99 ${millis(live.scored.p99_ms)}, last 10\u00a0s`, sparkline(history.scored_p99_ms ?? [], "c1")),
      fact("lag", "Lag", live.lag === null ? "–" : short(live.lag), live.lag === null ? "not known" : live.lag === 0 ? "everything is processed" : "records wait to be processed", sparkline(history.lag ?? [], "c2"))),
    h("div", { class: "grid" },
      chart("rates", "Per second", [
        { name: "events", values: history.events, colour: "c1" },
        { name: "predictions", values: history.predictions, colour: "c2" },
        { name: "outcomes", values: history.outcomes, colour: "c5" }]),
      chart("latencies", "Latency, p99", [
        { name: "to the score", values: history.scored_p99_ms, colour: "c1" },
        { name: "of a commit", values: history.committed_p99_ms, colour: "c2" }], { format: millis }),
      h("section", { class: "card" }, h("h2", null, "Serving"), serving(state, quality)),
      h("section", { class: "card" }, h("h2", null, "Dead letters"),
        letters.length
          ? [h("p", { class: "lead" }, h("b", { "data-testid": "dead-letters" }, count(letters.reduce((sum, [, number]) => sum + number, 0))), " since the start of the instances"),
            bars(letters.slice(0, 8).map(([name, value]) => ({ name: words(name), value })), { colour: "c6", label: "Dead letters by class" }),
            h("p", null, h("a", { href: "#/letters" }, "See the newest"))]
          : h("p", { class: "empty" }, "None. Records that cannot be processed would be here, unchanged and with the reason.")),
      h("section", { class: "card wide" }, h("h2", null, "Instances"), instances(state))),
  ];
}

function tile(name, title, rate, total, values, colour) {
  return h("section", { class: "tile", "data-key": name },
    h("h2", null, title),
    h("p", { class: "number" }, h("span", { "data-testid": `rate-${name}` }, short(rate)), h("small", null, " /s")),
    h("p", { class: "note" }, h("span", { "data-testid": `total-${name}` }, count(total ?? 0)), " in all"),
    sparkline(values ?? [], colour));
}

function fact(name, title, number, note, spark) {
  return h("section", { class: "tile", "data-key": name },
    h("h2", null, title), h("p", { class: "number", "data-testid": `tile-${name}` }, number), h("p", { class: "note" }, note), spark);
}

function serving(state, quality) {
  const model = state.champion();
  const statuses = state.running().map((one) => one.status ?? {});
  const training = statuses.map((status) => status.training).find(Boolean);
  const challenger = statuses.map((status) => status.challenger).find(Boolean);
  const live = quality?.live;
  return h("dl", { class: "facts" },
    h("dt", null, "Champion"), h("dd", null, h("code", null, version(model?.version)), model ? ` of training ${model.training}` : ""),
    h("dt", null, "Trained on"), h("dd", null, model ? `${count(model.examples[0])} initial and ${count(model.examples[1])} live examples` : "–"),
    h("dt", null, "Challenger"), h("dd", null, challenger ? h("code", null, version(challenger.version)) : "none"),
    h("dt", null, "Live AUC"), h("dd", null, live?.auc != null ? `${live.auc.toFixed(4)} of ${count(quality.labels)} labels` : "no labels yet"),
    h("dt", null, "Training"), h("dd", { "data-testid": "training" }, training
      ? [`number ${training.training}: ${words(training.phase)} `, training.of > 0 && h("progress", { value: training.iteration, max: training.of, "aria-label": "Progress of the training" })]
      : "none runs now"));
}

function instances(state) {
  const { live, instances: all } = state.snapshot;
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Instances" }, h("table", null,
    h("thead", null, h("tr", null, ["Instance", "State", "Tasks", "Events /s", "Lag", "Serves", "Up for", "Last report"].map((name, index) =>
      h("th", { scope: "col", class: [2, 3, 4, 6, 7].includes(index) ? "number" : null }, name)))),
    h("tbody", null, all.map((one) => {
      const tasks = Object.values(one.status?.workers ?? {}).flatMap((worker) => worker.tasks);
      const [colour, text] = one.gone ? ["bad", "gone"] : one.status?.ready ? ["ok", "ready"] : ["warn", "not ready"];
      return h("tr", { "data-key": one.instance },
        h("th", { scope: "row" }, one.instance, one.instance === state.snapshot.instance && h("small", null, " (this one)")),
        h("td", null, h("span", { class: `state ${colour}` }, text)),
        h("td", { class: "number", "data-testid": `tasks-${one.instance}` }, count(tasks.length)),
        h("td", { class: "number" }, one.gone ? "–" : short(one.events_per_second)),
        h("td", { class: "number" }, one.gone ? "–" : count(one.lag)),
        h("td", null, h("code", null, version(one.status?.model?.version))),
        h("td", { class: "number" }, one.gone ? "–" : span(live.at - one.started_at)),
        h("td", { class: "number" }, ago(one.at, live.at)));
    }))));
}

/** What needs attention, said in words. */
function warnings(state) {
  const { instances, quality, live } = state.snapshot;
  const found = [];
  const gone = instances.filter((one) => one.gone).map((one) => one.instance);
  if (gone.length) found.push(`No report from ${gone.join(", ")}: it ended without a stop, or cannot reach the broker. Its tasks move to others.`);
  for (const { instance, status } of state.running()) {
    const tasks = Object.entries(status?.workers ?? {}).flatMap(([worker, { tasks }]) => tasks.map((task) => ({ worker, ...task })));
    for (const task of tasks.filter((one) => one.state === "blocked")) found.push(`Task ${task.partition} of ${task.worker} waits ${task.blocked_since ? `since ${ago(task.blocked_since, live.at)}` : ""}: ${task.blocked_by}.`);
    const restoring = tasks.filter((one) => one.state === "restoring");
    if (restoring.length) found.push(`${instance} restores ${restoring.length} ${restoring.length === 1 ? "task" : "tasks"}.`);
    const mlflow = status?.mlflow;
    if (mlflow?.unavailable_since) found.push(`MLflow does not answer ${instance} since ${ago(mlflow.unavailable_since, live.at)}: ${mlflow.reason}. ${mlflow.lag_records ? `${count(mlflow.lag_records)} records` : "Records"} are sent when it does.`);
    if (status?.training_refused) found.push(`No model is trained: ${status.training_refused}.`);
    for (const violation of status?.contract ?? []) found.push(`Feature ${violation.feature}: ${words(violation.problem)}.`);
  }
  for (const alert of quality?.alerts ?? []) found.push(`Quality: ${alert.message}.`);
  const unique = [...new Set(found)];
  return unique.length ? [h("ul", { class: "warnings", "data-key": "warnings", "aria-label": "Needs attention" }, unique.slice(0, 8).map((text) => h("li", { "data-testid": "warning" }, text)))] : [];
}
