// The live page: choose a symbol, load its history, follow its stream, draw at most once a frame.

import { CandleChart, Candles } from "./candles.js";
import { compact, decimalsOf, duration, percent, price, size } from "./format.js";
import { Ladder, Market, Tape } from "./panels.js";
import { getJson, graphql, LiveStream, NeedsKey } from "./server.js";

const HISTORY_MINUTES = 720;
const MARKET_MS = 2000;
const RECORDED_MS = 24 * 3600 * 1000;

const $ = (id) => document.getElementById(id);
const chart = new CandleChart($("chart"), legend);
const ladder = new Ladder();
const tape = new Tape();
const market = new Market(choose);
const names = new Map(); // symbol → company name
const decimalsSeen = new Map(); // symbol → decimals of its prices

let symbol = null;
let minutes = 1;
let candles = new Candles();
let stream = null;
let live = false;
let last = null;
let day = null;
let latencies = [];
let newestMs = 0;
let dirty = true;
let redraw = true;

function decimals() {
  return decimalsSeen.get(symbol) ?? 2;
}

function seePrice(name, value) {
  if (value === null || value === undefined) return;
  const found = Math.max(2, decimalsOf(value));
  if (found > (decimalsSeen.get(name) ?? 0)) {
    decimalsSeen.set(name, found);
    if (name === symbol) { chart.precision(found); redraw = true; }
  }
}

function choose(name) {
  if (!name || name === symbol) return;
  symbol = name;
  history.replaceState(null, "", `?symbol=${encodeURIComponent(name)}`);
  addOption(name);
  $("symbol").value = name;
  start();
}

function start() {
  stream?.close();
  candles = new Candles();
  ladder.clear();
  tape.clear();
  last = day = null;
  latencies = [];
  newestMs = 0;
  live = false;
  $("alert").hidden = true;
  $("name").textContent = names.has(symbol) ? `${symbol} · ${names.get(symbol)}` : symbol;
  document.title = `${symbol} · Tickhouse live`;
  chart.precision(decimals());
  chart.show([], true);
  chart.toNewest();
  stream = new LiveStream(symbol, {
    onEvent: (event, data) => receive(event, data),
    onStatus: (status) => {
      $("status").textContent = status;
      $("status").className = `status ${status.toLowerCase()}`;
    },
    onNeedsKey: askForKey,
  });
  redraw = dirty = true;
}

async function loadHistory(name) {
  try {
    const [bars, days] = await Promise.all([
      getJson("api/v1/ohlcv", { symbol: name, interval: "1m", limit: HISTORY_MINUTES }),
      getJson("api/v1/ohlcv", { symbol: name, interval: "1d", limit: 1 }),
    ]);
    if (name !== symbol) return;
    for (const bar of bars) {
      seePrice(name, bar.close);
      candles.offer({
        time: bar.epoch_seconds, open: bar.open, high: bar.high, low: bar.low, close: bar.close,
        volume: bar.volume, bought: bar.buy_volume, count: bar.trade_count,
      });
    }
    day = days[0] ? { ...days[0] } : null;
    redraw = dirty = true;
  } catch (error) {
    if (error instanceof NeedsKey) askForKey();
    else console.info("history:", error.message);
  }
}

function receive(event, data) {
  if (event === "hello") {
    data.symbols.forEach(addOption);
    tape.clear();
    live = false;
    return;
  }
  if (event === "live") {
    live = true;
    loadHistory(symbol);
    return;
  }
  if (event === "forming") {
    candles.offer({
      time: data.window_start_us / 1e6, open: data.open, high: data.high, low: data.low, close: data.close,
      volume: data.volume, bought: data.buy_volume, count: data.trade_count,
    });
  } else if (event === "trade") {
    const ms = Date.parse(data.timestamp);
    seePrice(data.symbol, data.price);
    tape.add({ ...data, ms });
    // What comes before "live" is counted in the forming candle already.
    if (live) {
      candles.trade(Math.floor(ms / 1000), data.price, data.quantity, data.is_aggressive_buy);
      if (day) {
        day.high = Math.max(day.high, data.price);
        day.low = Math.min(day.low, data.price);
        day.volume += data.quantity;
      }
    }
    last = { price: data.price, up: !last || data.price === last.price ? (last?.up ?? true) : data.price > last.price };
    measure(ms);
  } else if (event === "quote") {
    seePrice(data.symbol, data.best_bid);
    const ms = Date.parse(data.timestamp);
    ladder.setQuote(data, ms * 1000);
    measure(ms);
  } else if (event === "book") {
    const ms = Date.parse(data.timestamp);
    ladder.setBook(data, ms * 1000);
    measure(ms);
  } else if (event === "bar" && data.window === "1m") {
    candles.close({
      time: Date.parse(data.window_start) / 1000, open: data.open, high: data.high, low: data.low,
      close: data.close, volume: data.volume, bought: data.buy_volume, count: data.trade_count,
    });
  } else if (event === "alert") {
    $("alert").hidden = false;
    $("alert").textContent = `${data.severity} · ${data.message || data.alert_type} · ${String(data.triggered_at).slice(11, 19)} UTC`;
  }
  dirty = true;
}

function measure(ms) {
  newestMs = Math.max(newestMs, ms);
  if (!live) return;
  latencies.push(Math.max(0, Date.now() - ms));
  if (latencies.length > 60) latencies.shift();
}

function legend(bar) {
  if (!bar) { $("legend").textContent = ""; return; }
  const text = (value) => price(value, decimals());
  $("legend").textContent =
    `O ${text(bar.open)}  H ${text(bar.high)}  L ${text(bar.low)}  C ${text(bar.close)}  Vol ${compact(bar.volume)}`;
}

function header() {
  const points = decimals();
  const { bid, ask } = ladder.show(points);
  $("bid").textContent = bid ? price(bid.price, points) : "–";
  $("ask").textContent = ask ? price(ask.price, points) : "–";
  $("spread").textContent = bid && ask ? price(ask.price - bid.price, points) : "–";
  $("last").textContent = last ? price(last.price, points) : "–";
  $("last").className = last ? `price ${last.up ? "up" : "down"}` : "price";
  $("high").textContent = day ? price(day.high, points) : "–";
  $("low").textContent = day ? price(day.low, points) : "–";
  $("volume").textContent = day ? size(Number(day.volume.toPrecision(8))) : "–";
  if (last && day) {
    const change = last.price - day.open;
    $("change").textContent = `${change > 0 ? "+" : ""}${price(change, points)} (${percent((100 * change) / day.open)})`;
    $("change").className = `change ${change < 0 ? "down" : "up"}`;
  } else {
    $("change").textContent = "";
  }
  const sorted = [...latencies].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)];
  if (median === undefined) $("latency").textContent = "–";
  else if (median > RECORDED_MS) $("latency").textContent = `recorded ${new Date(newestMs).toISOString().slice(0, 10)}`;
  else $("latency").textContent = duration(median);
}

function frame() {
  if (dirty) {
    dirty = false;
    header();
    tape.show(decimals());
    const bars = candles.aggregated(minutes);
    chart.show(bars, redraw);
    if (redraw) legend(bars[bars.length - 1]);
    redraw = false;
  }
  requestAnimationFrame(frame);
}

function addOption(name) {
  const select = $("symbol");
  if ([...select.options].some((option) => option.value === name)) return;
  const option = document.createElement("option");
  option.value = option.textContent = name;
  const after = [...select.options].find((other) => other.value > name);
  select.insertBefore(option, after ?? null);
}

async function refreshMarket() {
  try {
    const rows = await getJson("api/v1/market");
    for (const item of rows) {
      addOption(item.symbol);
      seePrice(item.symbol, item.last_price);
      item.decimals = decimalsSeen.get(item.symbol) ?? 2;
    }
    market.show(rows, symbol);
    if (!symbol) choose(rows[0]?.symbol ?? $("symbol").options[0]?.value);
  } catch (error) {
    if (error instanceof NeedsKey) { askForKey(); return; }
    console.info("market:", error.message);
  }
  setTimeout(refreshMarket, MARKET_MS);
}

async function loadSymbols() {
  try {
    const data = await graphql("{ symbols(first: 1000) { edges { node { symbol companyName } } } }");
    for (const { node } of data.symbols.edges) {
      names.set(node.symbol, node.companyName);
      addOption(node.symbol);
    }
    if (symbol && names.has(symbol)) $("name").textContent = `${symbol} · ${names.get(symbol)}`;
  } catch (error) {
    if (error instanceof NeedsKey) askForKey();
    else console.info("symbols:", error.message);
  }
}

function askForKey() {
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

$("key-form").addEventListener("submit", () => {
  sessionStorage.setItem("api-key", $("key").value);
  location.reload();
});
$("symbol").addEventListener("change", (event) => choose(event.target.value));
$("theme").addEventListener("click", () => {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
  chart.paint();
});
for (const button of $("intervals").children) {
  button.addEventListener("click", () => {
    minutes = Number(button.dataset.minutes);
    for (const other of $("intervals").children) other.classList.toggle("on", other === button);
    redraw = dirty = true;
    chart.toNewest();
  });
}

await loadSymbols();
const asked = new URLSearchParams(location.search).get("symbol");
if (asked) choose(asked);
refreshMarket();
requestAnimationFrame(frame);
