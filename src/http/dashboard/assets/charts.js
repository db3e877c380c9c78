// Small charts. Lines are SVG that stretches to its box; labels are HTML, so that they keep their size on a phone.

import { h, s } from "./dom.js";
import { clock, count, percent, short } from "./format.js";

/** The place of the pointer in a chart: its id, and a share of its width. */
const pointer = { chart: null, at: 0 };

document.addEventListener("pointermove", (event) => {
  const plot = event.target.closest?.("[data-plot]");
  pointer.chart = plot?.getAttribute("data-plot") ?? null;
  if (!plot) return;
  const box = plot.getBoundingClientRect();
  pointer.at = (event.clientX - box.left) / box.width;
  plot.dispatchEvent(new CustomEvent("pointed", { bubbles: true }));
}, { passive: true });

const WIDTH = 600;
const HEIGHT = 100;

/** The end of an axis that shows `most`: 1, 2 or 5 times a power of ten. */
function roundUp(most) {
  if (!(most > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((step) => step * power).find((end) => end >= most * 0.9999);
}

const given = (values) => values.filter((value) => typeof value === "number");

function path(values, most) {
  let text = "";
  let isDrawing = false;
  values.forEach((value, index) => {
    if (typeof value !== "number") {
      isDrawing = false;
      return;
    }
    const x = (values.length < 2 ? 1 : index / (values.length - 1)) * WIDTH;
    const y = HEIGHT - Math.min(value / most, 1) * HEIGHT;
    text += `${isDrawing ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    isDrawing = true;
  });
  return text;
}

/** Lines over time. `series` have a name, values as many as `times`, and a colour class. */
export function lines({ id, title, times, series, format = short, unit = "" }) {
  const most = roundUp(Math.max(...series.flatMap((one) => given(one.values)), 0));
  const last = series.map((one) => `${one.name} ${format(one.values.at(-1))}${unit}`).join(", ");
  const hovered = pointer.chart === id && times.length > 1 ? Math.round(Math.min(Math.max(pointer.at, 0), 1) * (times.length - 1)) : null;
  const left = hovered === null ? 0 : (hovered / (times.length - 1)) * 100;
  return h("figure", { class: "chart", "data-key": id },
    h("figcaption", null, h("span", { class: "title" }, title),
      h("span", { class: "legend" }, series.map((one) => h("span", { class: `key ${one.colour}` }, one.name)))),
    times.length < 2
      ? h("p", { class: "empty" }, "The chart begins with the next seconds.")
      : h("div", { class: "axes" },
        h("div", { class: "y", "aria-hidden": true }, h("span", null, format(most)), h("span", null, format(most / 2)), h("span", null, "0")),
        h("div", { class: "plot", "data-plot": id },
          s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: now ${last}` },
            [0, HEIGHT / 2, HEIGHT].map((y) => s("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y })),
            series.length === 1 && s("path", { class: `area ${series[0].colour}`, d: `${path(series[0].values.map((value) => value ?? 0), most)}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z` }),
            series.map((one) => s("path", { class: `line ${one.colour}`, d: path(one.values, most) }))),
          hovered !== null && h("div", { class: "cursor", style: { left: `${left}%` } }),
          hovered !== null && h("div", { class: left > 60 ? "tip before" : "tip", style: { left: `${left}%` } },
            h("b", null, clock(times[hovered])),
            series.map((one) => h("span", { class: `key ${one.colour}` }, `${one.name} ${format(one.values[hovered])}${unit}`)))),
        h("div", { class: "x", "aria-hidden": true }, h("span", null, clock(times[0])), h("span", null, clock(times.at(-1))))));
}

/** A line without axes, beside a number. */
export function sparkline(values, colour) {
  const most = Math.max(...given(values), 0) || 1;
  if (given(values).length < 2) return h("div", { class: "spark" });
  return h("div", { class: "spark" },
    s("svg", { viewBox: `0 -4 ${WIDTH} ${HEIGHT + 8}`, preserveAspectRatio: "none", "aria-hidden": true },
      s("path", { class: `area ${colour}`, d: `${path(values.map((value) => value ?? 0), most)}L${WIDTH} ${HEIGHT}L0 ${HEIGHT}Z` }),
      s("path", { class: `line ${colour}`, d: path(values, most) })));
}

/** Bars with their names, the longest of which is full. */
export function bars(rows, { colour = "c1", format = count, label = "" } = {}) {
  const most = Math.max(...rows.map((row) => row.value), 0) || 1;
  return h("ul", { class: "bars", "aria-label": label || null },
    rows.map((row) => h("li", { "data-key": row.name },
      h("span", { class: "name", title: row.name }, row.name),
      h("span", { class: "track" }, h("span", { class: `bar ${colour}`, style: { width: `${(row.value / most) * 100}%` } })),
      h("span", { class: "value", "data-testid": row.state ? `state-${row.state}` : null }, format(row.value)))));
}

const BINS_MAX = 10;

/** Two shares for each bin: of training, and live. */
export function compare(bins, trained, live) {
  const sum = (counts) => counts.reduce((total, one) => total + one, 0) || 1;
  const [ofTraining, ofLive] = [sum(trained), sum(live)];
  const shares = bins.map((name, index) => [name, trained[index] / ofTraining, live[index] / ofLive]);
  const frequent = shares.filter(([, before, now]) => before > 0 || now > 0);
  // A column may have twenty categories, the most frequent first.
  const rest = frequent.length > BINS_MAX ? frequent.splice(BINS_MAX - 1) : [];
  const total = (place) => rest.reduce((share, bin) => share + bin[place], 0);
  const shown = rest.length ? [...frequent, [`${rest.length} more`, total(1), total(2)]] : frequent;
  const most = Math.max(...shown.flatMap(([, before, now]) => [before, now]), 0.0001);
  const bar = (share, colour) => h("span", { class: "track" }, h("span", { class: `bar ${colour}`, style: { width: `${(share / most) * 100}%` } }));
  return h("ul", { class: "compare" }, shown.map(([name, before, now]) =>
    h("li", { title: `${name}: ${percent(before)} in training, ${percent(now)} live` },
      h("span", { class: "name" }, name),
      h("span", { class: "pair" }, bar(before, "c3"), bar(now, "c1")),
      h("span", { class: "value" }, percent(now)))));
}

/** The calibration curve: on the diagonal, probabilities are what they say. */
export function calibration(points) {
  const labels = points.reduce((total, point) => total + point.labels, 0) || 1;
  const at = ({ probability, right }) => [probability * 100, 100 - right * 100];
  const line = points.map((point, index) => `${index ? "L" : "M"}${at(point).map((one) => one.toFixed(2)).join(" ")}`).join("");
  const said = points.map((point) => `${percent(point.probability, 0)} predicted, ${percent(point.right, 0)} true`).join("; ");
  return h("div", { class: "square" },
    h("div", { class: "y", "aria-hidden": true }, h("span", null, "100 %"), h("span", null, "true"), h("span", null, "0 %")),
    s("svg", { viewBox: "-3 -3 106 106", role: "img", "aria-label": `Calibration: ${said}` },
      s("rect", { class: "frame", x: 0, y: 0, width: 100, height: 100 }),
      [25, 50, 75].map((place) => [s("line", { class: "grid", x1: place, x2: place, y1: 0, y2: 100 }), s("line", { class: "grid", x1: 0, x2: 100, y1: place, y2: place })]),
      s("line", { class: "diagonal", x1: 0, y1: 100, x2: 100, y2: 0 }),
      s("path", { class: "line c1", d: line }),
      points.map((point) => s("circle", { class: "dot c1", cx: at(point)[0], cy: at(point)[1], r: 1.4 + 2.6 * Math.sqrt(point.labels / labels) },
        s("title", null, `${percent(point.probability)} predicted, ${percent(point.right)} true, ${count(point.labels)} labels`)))),
    h("div", { class: "x", "aria-hidden": true }, h("span", null, "0 %"), h("span", null, "predicted probability"), h("span", null, "100 %")));
}

/** An estimate with its interval on a scale from `low` to `high`. */
export function interval({ value, error = 0, low, high, colour = "c1", zero = null }) {
  const place = (number) => Math.min(Math.max((number - low) / (high - low || 1), 0), 1) * 100;
  const [from, to] = [place(value - error), place(value + error)];
  return h("span", { class: "interval", "aria-hidden": true },
    zero !== null && h("span", { class: "zero", style: { left: `${place(zero)}%` } }),
    h("span", { class: `range ${colour}`, style: { left: `${from}%`, width: `${Math.max(to - from, 0.5)}%` } }),
    h("span", { class: `mark ${colour}`, style: { left: `${place(value)}%` } }));
}
