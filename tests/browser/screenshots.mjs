// Takes screenshots of every page, in both colour schemes and on a phone, while a demo runs.
//
//   node screenshots.mjs FOLDER        those of docs/dashboard.md
//   node screenshots.mjs FOLDER all    every page

import { mkdir } from "node:fs/promises";
import path from "node:path";

import { SOON, TOKEN, browser, demo } from "./instance.mjs";

const [folder, which] = process.argv.slice(2);
if (!folder) throw new Error("name the folder of the screenshots");
await mkdir(folder, { recursive: true });

const instance = await demo(["--rate", "450", "--limit", "16281", "--poison", "--set", "learning.retrain_after=3000", "--set", "tuning.iterations_max=300", "--tuning-seconds", "5"]);
const chrome = await browser();
await instance.serving();
const kinds = {
  dark: { colorScheme: "dark", viewport: { width: 1360, height: 900 } },
  light: { colorScheme: "light", viewport: { width: 1360, height: 900 } },
  phone: { colorScheme: "light", viewport: { width: 390, height: 844 } },
};

const documented = await chrome.open(instance.base, { ...kinds.dark, viewport: { width: 1200, height: 800 } });
// Two trainings are decided, and events come.
for (const deadline = Date.now() + SOON; ; await new Promise((resolve) => setTimeout(resolve, 500))) {
  const { live } = await instance.get("/api/v1/dashboard");
  const decided = Object.values(live.totals.decisions).reduce((sum, one) => sum + one, 0);
  if (decided >= 3 && live.rates.events > 200) break;
  if (Date.now() > deadline) throw new Error("no trainings were decided");
}
await documented.page.screenshot({ path: path.join(folder, "dashboard.png") });
await documented.page.getByTestId("link-models").click();
await documented.page.getByTestId("models").locator("tbody tr").nth(2).waitFor();
await documented.page.screenshot({ path: path.join(folder, "dashboard-models.png") });

if (which === "all") {
  await instance.finished();
  const asked = await fetch(`${instance.base}/api/v1/events?wait=true`, {
    method: "POST", headers: { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" },
    body: JSON.stringify({ respondent_id: "me", completed: true, age: 38, education: "Masters", occupation: "Exec-managerial", marital_status: "Married-civ-spouse", hours_per_week: 50 }),
  });
  await asked.json();
  for (const [kind, options] of Object.entries(kinds)) {
    const { page, context } = await chrome.open(instance.base, options);
    await page.evaluate((token) => sessionStorage.setItem("foretell.token", token), TOKEN);
    for (const name of ["overview", "models", "data", "outcomes", "respondent", "topology", "letters"]) {
      await page.getByTestId(`link-${name}`).click();
      await page.locator(`[data-testid=link-${name}][aria-current]`).waitFor();
      if (name === "models") await page.getByTestId("models").waitFor();
      if (name === "respondent") {
        await page.getByTestId("respondent-id").fill("me");
        await page.getByTestId("look-up").click();
        await page.getByTestId("respondent").waitFor();
      }
      if (name === "letters") {
        await page.getByTestId("read-letters").click();
        await page.getByTestId("letters").waitFor();
      }
      await page.screenshot({ path: path.join(folder, `${kind}-${name}.png`), fullPage: true });
    }
    await context.close();
  }
}
await chrome.close();
await instance.stop();
