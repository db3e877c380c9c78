// The dashboard in a real browser, on a real demo: the numbers are right, a swap appears without a reload, and commands need the token.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { inflateSync } from "node:zlib";

import { SOON, TOKEN, browser, demo, extended, packages } from "./instance.mjs";

const PAGES = ["overview", "models", "data", "outcomes", "respondent", "topology", "letters"];

let folder;
let instance;
let chrome;
let report;

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "foretell-"));
  const config = await extended(folder);
  [instance, chrome] = await Promise.all([demo(undefined, config), browser()]);
  await instance.serving();
  report = await instance.finished();
}, { timeout: SOON });

after(async () => {
  await chrome?.close();
  const code = await instance?.stop();
  if (folder) await rm(folder, { recursive: true });
  assert.equal(code, 0, instance?.output.errors);
});

/** Waits until `read` gives `expected`, and says what it gave last if it never does. */
async function until(expected, read) {
  const deadline = Date.now() + SOON;
  for (let last; ; await new Promise((resolve) => setTimeout(resolve, 100))) {
    last = await read();
    if (last === expected) return;
    assert.ok(Date.now() < deadline, `${JSON.stringify(last)} in place of ${JSON.stringify(expected)}`);
  }
}

const text = (page, id) => page.getByTestId(id).first().innerText();
const number = async (page, id) => Number((await text(page, id)).replaceAll(",", ""));

/** The colour of one pixel: a PNG of one pixel has a filter byte and the colour in its data. */
async function pixel(page, x, y) {
  const png = await page.screenshot({ clip: { x: Math.round(x), y: Math.round(y), width: 1, height: 1 } });
  const data = [];
  for (let at = 8; at < png.length;) {
    const length = png.readUInt32BE(at);
    if (png.toString("latin1", at + 4, at + 8) === "IDAT") data.push(png.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  return [...inflateSync(Buffer.concat(data)).subarray(1, 4)];
}

async function metric(pattern) {
  const lines = (await (await fetch(`${instance.base}/metrics`)).text()).split("\n").filter((line) => pattern.test(line));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

test("the demo names the address of the dashboard first", () => {
  assert.match(instance.output.errors.split("\n")[0], new RegExp(`dashboard: ${instance.base}`));
});

test("the numbers are those of the status, the metrics and the demo's own count", { timeout: SOON }, async () => {
  const { page, faults, context } = await chrome.open(instance.base);
  const status = await instance.get("/api/v1/status");
  await until(status.model.version, () => text(page, "champion"));
  assert.equal(await text(page, "application"), "adult");
  await until(report.events_sent, () => number(page, "total-events"));
  await until(report.scored, async () => (await number(page, "total-predictions")) - (await metric(/^foretell_predictions_total/)) + report.scored);
  await until(report.examples, () => number(page, "total-examples"));
  await until(await metric(/^foretell_dead_letters_total/), () => number(page, "dead-letters"));
  const tasks = Object.values(status.workers).flatMap((worker) => worker.tasks).length;
  assert.equal(await number(page, `tasks-${status.instance}`), tasks);
  await until("0", () => text(page, "tile-lag"));
  assert.equal(await page.getByTestId("health").getAttribute("data-health"), "ok");

  await page.getByTestId("link-topology").click();
  await until(tasks, () => page.getByTestId("task").count());

  await page.getByTestId("link-models").click();
  const { models } = await instance.get("/api/v1/models");
  await until(models.length, () => page.getByTestId("models").locator("tbody tr").count());
  const { decisions } = await instance.get("/api/v1/decisions");
  assert.ok(decisions.length > 0);
  await until(decisions.length, () => page.getByTestId("decisions").locator("li").count());

  // The models that score now are first, and say so.
  const quality = page.getByTestId("live-quality").locator("tbody tr");
  await quality.first().waitFor();
  const roles = await quality.locator("td:nth-child(2)").allInnerTexts();
  assert.ok(roles.every((role) => ["champion", "challenger", "former"].includes(role)), roles.join());
  const order = roles.map((role) => ["champion", "challenger", "former"].indexOf(role));
  assert.deepEqual(order, [...order].sort(), roles.join());
  const made = Object.fromEntries(models.map((one) => [one.version.slice(0, 12), one.created_at]));
  const former = (await quality.locator("th").allInnerTexts()).slice(roles.lastIndexOf("challenger") + 1).filter((_, index) => roles[index] === "former");
  assert.deepEqual(former, [...former].sort((a, b) => made[b] - made[a]));

  await page.getByTestId("link-data").click();
  await page.getByTestId("page-title").filter({ hasText: "Data" }).waitFor();
  assert.deepEqual(faults, []);
  await context.close();
});

test("every outcome is in one state, as the status says, and an outage of MLflow is on the overview", { timeout: SOON }, async () => {
  const { page, faults, context } = await chrome.open(instance.base);
  const status = await instance.get("/api/v1/status");
  assert.ok(status.mlflow.sends && status.mlflow.unavailable_since > 0, JSON.stringify(status.mlflow));
  const warning = page.getByTestId("warning").filter({ hasText: "MLflow does not answer" });
  await warning.waitFor();
  assert.ok((await warning.innerText()).includes(status.mlflow.reason));

  await page.getByTestId("link-outcomes").click();
  await until(status.waiting.predictions, () => number(page, "state-predictions-waiting"));
  const states = Object.keys(status.outcomes);
  assert.ok(["joined", "late", "unmatched"].every((state) => states.includes(state)), states.join());
  for (const state of states) await until(status.outcomes[state], () => number(page, `state-${state}`));
  await until(status.waiting.outcomes, () => number(page, "state-waiting"));
  const shown = await Promise.all([...states, "waiting", "unread"].map((state) => number(page, `state-${state}`)));
  const { live } = await instance.get("/api/v1/dashboard");
  assert.equal(shown.reduce((sum, one) => sum + one, 0), live.totals.outcomes, "the bars do not add up");
  assert.equal(await number(page, "outcomes-all"), live.totals.outcomes);
  assert.deepEqual(faults, []);
  await context.close();
});

test("labelled examples are counted once, by the source of their label, on every page", { timeout: SOON }, async () => {
  const { page, faults, context } = await chrome.open(instance.base);
  const { examples, outcomes } = await instance.get("/api/v1/status");
  // The instance has no labels from elsewhere, and every prediction without an outcome is given one.
  assert.ok(report.unlabelled > 0 && examples.policy === report.unlabelled, JSON.stringify({ examples, report }));
  assert.equal(examples.outcome, outcomes.joined);
  assert.equal(examples.correction, outcomes.corrected);
  assert.equal(report.joined, outcomes.joined);
  const all = examples.outcome + examples.policy;
  assert.equal(report.examples, all);

  await until(all, () => number(page, "total-examples"));
  await page.getByTestId("link-outcomes").click();
  await until(all, () => number(page, "examples-all"));
  assert.equal(await number(page, "state-examples-outcome"), examples.outcome);
  assert.equal(await number(page, "state-examples-policy"), examples.policy);
  assert.equal(await number(page, "examples-correction"), examples.correction);
  await page.getByTestId("link-topology").click();
  await page.getByText(`${all.toLocaleString("en-US")} labelled examples`).waitFor();
  assert.deepEqual(faults, []);
  await context.close();
});

test("the topology names the topics of the application", { timeout: SOON }, async () => {
  const { page, context } = await chrome.open(instance.base);
  const { topics } = await instance.get("/api/v1/status");
  await page.getByTestId("link-topology").click();
  assert.deepEqual(topics.companions, ["registrations"]);
  const expected = [topics.questionnaire_events, ...topics.companions, topics.outcomes, topics.predictions, topics.actions, topics.labelled_examples, topics.models, topics.decisions, topics.quality];
  await until(expected.join(), async () => (await page.getByTestId("topic").allInnerTexts()).join());
  await context.close();
});

test("a command needs the token and a reason, and its swap appears without a reload", { timeout: SOON }, async () => {
  const { page, faults, context } = await chrome.open(instance.base);
  await page.getByTestId("link-models").click();
  await page.evaluate(() => { window.isFirstLoad = true; });
  const champion = await text(page, "champion");

  const promote = page.getByTestId("promote").first();
  const label = await promote.getAttribute("aria-label");
  const wanted = label.replace("Promote ", "");
  assert.notEqual(wanted, champion);

  // Without the token it is asked for, and a wrong one is refused. Nothing changes.
  await promote.click();
  await page.getByTestId("reason").fill("a test of the dashboard");
  await page.getByTestId("confirm").click();
  await page.getByTestId("token").fill("wrong");
  await page.getByTestId("confirm").click();
  await page.getByRole("alert").filter({ hasText: "refused" }).waitFor();
  await page.getByTestId("cancel").click();
  await until("refused", () => page.getByTestId("command").getAttribute("data-state"));
  assert.equal(await text(page, "champion"), champion);
  assert.equal((await instance.get("/api/v1/status")).model.version, champion);

  // With the token it is carried out, on this page.
  await promote.click();
  await page.getByTestId("reason").fill("a test of the dashboard");
  await page.getByTestId("confirm").click();
  await page.getByTestId("token").fill(TOKEN);
  await page.getByTestId("confirm").click();
  await until("promoted", () => page.getByTestId("command").getAttribute("data-state"));
  await until(wanted, () => text(page, "champion"));
  assert.equal((await instance.get("/api/v1/status")).model.version, wanted);
  await page.getByTestId("decisions").getByText("a test of the dashboard").first().waitFor();
  assert.match(await page.locator("#announcements").innerText(), /promoted|serves now/);

  // The token is kept for the tab: the way back needs a reason only.
  await page.getByTestId("rollback").click();
  await page.getByTestId("reason").fill("back again");
  await page.getByTestId("confirm").click();
  await until("rolled_back", () => page.getByTestId("command").getAttribute("data-state"));
  await until(champion, () => text(page, "champion"));
  assert.equal(await page.evaluate(() => window.isFirstLoad), true, "the page was loaded again");
  assert.deepEqual(faults, []);
  await context.close();
});

test("a respondent and dead letters are shown with the token only", { timeout: SOON }, async () => {
  const posted = await fetch(`${instance.base}/api/v1/events?wait=true`, {
    method: "POST", headers: { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" },
    body: JSON.stringify({ respondent_id: "<img src=x onerror=alert(1)>", completed: true, age: 39, education: "Masters" }),
  });
  const { label } = await posted.json();
  const { page, faults, context } = await chrome.open(instance.base);
  await page.getByTestId("link-respondent").click();
  await page.getByTestId("respondent-id").fill("<img src=x onerror=alert(1)>");
  await page.getByTestId("look-up").click();
  await page.getByTestId("token").fill(TOKEN);
  await page.getByTestId("confirm").click();
  await until(label, () => text(page, "predicted"));
  assert.ok(await page.getByTestId("reasons").locator("li").count() > 1);
  assert.equal(await page.locator("main img").count(), 0);

  // An outcome cancels the action that waits, and is learned from; both say so.
  const toldBefore = await page.getByTestId("actions-of-respondent").innerText();
  assert.match(toldBefore, /pending call/);
  await fetch(`${instance.base}/api/v1/outcomes`, {
    method: "POST", headers: { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" },
    body: JSON.stringify({ respondent_id: "<img src=x onerror=alert(1)>", label }),
  });
  await until(true, async () => {
    await page.getByTestId("look-up").click();
    return /cancelled call.*an outcome came/s.test(await text(page, "actions-of-respondent"));
  });
  await page.getByTestId("not-stored").filter({ hasText: "labelled-examples" }).waitFor();

  await page.getByTestId("respondent-id").fill("nobody");
  await page.getByTestId("look-up").click();
  await page.getByTestId("respondent-error").filter({ hasText: "nobody" }).waitFor();

  await page.getByTestId("link-letters").click();
  await page.getByTestId("read-letters").click();
  const rows = page.getByTestId("letters").locator("tbody tr");
  await rows.first().waitFor();
  const all = await rows.count();
  const { dead_letters: letters } = await instance.get("/api/v1/dead-letters?limit=100", { Authorization: `Bearer ${TOKEN}` });
  assert.equal(all, letters.length);
  await page.getByTestId("class-missing_field").click();
  const missing = letters.filter((one) => one.class === "missing_field").length;
  await until(missing, () => rows.count());
  // Replayed, they fail again: the cause is not mended.
  await page.getByTestId("replay").click();
  await page.getByTestId("confirm").click();
  await page.getByTestId("replayed").filter({ hasText: `${missing} replayed` }).waitFor();
  await until(2 * missing, async () => {
    await page.getByTestId("read-letters").click();
    return rows.count();
  });
  assert.deepEqual(faults, []);
  await context.close();
});

test("the respondent who is looked up is in the address: it is shared, reloaded, and gone back to", { timeout: SOON }, async () => {
  const ids = ["ann/1 ü?#&%41", "bob"];
  for (const id of ids) {
    const posted = await fetch(`${instance.base}/api/v1/events?wait=true`, {
      method: "POST", headers: { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" },
      body: JSON.stringify({ respondent_id: id, completed: true, age: 39, education: "Masters" }),
    });
    assert.equal(posted.status, 200);
  }
  const { page, faults, context } = await chrome.open(instance.base);
  const paths = [];
  page.on("request", (request) => paths.push(new URL(request.url()).pathname));
  const asked = (id) => paths.filter((one) => one === `/api/v1/respondents/${encodeURIComponent(id)}`).length;
  const isShown = (id) => until(`${id} shown`, async () => {
    await page.getByTestId("respondent").waitFor();
    return `${await page.getByTestId("respondent-id").inputValue()} shown`;
  });

  await page.getByTestId("link-respondent").click();
  for (const id of ids) {
    await page.getByTestId("respondent-id").fill(id);
    await page.getByTestId("look-up").click();
    if (id === ids[0]) {
      await page.getByTestId("token").fill(TOKEN);
      await page.getByTestId("confirm").click();
    }
    await isShown(id);
    assert.equal(await page.evaluate(() => document.activeElement.dataset.testid), "look-up", "the focus has moved");
  }
  assert.equal(page.url(), `${instance.base}/#/respondent/${ids[1]}`);
  await page.goBack();
  await isShown(ids[0]);
  const ann = page.url();
  assert.equal(ann, `${instance.base}/#/respondent/${encodeURIComponent(ids[0])}`);
  await page.goBack();
  await until("", () => page.getByTestId("respondent-id").inputValue());
  await until(0, () => page.getByTestId("respondent").count());
  await page.goForward();
  await isShown(ids[0]);

  // The link of the page leads back to the respondent, who is not asked for again.
  const before = asked(ids[0]);
  await page.getByTestId("link-models").click();
  await page.getByTestId("link-respondent").click();
  await isShown(ids[0]);
  assert.equal(page.url(), ann);
  assert.equal(asked(ids[0]), before);
  await page.reload();
  await isShown(ids[0]);
  assert.equal(asked(ids[0]), before + 1);
  assert.deepEqual(faults, []);
  await context.close();

  // Shared: it needs a token of its own.
  const other = await chrome.open(instance.base);
  await other.page.goto(ann);
  await other.page.reload();
  await other.page.getByTestId("token").fill(TOKEN);
  await other.page.getByTestId("confirm").click();
  await other.page.getByTestId("respondent").waitFor();
  assert.equal(await other.page.getByTestId("respondent-id").inputValue(), ids[0]);
  // An address that no link has: it is taken as it is.
  await other.page.goto(`${instance.base}/#/respondent/%E0%A4%A`);
  await other.page.getByTestId("respondent-error").waitFor();
  assert.equal(await other.page.getByTestId("respondent-id").inputValue(), "%E0%A4%A");
  assert.deepEqual(other.faults, []);
  await other.context.close();
});

test("every page is readable on a phone, in both colour schemes, and for a screen reader", { timeout: SOON }, async () => {
  const axe = await readFile(packages.resolve("axe-core/axe.min.js"), "utf8");
  for (const colorScheme of ["light", "dark"]) {
    // axe is put into the page, which its policy forbids.
    const { page, faults, context } = await chrome.open(instance.base, { colorScheme, bypassCSP: true, viewport: { width: 360, height: 740 } });
    await page.evaluate(axe);
    const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number));
    assert.equal(background[0] > 128, colorScheme === "light", background.join());
    for (const name of PAGES) {
      await page.getByTestId(`link-${name}`).click();
      await until("page", () => page.getByTestId(`link-${name}`).getAttribute("aria-current"));
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0, `${name} scrolls sideways`);
      const { violations } = await page.evaluate(() => axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21aa"] }));
      const found = violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ").slice(0, 300)}`);
      assert.deepEqual(found, [], `${name}, ${colorScheme}`);
    }
    // A table that is wider than the page has an edge where there is more.
    await page.getByTestId("link-overview").click();
    const table = page.locator(".scroll").first();
    await table.scrollIntoViewIfNeeded();
    const { x, y, width } = await table.boundingBox();
    const edges = async () => {
      const card = await page.evaluate(() => getComputedStyle(document.querySelector(".card")).backgroundColor.match(/\d+/g).map(Number));
      const isCard = async (at) => (await pixel(page, at, y + 2)).join() === card.join();
      return `${(await isCard(x)) ? "" : "left "}${(await isCard(x + width - 1)) ? "" : "right"}`;
    };
    assert.ok(await table.evaluate((one) => one.scrollWidth > one.clientWidth), "the table fits: this shows nothing");
    await until("right", edges);
    await table.evaluate((one) => one.scrollTo(one.scrollWidth, 0));
    await until("left ", edges);
    assert.deepEqual(faults, []);
    await context.close();
  }
});

test("the keyboard reaches everything, and the focus is visible and stays", { timeout: SOON }, async () => {
  const { page, faults, context } = await chrome.open(instance.base);
  const focused = () => page.evaluate(() => {
    const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
    return { name: document.activeElement.textContent.trim(), outline: outlineStyle === "none" ? 0 : parseFloat(outlineWidth) };
  });
  await page.keyboard.press("Tab");
  assert.equal((await focused()).name, "Skip to the content");
  const order = [];
  for (let step = 0; step < 9; step += 1) {
    await page.keyboard.press("Tab");
    const { name, outline } = await focused();
    assert.ok(outline >= 2, `the focus on ${name} cannot be seen`);
    order.push(name);
  }
  assert.deepEqual(order.slice(0, 1).concat(order.slice(2)), ["Foretell", "Overview", "Models", "Data", "Outcomes", "Respondent", "Topology", "Dead letters"]);
  await page.keyboard.press("Enter");
  await page.getByTestId("page-title").filter({ hasText: "Dead letters" }).waitFor();
  await page.keyboard.press("Tab");
  const name = (await focused()).name;
  // New numbers come every second, and leave the focus where it is.
  const before = await page.evaluate(() => document.querySelector("[data-testid=health]").textContent);
  assert.equal(before, "Ready");
  await page.waitForFunction((at) => performance.now() > at + 2500, await page.evaluate(() => performance.now()));
  assert.equal((await focused()).name, name);
  assert.deepEqual(faults, []);
  await context.close();
});

test("the colours can be chosen, and the choice stays", { timeout: SOON }, async () => {
  const { page, context } = await chrome.open(instance.base, { colorScheme: "light" });
  const brightness = () => page.evaluate(() => Number(getComputedStyle(document.body).backgroundColor.match(/\d+/)[0]));
  for (let click = 0; click < 2; click += 1) await page.getByTestId("theme").click();
  await until(true, async () => (await brightness()) < 128);
  await page.reload();
  await page.getByTestId("rate-events").waitFor();
  assert.ok(await brightness() < 128);
  await context.close();
});

test("a page says that its numbers are stale, and goes on by itself", { timeout: SOON }, async () => {
  const { page, context } = await chrome.open(instance.base);
  await context.setOffline(true);
  // Chromium keeps a stream that is open, so the page must notice a stream that fails.
  await page.route("**/api/v1/stream", (route) => route.abort());
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => window.isAway });
    window.isAway = true;
    document.dispatchEvent(new Event("visibilitychange"));
    window.isAway = false;
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await page.getByTestId("stale").waitFor();
  assert.equal(await page.getByTestId("health").getAttribute("data-health"), "stale");
  await page.unroute("**/api/v1/stream");
  await context.setOffline(false);
  await until("ok", () => page.getByTestId("health").getAttribute("data-health"));
  assert.equal(await page.getByTestId("stale").count(), 0);
  await context.close();
});
