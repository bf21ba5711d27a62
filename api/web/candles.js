// Minute candles of one symbol from three sources, and the chart that shows them.
// History and the server's open candle fill in, live trades extend the open minute, a closed bar replaces all of it.

const MINUTE = 60;
const KEPT = 3000;

export class Candles {
  constructor() {
    this.minutes = new Map(); // start in epoch seconds → bar
  }

  // A bar that may be incomplete: the one with more trades has seen more of the minute.
  offer(bar) {
    const known = this.minutes.get(bar.time);
    if (known && (known.closed || known.count >= bar.count)) return;
    this.minutes.set(bar.time, { ...bar, closed: false });
  }

  close(bar) {
    this.minutes.set(bar.time, { ...bar, closed: true });
    if (this.minutes.size > KEPT) this.minutes.delete(Math.min(...this.minutes.keys()));
  }

  trade(seconds, price, quantity, bought) {
    const time = seconds - (seconds % MINUTE);
    const bar = this.minutes.get(time);
    if (!bar) {
      this.minutes.set(time, {
        time, open: price, high: price, low: price, close: price,
        volume: quantity, bought: bought ? quantity : 0, count: 1, closed: false,
      });
    } else if (!bar.closed) {
      bar.high = Math.max(bar.high, price);
      bar.low = Math.min(bar.low, price);
      bar.close = price;
      bar.volume += quantity;
      bar.bought += bought ? quantity : 0;
      bar.count += 1;
    }
    return time;
  }

  // Bars of `minutes` each, oldest first.
  aggregated(minutes) {
    const width = minutes * MINUTE;
    const result = [];
    for (const bar of [...this.minutes.values()].sort((a, b) => a.time - b.time)) {
      const time = bar.time - (bar.time % width);
      const last = result[result.length - 1];
      if (!last || last.time !== time) {
        result.push({ ...bar, time });
      } else {
        last.high = Math.max(last.high, bar.high);
        last.low = Math.min(last.low, bar.low);
        last.close = bar.close;
        last.volume += bar.volume;
        last.bought += bar.bought;
        last.count += bar.count;
      }
    }
    return result;
  }
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(name).trim();
}

export class CandleChart {
  constructor(element, onHover) {
    const { createChart, CandlestickSeries, HistogramSeries, CrosshairMode } = window.LightweightCharts;
    this.chart = createChart(element, {
      autoSize: true,
      timeScale: { timeVisible: true, secondsVisible: false, rightOffset: 6, barSpacing: 8, borderVisible: false },
      rightPriceScale: { borderVisible: false },
      crosshair: { mode: CrosshairMode.Normal },
      localization: { locale: "en-US" },
    });
    this.candles = this.chart.addSeries(CandlestickSeries, { borderVisible: false });
    this.volume = this.chart.addSeries(HistogramSeries, {
      priceScaleId: "volume", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false,
    });
    this.chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
    this.candles.priceScale().applyOptions({ scaleMargins: { top: 0.06, bottom: 0.22 } });
    this.shown = [];
    this.chart.subscribeCrosshairMove((move) => {
      const at = move.time === undefined ? undefined : this.shown.find((bar) => bar.time === move.time);
      onHover(at ?? this.shown[this.shown.length - 1]);
    });
    this.paint();
  }

  paint() {
    const colour = colours();
    this.chart.applyOptions({
      layout: { background: { color: colour("--panel") }, textColor: colour("--muted"), fontSize: 11 },
      grid: { vertLines: { color: colour("--line") }, horzLines: { color: colour("--line") } },
    });
    const [up, down] = [colour("--up"), colour("--down")];
    this.candles.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
    this.soft = { up: colour("--up-soft"), down: colour("--down-soft") };
    this.show(this.shown, true);
  }

  precision(decimals) {
    this.candles.applyOptions({ priceFormat: { type: "price", precision: decimals, minMove: 10 ** -decimals } });
  }

  // Draws what changed: usually the last bar or two; everything after a symbol, interval or old bar changed.
  show(bars, all) {
    const known = this.shown;
    let from = 0;
    if (!all && known.length && bars.length >= known.length) {
      while (from < known.length && same(known[from], bars[from])) from += 1;
    }
    this.shown = bars;
    if (from > 0 && from >= known.length - 1) {
      for (const bar of bars.slice(from)) {
        this.candles.update(this.candle(bar));
        this.volume.update(this.column(bar));
      }
      return;
    }
    this.candles.setData(bars.map((bar) => this.candle(bar)));
    this.volume.setData(bars.map((bar) => this.column(bar)));
  }

  candle({ time, open, high, low, close }) {
    return { time, open, high, low, close };
  }

  column({ time, volume, open, close }) {
    return { time, value: volume, color: close >= open ? this.soft.up : this.soft.down };
  }

  toNewest() {
    this.chart.timeScale().resetTimeScale();
    this.candles.priceScale().applyOptions({ autoScale: true });
  }
}

function same(a, b) {
  return a.time === b.time && a.close === b.close && a.volume === b.volume && a.high === b.high && a.low === b.low && a.open === b.open;
}
