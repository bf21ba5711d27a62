// Talking to the API: JSON requests, and the event stream with reconnection.
// fetch() instead of EventSource, because only fetch() can send the key.

const SILENT_MS = 15_000; // the server writes at least every 5 s
const RETRY_MS = [300, 1000, 2000, 4000, 8000];

export class NeedsKey extends Error {}

function headers() {
  const key = sessionStorage.getItem("api-key");
  return key ? { "X-API-Key": key } : {};
}

async function checked(response) {
  if (response.status === 401) throw new NeedsKey("the API asks for a key");
  if (!response.ok) throw new Error(`${response.url}: ${response.status}`);
  return response;
}

export async function getJson(path, parameters = {}) {
  const query = new URLSearchParams(parameters);
  return (await checked(await fetch(`${path}?${query}`, { headers: headers() }))).json();
}

export async function graphql(query, variables = {}) {
  const response = await fetch("graphql", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers() },
    body: JSON.stringify({ query, variables }),
  });
  const answer = await (await checked(response)).json();
  if (answer.errors) throw new Error(answer.errors[0].message);
  return answer.data;
}

// Splits the text of an event stream into {event, data}; comments and unknown fields go.
export function* parseEvents(buffer) {
  for (;;) {
    const end = buffer.text.indexOf("\n\n");
    if (end < 0) return;
    const block = buffer.text.slice(0, end);
    buffer.text = buffer.text.slice(end + 2);
    let event = "message";
    let data = null;
    for (const line of block.split("\n")) {
      if (line.startsWith("event: ")) event = line.slice(7);
      else if (line.startsWith("data: ")) data = line.slice(6);
    }
    if (data !== null) yield { event, data };
  }
}

// Follows the live stream of one symbol until closed: onEvent(name, data), onStatus("CONNECTING" | "LIVE" | "DISCONNECTED").
export class LiveStream {
  constructor(symbol, { onEvent, onStatus, onNeedsKey }) {
    this.symbol = symbol;
    this.onEvent = onEvent;
    this.onStatus = onStatus;
    this.onNeedsKey = onNeedsKey;
    this.closed = false;
    this.run();
  }

  close() {
    this.closed = true;
    this.abort?.abort();
  }

  async run() {
    for (let failures = 0; !this.closed; ) {
      this.onStatus(failures > 1 ? "DISCONNECTED" : "CONNECTING");
      try {
        await this.follow(() => { failures = 0; });
      } catch (error) {
        if (error instanceof NeedsKey) { this.onNeedsKey(); return; }
        if (!this.closed) console.info("live stream:", error.message);
      }
      if (this.closed) return;
      this.onStatus(failures > 0 ? "DISCONNECTED" : "CONNECTING");
      await new Promise((done) => setTimeout(done, RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]));
      failures += 1;
    }
  }

  async follow(onLive) {
    this.abort = new AbortController();
    let watchdog = setTimeout(() => this.abort.abort(), SILENT_MS);
    try {
      const address = `api/v1/live?symbol=${encodeURIComponent(this.symbol)}`;
      const response = await checked(await fetch(address, { headers: headers(), signal: this.abort.signal }));
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const buffer = { text: "" };
      for (;;) {
        const { value, done } = await reader.read();
        if (done || this.closed) return;
        clearTimeout(watchdog);
        watchdog = setTimeout(() => this.abort.abort(), SILENT_MS);
        buffer.text += value;
        for (const { event, data } of parseEvents(buffer)) {
          if (event === "bye") return;
          const content = JSON.parse(data);
          if (event === "live") onLive();
          // The server is there, but may have lost its own source.
          if (event === "live" || event === "state") this.onStatus(content.connected ? "LIVE" : "DISCONNECTED");
          this.onEvent(event, content);
        }
      }
    } finally {
      clearTimeout(watchdog);
    }
  }
}
