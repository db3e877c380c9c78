// Requests to the API, the token that some of them need, and the dialogs that ask for it and for the reason of a command.

import { h, patch } from "./dom.js";

const KEY = "foretell.token";

/** The header with the token. It is kept for this tab only. */
export function authorization() {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

export const hasToken = () => sessionStorage.getItem(KEY) !== null;

export function forgetToken() {
  sessionStorage.removeItem(KEY);
}

/** An answer of the API that is an error. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Sends a request, and asks for the token if the instance wants one. */
export async function request(method, path, body) {
  for (let attempt = 0; ; attempt += 1) {
    const headers = { ...authorization() };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store" });
    } catch {
      throw new Refused(0, "the instance does not answer");
    }
    const json = await response.json().catch(() => ({}));
    if (response.ok) return json;
    const message = json.detail ?? json.error ?? `status ${response.status}`;
    const isGiven = hasToken();
    if (response.status !== 401) throw new Refused(response.status, message);
    forgetToken();
    if (!(await askForToken(isGiven || attempt > 0))) throw new Refused(401, "this needs the token of http.bearer_token");
  }
}

/** Shows a dialog, and resolves with the values of its fields, or with null if it was closed. */
function ask(title, content, confirm) {
  const dialog = document.getElementById("dialog");
  const form = h("form", { method: "dialog", "data-testid": "dialog-form" },
    h("h2", { id: "dialog-title" }, title), content,
    h("div", { class: "buttons" },
      h("button", { type: "button", value: "cancel", "data-testid": "cancel" }, "Cancel"),
      h("button", { type: "submit", class: "primary", value: "ok", "data-testid": "confirm" }, confirm)));
  patch(dialog, []);
  dialog.append(form);
  return new Promise((resolve) => {
    form.querySelector("[value=cancel]").addEventListener("click", () => dialog.close("cancel"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      dialog.returnValue = "";
      resolve(Object.fromEntries(new FormData(form)));
      dialog.close("ok");
    });
    dialog.addEventListener("close", () => resolve(null), { once: true });
    dialog.showModal();
    form.querySelector("input")?.focus();
  });
}

/** Asks for the token, and says whether one was given. */
export async function askForToken(wasRefused) {
  const answer = await ask("This needs the token",
    [h("p", null, "It is the value of ", h("code", null, "http.bearer_token"), ", or, to look only, of ", h("code", null, "http.read_token"), ". It stays in this tab only."),
      wasRefused && h("p", { class: "error", role: "alert" }, "The last token was refused."),
      h("label", null, "Token", h("input", { name: "token", type: "password", autocomplete: "off", required: true, "data-testid": "token" }))],
    "Continue");
  if (!answer) return false;
  sessionStorage.setItem(KEY, answer.token.trim());
  return true;
}

/** Asks for the reason of a command, which is stored with the decision. */
export async function askForReason(title, text, confirm) {
  const answer = await ask(title,
    [h("p", null, text),
      h("label", null, "Reason", h("input", { name: "reason", required: true, maxlength: 500, autocomplete: "off", "data-testid": "reason" })),
      h("label", null, "Your name (optional)", h("input", { name: "requested_by", maxlength: 100, autocomplete: "name" }))],
    confirm);
  if (!answer) return null;
  return answer.requested_by ? answer : { reason: answer.reason };
}

/** Asks before something is done. */
export async function askFirst(title, text, confirm) {
  return (await ask(title, [h("p", null, text)], confirm)) !== null;
}
