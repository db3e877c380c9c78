// The stream of snapshots, which reconnects by itself and stops while the page is hidden. `fetch` in place of EventSource, because
// it can send a token and says why it failed.

import { authorization } from "./access.js";

const RETRY_FIRST = 1000;
const RETRY_MAX = 15_000;
// The server sends an event every second.
const SILENT_MAX = 6000;

/** Calls `onEvent` with the type and the data of each event, `onState` with `live`, `connecting` or the reason of a failure, and `onDenied` if the
 * instance wants a token, or another one. */
export function follow(onEvent, onState, onDenied) {
  let stop = null;
  let retry = RETRY_FIRST;
  let timer = 0;

  async function connect() {
    const controller = new AbortController();
    stop = controller;
    onState("connecting");
    let silent = 0;
    const hear = () => {
      clearTimeout(silent);
      silent = setTimeout(() => controller.abort(new Error("the instance is silent")), SILENT_MAX);
    };
    try {
      hear();
      const response = await fetch("/api/v1/stream", { headers: authorization(), signal: controller.signal, cache: "no-store" });
      if (response.status === 401) onDenied();
      if (!response.ok) throw new Error(await reason(response));
      await read(response.body, (type, data) => {
        hear();
        retry = RETRY_FIRST;
        onEvent(type, data);
        onState("live");
      });
      throw new Error("the instance has closed the stream");
    } catch (error) {
      if (stop !== controller) return;
      onState(controller.signal.reason?.message ?? error.message ?? "no connection");
      timer = setTimeout(connect, retry);
      retry = Math.min(retry * 2, RETRY_MAX);
    } finally {
      clearTimeout(silent);
    }
  }

  function pause() {
    const controller = stop;
    stop = null;
    clearTimeout(timer);
    controller?.abort();
  }

  function resume() {
    pause();
    retry = RETRY_FIRST;
    connect();
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? pause() : resume()));
  if (!document.hidden) connect();
  return resume;
}

async function reason(response) {
  const body = await response.json().catch(() => ({}));
  return body.detail ?? body.error ?? `status ${response.status}`;
}

/** Reads server-sent events: those of this server have a type and one line of data each. */
async function read(body, onEvent) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const field = (name) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      const data = field("data");
      if (data) onEvent(field("event"), JSON.parse(data));
    }
  }
}
