// Starts `foretell demo` with a small table, waits until its report is printed, and opens pages of its dashboard.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";
import path from "node:path";

const { FORETELL_BROWSER_MODULES: modules, FORETELL_BINARY: binary, CHROMIUM = "/usr/bin/chromium" } = process.env;
if (!modules || !binary) throw new Error("run `make test-browser`, which sets FORETELL_BROWSER_MODULES and FORETELL_BINARY");

/** The packages that `.ci/setup browser` has installed. */
export const packages = createRequire(path.join(modules, "package.json"));
const { chromium } = packages("playwright-core");

export const repository = fileURLToPath(new URL("../..", import.meta.url));
export const TOKEN = "a-token-for-tests";
/** Bound of every wait, far longer than any takes. */
export const SOON = 180_000;

/** A port that is free now. */
async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

// Variables with this prefix are settings of Foretell.
const withoutSettings = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("FORETELL_")));

const EXAMPLE = path.join(repository, "deploy/adult/foretell.toml");

/** Writes the example with more in it: a companion of the events, a label for no outcome, a rule that acts, and an MLflow server that does not answer. */
export async function extended(folder) {
  const text = (await readFile(EXAMPLE, "utf8"))
    .replace("../../schemas", path.join(repository, "schemas"))
    .replace('unlabelled = "drop"', 'unlabelled = { label = "<=50K" }\nemit = "on_update"')
    .replaceAll('path = "adult', `path = "${path.dirname(EXAMPLE)}/adult`);
  const schema = { type: "record", name: "Registration", fields: [
    { name: "registration", type: "long" },
    { name: "respondent_id", type: "string" },
    { name: "registered_at", type: { type: "long", logicalType: "timestamp-millis" } },
    { name: "workclass", type: ["null", "string"], default: null },
  ] };
  await writeFile(path.join(folder, "registration.avsc"), JSON.stringify(schema));
  const config = path.join(folder, "foretell.toml");
  await writeFile(config, `${text}
[[events.companions]]
topic = "registrations"
schema = "registration.avsc"
event_id = "registration"
event_time = "registered_at"

[[actions]]
name = "call"
when = "true"
after = "1h"
cancel_on = ["outcome"]

[mlflow]
tracking_uri = "http://127.0.0.1:1"
`);
  return config;
}

/** Starts a demo, which runs until `stop`. Later settings override earlier ones. */
export async function demo(more = ["--limit", "1200", "--rate", "400"], config = EXAMPLE) {
  const port = await freePort();
  const settings = [`http.bind=127.0.0.1:${port}`, `http.bearer_token=${TOKEN}`, "learning.retrain_after=300", "tuning.trials=1", "learning.tuning.trials=0", "tuning.iterations_max=40"];
  const process_ = spawn(binary, ["demo", "--json", "--keep-running", "-c", config,
    ...settings.flatMap((setting) => ["--set", setting]), ...more], { stdio: ["ignore", "pipe", "pipe"], env: withoutSettings });
  const output = { text: "", errors: "" };
  process_.stdout.on("data", (text) => { output.text += text; });
  process_.stderr.on("data", (text) => { output.errors += text; });
  const ended = once(process_, "exit");
  const until = async (condition) => {
    const deadline = Date.now() + SOON;
    while (!condition()) {
      if (process_.exitCode !== null) throw new Error(`the demo ended with ${process_.exitCode}:\n${output.errors}`);
      if (Date.now() > deadline) throw new Error(`the demo takes too long:\n${output.errors}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  const base = `http://127.0.0.1:${port}`;
  return {
    base, output,
    serving: () => until(() => output.errors.includes(`- dashboard: ${base}\n`)),
    finished: async () => {
      await until(() => output.text.includes("\n"));
      return JSON.parse(output.text);
    },
    get: async (route, headers = {}) => (await fetch(base + route, { headers })).json(),
    stop: async () => {
      process_.kill("SIGTERM");
      const [code] = await ended;
      return code;
    },
  };
}

/** A Chromium, and contexts of it that note every error of a page. */
export async function browser() {
  const chrome = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
  return {
    close: () => chrome.close(),
    /** Opens the dashboard. `faults` has every error of the console, of a script and of the policy. */
    open: async (base, options = {}) => {
      const context = await chrome.newContext({ viewport: { width: 1360, height: 900 }, ...options });
      const page = await context.newPage();
      page.setDefaultTimeout(SOON);
      const faults = [];
      page.on("console", (message) => {
        // The browser says so of each answer that is an error; the tests look at what the page makes of it.
        if (["error", "warning"].includes(message.type()) && !message.text().startsWith("Failed to load resource")) faults.push(message.text());
      });
      page.on("pageerror", (error) => faults.push(String(error)));
      page.on("request", (request) => {
        if (!request.url().startsWith(base) && !request.url().startsWith("data:")) faults.push(`it requests ${request.url()}`);
      });
      await page.addInitScript(() => addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`)));
      await page.goto(base);
      await page.getByTestId("rate-events").waitFor();
      return { page, faults, context };
    },
  };
}
