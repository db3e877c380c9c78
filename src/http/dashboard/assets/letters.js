// Records that could not be processed: how many of each class, and the newest.

import { h } from "./dom.js";
import { ago, count, moment, words } from "./format.js";

export function lettersPage(state) {
  const { live } = state.snapshot;
  const { list, error, done, isBusy, class: chosen } = state.letters;
  const classes = Object.entries(live.totals.dead_letters).sort((a, b) => b[1] - a[1]);
  const counted = classes.filter(([, number]) => number > 0);
  const shown = (list ?? []).filter((one) => !chosen || one.class === chosen);
  return [
    h("section", { class: "card", "data-key": "classes" }, h("h2", null, "By class"),
      counted.length
        ? [h("p", { class: "note" }, "Since the start of the instances. Choose one to filter the newest, and to replay what is in it. A replay that fails again counts again."),
          h("div", { class: "chips" }, counted.map(([name, number]) =>
            h("button", { class: "chip", "data-action": "class", "data-argument": name, "aria-pressed": String(chosen === name), "data-testid": `class-${name}` }, words(name), " ", h("b", null, count(number)))))]
        : h("p", { class: "empty" }, "None. Records that cannot be processed go to the topic dead-letters, unchanged and with the reason; processing goes on.")),
    h("section", { class: "card", "data-key": "newest" },
      h("h2", null, "Newest"),
      h("div", { class: "buttons" },
        h("button", { "data-action": "letters", "aria-busy": String(isBusy), "data-testid": "read-letters" }, isBusy ? "Reading" : list ? "Read again" : "Read the newest 100"),
        chosen && h("button", { "data-action": "replay", "data-argument": chosen, "data-testid": "replay" }, `Replay ${words(chosen)}`),
        h("span", { class: "note" }, "They show data of respondents, so they need the token, if one is set.")),
      error && h("p", { class: "error", role: "alert" }, error),
      done && h("p", { class: "note", role: "status", "data-testid": "replayed" }, done),
      list && (shown.length ? table(shown, live.at) : h("p", { class: "empty" }, "None of the newest 100 is of this class."))),
  ];
}

function table(letters, now) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Newest dead letters" }, h("table", { "data-testid": "letters" },
    h("thead", null, h("tr", null, ["Id", "Class", "Message", "Record", "Key", "Value", "Written"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", null, letters.map((one) => h("tr", { "data-key": one.id },
      h("th", { scope: "row" }, h("code", null, one.id), " ", one.replayed
        ? h("span", { class: "state ok" }, "replayed")
        : h("button", { class: "quiet", "data-action": "replay-one", "data-argument": one.id, "aria-label": `Replay ${one.id}` }, "Replay")),
      h("td", null, h("span", { class: "state bad" }, words(one.class))),
      h("td", { class: "message" }, one.message),
      h("td", null, h("code", null, one.offset < 0 ? one.topic : `${one.topic}/${one.partition}@${one.offset}`)),
      h("td", null, one.key === null ? "–" : h("code", null, one.key)),
      h("td", { class: "bytes", title: one.value }, h("small", null, `${count(one.value_bytes ?? 0)} bytes `), h("code", null, one.value)),
      h("td", { class: "when", title: moment(one.written_at) }, ago(one.written_at, now)))))));
}
