// Numbers and times as text. Times are UTC; sizes keep the decimals they have.

export function decimalsOf(value) {
  const text = String(value);
  if (text.includes("e-")) return Math.min(8, Number(text.split("e-")[1]) + (text.split("e")[0].split(".")[1] || "").length);
  return Math.min(8, (text.split(".")[1] || "").length);
}

const fixed = new Map();
export function price(value, decimals) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!fixed.has(decimals)) {
    fixed.set(decimals, new Intl.NumberFormat("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }));
  }
  return fixed.get(decimals).format(value);
}

const free = new Intl.NumberFormat("en-US", { maximumFractionDigits: 8 });
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 2 });
export function size(value) {
  return value >= 1e6 ? short.format(value) : free.format(value);
}

export function compact(value) {
  return value === null || value === undefined ? "–" : short.format(value);
}

export function percent(value) {
  return `${value > 0 ? "+" : ""}${value.toFixed(2)}%`;
}

export function clock(ms, millis = true) {
  return new Date(ms).toISOString().slice(11, millis ? 23 : 19);
}

export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.round(ms / 60_000)} min`;
}
