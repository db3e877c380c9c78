// Where records go, and what every task does.

import { h } from "./dom.js";
import { ago, count, labelledExamples, moment, words } from "./format.js";

const COLOURS = { running: "ok", restoring: "warn", blocked: "bad" };

/** The tasks of all running instances, with their group and instance. */
function tasksOf(state) {
  const { application } = state.snapshot;
  return state.running().flatMap(({ instance, status }) => Object.entries(status?.workers ?? {}).flatMap(([worker, { tasks }]) => {
    const rest = worker.startsWith(`${application}-`) ? worker.slice(application.length + 1) : worker;
    return tasks.map((task) => ({ group: rest.split("-")[0], instance, worker, ...task }));
  })).sort((a, b) => b.group.localeCompare(a.group) || a.partition - b.partition);
}

export function topologyPage(state) {
  const { live } = state.snapshot;
  const tasks = tasksOf(state);
  const topics = state.running().map((one) => one.status?.topics).find(Boolean);
  const named = (keys) => keys.flatMap((key) => topics?.[key] ?? []);
  const of = (group) => tasks.filter((task) => task.group === group);
  return [
    h("section", { class: "card flow", "aria-label": "The flow of records" },
      step("Topics", named(["questionnaire_events", "companions", "outcomes"]), `${count(live.totals.events)} events, ${count(live.totals.outcomes)} outcomes`),
      arrow(), stage("Scoring", "gather → score → act → join", of("scoring")),
      arrow(), step("Topics", named(["predictions", "actions", "labelled_examples"]), `${count(live.totals.predictions)} predictions, ${count(labelledExamples(live.totals))} labelled examples`),
      arrow(), stage("Learning", "count → train → judge", of("learning")),
      arrow(), step("Topics", named(["models", "decisions", "quality"]), "every instance swaps to the champion")),
    h("section", { class: "card", "data-key": "tasks" }, h("h2", null, "Tasks"),
      tasks.length ? table(tasks, live.at) : h("p", { class: "empty" }, "No instance has a task yet: the groups are being assigned.")),
  ];
}

const arrow = () => h("span", { class: "arrow", "aria-hidden": true }, "→");

function step(title, names, note) {
  return h("div", { class: "step" }, h("h3", null, title), names.map((name) => h("code", { "data-testid": "topic" }, name)), h("p", { class: "note" }, note));
}

function stage(title, note, tasks) {
  return h("div", { class: "step stage" }, h("h3", null, title), h("p", { class: "note" }, note),
    h("div", { class: "chips" }, tasks.map((task) => h("span", { class: `chip ${COLOURS[task.state]}`, title: `Task ${task.partition} on ${task.instance}: ${task.state}` }, task.partition)),
      !tasks.length && h("span", { class: "note" }, "no task")));
}

function table(tasks, now) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Tasks" }, h("table", { "data-testid": "tasks" },
    h("thead", null, h("tr", null, ["Group", "Task", "Instance", "State", "Stream time", "Queued", "Stored"].map((name, index) =>
      h("th", { scope: "col", class: [1, 4, 5].includes(index) ? "number" : null }, name)))),
    h("tbody", null, tasks.map((task) => h("tr", { "data-key": `${task.worker}/${task.partition}`, "data-testid": "task" },
      h("td", null, task.group),
      h("th", { scope: "row", class: "number" }, task.partition),
      h("td", null, task.instance),
      h("td", null, h("span", { class: `state ${COLOURS[task.state]}` }, words(task.state)), " ", why(task)),
      h("td", { class: "number", title: moment(task.stream_time) }, task.stream_time === null ? "–" : ago(task.stream_time, now)),
      h("td", { class: "number" }, count(task.buffered)),
      h("td", { class: "stores" }, Object.entries(task.store_entries).filter(([, number]) => number > 0).map(([name, number]) => h("span", null, `${name} `, h("b", null, `${task.store_entries_estimated ? "~" : ""}${count(number)}`)))))))));
}

function why(task) {
  if (task.state === "blocked") return h("small", null, task.blocked_by);
  if (task.state !== "restoring") return null;
  const all = task.restored + task.restore_remaining;
  return [h("progress", { value: task.restored, max: all || 1, "aria-label": `Restored records of task ${task.partition}` }), h("small", null, ` ${count(task.restore_remaining)} left`)];
}
