// The order book's ladder, the tape and the market list. Only textContent is written: data is never markup.

import { clock, percent, price, size } from "./format.js";

const LEVELS = 10;
const TAPE = 80;

function row(parent, className, cells, tag = "div") {
  const element = document.createElement(tag);
  element.className = className;
  for (let i = 0; i < cells; i += 1) element.append(document.createElement("span"));
  parent.append(element);
  return element;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// A newer top of book than the last full snapshot: its best prices replace what they have overtaken.
function withQuote(levels, best, bestSize, better) {
  if (best === null || best === undefined) return levels;
  const kept = levels.filter((level) => better(best, level.price));
  return [{ price: best, quantity: bestSize }, ...kept];
}

export class Ladder {
  constructor() {
    this.asks = document.getElementById("asks");
    this.bids = document.getElementById("bids");
    this.mid = document.getElementById("mid");
    this.midPrice = document.createElement("span");
    this.midNote = document.createElement("small");
    this.mid.append(this.midPrice, this.midNote);
    for (const side of [this.asks, this.bids]) for (let i = 0; i < LEVELS; i += 1) row(side, "level", 3);
    this.clear();
  }

  clear() {
    this.book = { bids: [], asks: [], us: 0 };
    this.quote = null;
  }

  setBook(book, us) { this.book = { bids: book.bids, asks: book.asks, us }; }

  setQuote(quote, us) { this.quote = { ...quote, us }; }

  show(decimals) {
    let { bids, asks } = this.book;
    const { quote } = this;
    if (quote && quote.us >= this.book.us) {
      bids = withQuote(bids, quote.best_bid, quote.best_bid_size, (best, other) => other < best);
      asks = withQuote(asks, quote.best_ask, quote.best_ask_size, (best, other) => other > best);
    }
    bids = bids.slice(0, LEVELS);
    asks = asks.slice(0, LEVELS);
    const most = Math.max(total(bids), total(asks), 1e-12);
    this.side(this.bids, bids, most, decimals, false);
    this.side(this.asks, asks, most, decimals, true);
    if (bids.length && asks.length) {
      write(this.midPrice, price((bids[0].price + asks[0].price) / 2, decimals + 1));
      const imbalance = (total(bids) - total(asks)) / (total(bids) + total(asks));
      write(this.midNote, `imbalance ${Math.round(imbalance * 100)}%`);
    } else {
      write(this.midPrice, "–");
      write(this.midNote, "");
    }
    const us = Math.max(this.book.us, quote?.us ?? 0);
    write(document.getElementById("book-time"), us ? clock(us / 1000, false) : "");
    return { bid: bids[0], ask: asks[0] };
  }

  side(parent, levels, most, decimals, upwards) {
    let sum = 0;
    for (let i = 0; i < LEVELS; i += 1) {
      const element = parent.children[upwards ? LEVELS - 1 - i : i];
      const level = levels[i];
      sum += level?.quantity ?? 0;
      write(element.children[0], level ? price(level.price, decimals) : "");
      write(element.children[1], level ? size(level.quantity) : "");
      write(element.children[2], level ? size(Number(sum.toPrecision(12))) : "");
      element.style.setProperty("--depth", level ? `${(100 * sum) / most}%` : "0%");
    }
  }
}

function total(levels) {
  return levels.reduce((sum, level) => sum + level.quantity, 0);
}

export class Tape {
  constructor() {
    this.element = document.getElementById("tape");
    this.pending = [];
  }

  clear() {
    this.pending = [];
    this.element.replaceChildren();
  }

  add(trade) { this.pending.push(trade); }

  show(decimals) {
    for (const trade of this.pending.slice(-TAPE)) {
      const full = this.element.children.length >= TAPE;
      const line = full ? this.element.lastElementChild : row(this.element, "row", 3);
      write(line.children[0], clock(trade.ms));
      write(line.children[1], price(trade.price, decimals));
      write(line.children[2], size(trade.quantity));
      line.children[1].className = trade.is_aggressive_buy ? "up" : "down";
      this.element.prepend(line);
    }
    this.pending = [];
  }
}

export class Market {
  constructor(onPick) {
    this.element = document.getElementById("market");
    this.rows = new Map();
    this.onPick = onPick;
  }

  show(rows, chosen) {
    for (const item of rows) {
      let line = this.rows.get(item.symbol);
      if (!line) {
        line = row(this.element, "row", 3, "button");
        line.type = "button";
        line.addEventListener("click", () => this.onPick(item.symbol));
        this.rows.set(item.symbol, line);
      }
      const decimals = item.decimals;
      write(line.children[0], item.symbol);
      write(line.children[1], price(item.last_price, decimals));
      if (item.last_price !== null && item.day_open) {
        const change = (100 * (item.last_price - item.day_open)) / item.day_open;
        write(line.children[2], percent(change));
        line.children[2].className = change < 0 ? "down" : "up";
      } else {
        write(line.children[2], "");
      }
    }
    for (const [symbol, line] of this.rows) line.classList.toggle("on", symbol === chosen);
  }
}
