// The state of the page, its frame, and what a click does. Each page is a function from the state to elements.

import { askFirst, askForReason, askForToken, forgetToken, hasToken, request } from "./access.js";
import { follow } from "./connection.js";
import { dataPage } from "./data.js";
import { announce, h, patch } from "./dom.js";
import { ago, count, version, words } from "./format.js";
import { lettersPage } from "./letters.js";
import { modelsPage } from "./models.js";
import { outcomesPage } from "./outcomes.js";
import { overviewPage } from "./overview.js";
import { addressOf, respondentIn, respondentPage } from "./respondent.js";
import { topologyPage } from "./topology.js";

const PAGES = {
  overview: ["Overview", overviewPage],
  models: ["Models", modelsPage],
  data: ["Data", dataPage],
  outcomes: ["Outcomes", outcomesPage],
  respondent: ["Respondent", respondentPage],
  topology: ["Topology", topologyPage],
  letters: ["Dead letters", lettersPage],
};

// Points of the history that are kept: 15 minutes, as on the server.
const POINTS_MAX = 450;
const POINT_EVERY = 2000;

const state = {
  snapshot: {},
  history: { at: [] },
  connection: "connecting",
  isDenied: false,
  heardAt: 0,
  // The library, which is read when something in it has changed.
  library: null, decisions: null, details: null, libraryError: null,
  command: null,
  respondent: nobody(),
  letters: { list: null, error: null, done: null, isBusy: false, class: null },
  theme: localStorage.getItem("foretell.theme") ?? "auto",
};

function nobody() {
  return { id: "", result: null, error: null, isBusy: false };
}

const page = () => {
  const name = location.hash.replace(/^#\/?/, "").split("/")[0];
  return PAGES[name] ? name : "overview";
};

const live = () => state.snapshot.live;
const running = () => (state.snapshot.instances ?? []).filter((one) => !one.gone);
// The champion of this instance. All swap within a second of each other.
const champion = () => {
  const own = running().find((one) => one.instance === state.snapshot.instance) ?? running()[0];
  return own?.status?.model ?? null;
};
state.champion = champion;
state.running = running;

let isDue = false;
function render() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    patch(document.getElementById("top"), top());
    patch(document.getElementById("pages"), links());
    const [title, content] = PAGES[page()];
    document.title = `${title} · ${state.snapshot.application ?? "Foretell"}`;
    const main = document.getElementById("main");
    main.setAttribute("aria-busy", String(!live()));
    patch(main, [h("h1", { "data-key": page(), "data-testid": "page-title" }, title), ...(live() ? content(state) : waiting())]);
  });
}

function waiting() {
  if (state.isDenied) {
    return [h("p", { class: "empty", "data-testid": "waiting" }, "This instance shows nothing without a token. ",
      h("button", { "data-action": "token", "data-testid": "enter-token" }, "Enter the token"))];
  }
  return [h("p", { class: "empty", "data-testid": "waiting" },
    state.connection === "connecting" || state.connection === "live" ? "Waiting for the first numbers of the instance." : `No connection: ${state.connection}.`)];
}

function top() {
  const isLive = state.connection === "live";
  const isStale = !isLive && state.heardAt > 0;
  const instances = running();
  const serving = champion();
  const health = !live() ? "unknown" : isStale ? "stale" : live().ready ? "ok" : "bad";
  const said = { ok: "Ready", bad: "Not ready", stale: "Stale", unknown: "Connecting" }[health];
  return [
    h("a", { class: "brand", href: "#/overview" }, h("span", { class: "logo", "aria-hidden": true }), "Foretell"),
    h("span", { class: "application", "data-testid": "application" }, state.snapshot.application ?? ""),
    h("span", { class: `health ${health}`, "data-testid": "health", "data-health": health }, said),
    serving && h("span", { class: "fact" }, "serving ", h("code", { "data-testid": "champion" }, version(serving.version))),
    live() && h("span", { class: "fact" }, h("b", { "data-testid": "instances" }, String(instances.length)), instances.length === 1 ? " instance" : " instances"),
    h("span", { class: "space" }),
    hasToken() && h("button", { "data-action": "forget", class: "quiet" }, "Forget token"),
    h("button", { "data-action": "theme", class: "quiet", "data-testid": "theme", "aria-label": `Colours: ${state.theme}. Change` }, { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" }[state.theme]),
    isStale && h("p", { class: "stale", role: "alert", "data-testid": "stale" },
      `No new numbers: ${state.connection === "connecting" ? "connecting again" : state.connection}. These are from ${ago(state.heardAt, Date.now())}. `,
      h("button", { "data-action": state.isDenied ? "token" : "connect" }, state.isDenied ? "Enter the token" : "Try now")),
  ];
}

function links() {
  const { id } = state.respondent;
  const address = (name) => (name === "respondent" && id ? addressOf(id) : `#/${name}`);
  return Object.entries(PAGES).map(([name, [title]]) =>
    h("a", { href: address(name), "aria-current": name === page() ? "page" : null, "data-testid": `link-${name}` }, title));
}

// --- what comes in

let librarySeen = "";
function receive(type, { history, ...sections }) {
  state.heardAt = Date.now();
  const before = champion()?.version;
  if (type === "status") Object.assign(state, { snapshot: sections, history });
  else Object.assign(state.snapshot, sections);
  if (type === "change" && sections.live) addPoint(sections.live);
  const now = champion()?.version;
  if (before && now && before !== now) announce(`Model ${version(now)} serves now`);
  readLibraryIfChanged();
  followAddress();
  render();
}

function addPoint(numbers) {
  const { history } = state;
  const last = history.at.at(-1) ?? 0;
  if (numbers.at >= last && numbers.at - last < POINT_EVERY) return;
  const { rates } = numbers;
  const point = { at: numbers.at, ...rates, scored_p50_ms: numbers.scored.p50_ms, scored_p99_ms: numbers.scored.p99_ms, committed_p99_ms: numbers.committed.p99_ms, lag: numbers.lag };
  for (const [name, values] of Object.entries(history)) {
    values.push(point[name] ?? null);
    if (values.length > POINTS_MAX) values.shift();
  }
}

/** Reads models and decisions again if the champion, the challenger or the number of decisions is another one. */
async function readLibraryIfChanged() {
  if (!live()) return;
  const own = running().find((one) => one.instance === state.snapshot.instance);
  const decisions = Object.values(live().totals.decisions).reduce((sum, one) => sum + one, 0);
  const seen = JSON.stringify([champion()?.version, own?.status?.challenger?.version, decisions]);
  if (seen === librarySeen) return;
  librarySeen = seen;
  await readLibrary();
}

async function readLibrary() {
  try {
    const [library, decisions, details] = await Promise.all([
      request("GET", "/api/v1/models"), request("GET", "/api/v1/decisions?limit=100"), request("GET", "/api/v1/models/champion"),
    ]);
    Object.assign(state, { library, decisions: decisions.decisions, details, libraryError: null });
  } catch (error) {
    state.libraryError = error.message;
    librarySeen = "";
  }
  render();
}

// --- what a person does

const COMMANDS = {
  promote: (name) => [`Promote ${version(name)}`, "It becomes the champion, and every instance serves it.", "Promote", `/api/v1/models/${name}/promote`],
  rollback: () => ["Roll back", "The champion's predecessor becomes the champion again.", "Roll back", "/api/v1/models/rollback"],
  retrain: () => ["Train a model", "A training on the labelled examples so far. It is judged as any other.", "Train", "/api/v1/trainings"],
};

async function command(kind, name) {
  const [title, text, confirm, path] = COMMANDS[kind](name);
  const reason = await askForReason(title, text, confirm);
  if (!reason) return;
  state.command = { title, state: "sending" };
  render();
  try {
    const { command_id: id } = await request("POST", path, reason);
    state.command = { title, state: "accepted", id };
    announce(`${title}: accepted`);
    render();
    await decided(title, id);
  } catch (error) {
    state.command = { title, state: "refused", message: error.message };
    announce(`${title}: refused`);
  }
  render();
}

/** Waits for the decision that answers a command; a training takes minutes. */
async function decided(title, id) {
  for (let wait = 500; state.command?.id === id; wait = Math.min(wait * 1.5, 5000)) {
    const { decisions } = await request("GET", `/api/v1/decisions?command_id=${encodeURIComponent(id)}`);
    if (decisions.length > 0) {
      const [{ outcome, reason }] = decisions;
      state.command = { title, state: outcome, message: reason };
      announce(`${title}: ${outcome}`);
      readLibrary();
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

async function lookUp(id) {
  const respondent = { ...nobody(), id, isBusy: true };
  state.respondent = respondent;
  render();
  try {
    respondent.result = await request("GET", `/api/v1/respondents/${encodeURIComponent(id)}?reasons=8`);
  } catch (error) {
    respondent.error = error.message;
  }
  respondent.isBusy = false;
  // Another one may have been asked for meanwhile.
  if (state.respondent !== respondent) return;
  announce(respondent.error ?? `Respondent ${id} is shown`);
  render();
}

/** Looks up the respondent in the address, unless it is the one that is shown: after a look-up, a reload, and back. */
function followAddress() {
  const id = respondentIn(location.hash);
  if (!live() || id === null || id === state.respondent.id) return;
  if (id) lookUp(id);
  else state.respondent = nobody();
  const field = document.getElementById("respondent-id");
  if (field) field.value = id;
}

async function enterToken() {
  const wasRefused = hasToken();
  forgetToken();
  if (await askForToken(wasRefused)) reconnect();
}

async function readLetters(problem = null) {
  Object.assign(state.letters, { isBusy: true, error: problem });
  render();
  try {
    state.letters.list = (await request("GET", "/api/v1/dead-letters?limit=100")).dead_letters;
  } catch (error) {
    state.letters.error = error.message;
  }
  state.letters.isBusy = false;
  render();
}

async function replay(what, wanted) {
  const text = `${what} returns to its topic, once. Mend the cause first: what still cannot be processed becomes a dead letter again.`;
  if (!(await askFirst("Replay dead letters", text, "Replay"))) return;
  Object.assign(state.letters, { isBusy: true, error: null, done: null });
  render();
  try {
    const { replayed, before, kept } = await request("POST", "/api/v1/dead-letters/replay", wanted);
    const sum = (numbers) => Object.values(numbers).reduce((all, one) => all + one, 0);
    state.letters.done = `${count(sum(replayed))} replayed, ${count(before)} were replayed before, ${count(sum(kept))} cannot be replayed`;
    announce(state.letters.done);
  } catch (error) {
    state.letters.error = error.message;
  }
  await readLetters(state.letters.error);
}

const ACTIONS = {
  promote: (name) => command("promote", name),
  rollback: () => command("rollback"),
  retrain: () => command("retrain"),
  dismiss: () => { state.command = null; },
  letters: () => readLetters(),
  replay: (name) => replay(`Every dead letter of class ${words(name)} that was not replayed`, { classes: [name] }),
  "replay-one": (id) => replay(`Dead letter ${id}`, { ids: [id] }),
  class: (name) => { state.letters.class = state.letters.class === name ? null : name; },
  forget: () => forgetToken(),
  token: () => enterToken(),
  connect: () => reconnect(),
  theme: () => {
    state.theme = { auto: "light", light: "dark", dark: "auto" }[state.theme];
    localStorage.setItem("foretell.theme", state.theme);
    applyTheme();
  },
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (!button) return;
  ACTIONS[button.getAttribute("data-action")]?.(button.getAttribute("data-argument"));
  render();
});

document.addEventListener("submit", (event) => {
  if (event.target.getAttribute("id") !== "look-up") return;
  event.preventDefault();
  const id = new FormData(event.target).get("respondent").trim();
  if (!id) return;
  if (id === state.respondent.id) lookUp(id);
  else location.hash = addressOf(id);
});

document.addEventListener("pointed", render);
let pageBefore = page();
addEventListener("hashchange", () => {
  followAddress();
  render();
  if (page() === pageBefore) return;
  pageBefore = page();
  document.getElementById("main").focus({ preventScroll: true });
  scrollTo(0, 0);
});

function applyTheme() {
  if (state.theme === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", state.theme);
}

applyTheme();
const reconnect = follow(receive, (connection) => {
  state.connection = connection;
  if (connection === "live") state.isDenied = false;
  render();
}, () => {
  const isFirst = !state.isDenied;
  state.isDenied = true;
  if (isFirst) enterToken();
});
render();
