// Numbers, times and names as text.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const NONE = "–";

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** A count with separators. */
export const count = (value) => (isNumber(value) ? whole.format(value) : NONE);

/** A number with as many digits as it takes to compare it with others of its size. */
export function short(value) {
  if (!isNumber(value)) return NONE;
  const size = Math.abs(value);
  if (size >= 1e6) return `${(value / 1e6).toFixed(size >= 1e7 ? 0 : 1)}M`;
  if (size >= 1e4) return `${(value / 1e3).toFixed(size >= 1e5 ? 0 : 1)}k`;
  if (size >= 100 || Number.isInteger(value)) return value.toFixed(0);
  return value.toFixed(size >= 10 ? 1 : 2);
}

/** A number with a fixed number of digits. */
export const digits = (value, number = 4) => (isNumber(value) ? value.toFixed(number) : NONE);

export const signed = (value, number = 4) => (isNumber(value) ? `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(number)}` : NONE);

export const percent = (value, number = 1) => (isNumber(value) ? `${(value * 100).toFixed(number)} %` : NONE);

/** Milliseconds in the unit that suits them. */
export function millis(value) {
  if (!isNumber(value)) return NONE;
  if (value < 10) return `${value.toFixed(1)} ms`;
  if (value < 1000) return `${value.toFixed(0)} ms`;
  return span(value);
}

const UNITS = [["d", 86_400_000], ["h", 3_600_000], ["min", 60_000], ["s", 1000]];

/** A span in milliseconds, in its largest unit. */
export function span(value) {
  if (!isNumber(value)) return NONE;
  const [unit, length] = UNITS.find(([, length]) => value >= length) ?? UNITS.at(-1);
  const number = value / length;
  return `${number >= 10 || Number.isInteger(number) ? Math.round(number) : number.toFixed(1)} ${unit}`;
}

/** How long ago a time in milliseconds was. */
export function ago(time, now) {
  if (!isNumber(time)) return NONE;
  const passed = now - time;
  if (Math.abs(passed) < 2000) return "now";
  return passed > 0 ? `${span(passed)} ago` : `in ${span(-passed)}`;
}

/** A time in milliseconds, in full. */
export const moment = (time) => (isNumber(time) ? new Date(time).toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC") : NONE);

/** The first characters of a model's version, which name it everywhere. */
export const version = (name) => (name ? String(name).slice(0, 12) : NONE);

/** The labelled examples of the totals: a correction is not another one. */
export const labelledExamples = ({ examples }) => (examples.outcome ?? 0) + (examples.policy ?? 0);

/** A name of the API in words. */
export const words = (name) => String(name ?? NONE).replaceAll("_", " ");

export const clock = (time) => new Date(time).toLocaleTimeString("en-GB");
