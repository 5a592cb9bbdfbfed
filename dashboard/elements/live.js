// The plant as it is now: one stream of server-sent events, shared by all elements of the page.
//
// "layout": other devices or tags, everything is to be drawn anew.
// "tick":   a second has passed; `event.detail` has the numbers of the devices that changed.
// "bars":   the bars of the last hour are new.
// "link":   the stream broke or came back.

import { sourceQuery, view } from "./view.js";

const SILENT_MS = 6000; // the server speaks each second, or each 5 s for a remote
const RETRY_MS = 2000;

class Live extends EventTarget {
  devices = [];
  tags = [];
  values = [];
  tsMs = [];
  qualities = [];
  states = []; // per device: [state, since]
  troubles = new Map(); // by position: {reason, since}
  bars = { end_ms: 0, devices: [] };
  sources = [];
  agent = { up: true, age_s: null, error: null, error_ko: null, well: true, verdict: "", verdict_ko: "" };
  history = { error: null, error_ko: null };
  ready = false;
  linked = false;
  #deviceOf = [];
  #nowMs = 0;
  #heardAt = 0;
  #stream = null;
  #watch = null;
  #source = null;
  #have = ""; // layout and sequence of what is shown

  /** The server's clock. */
  nowMs() {
    return this.ready ? this.#nowMs + (performance.now() - this.#heardAt) : Date.now();
  }

  /** How old the newest answer of the plant is: what all shown values are at least. */
  ageMs() {
    const sinceHeard = performance.now() - this.#heardAt;
    return (this.agent.age_s ?? 0) * 1000 + sinceHeard;
  }

  /** Whether values on the page are new; if not, `ageMs` says how old they are. */
  get fresh() {
    return this.linked && this.agent.up;
  }

  /** The page has asked for a first snapshot already: show it, then listen to what comes next. */
  async begin() {
    const { source, message } = globalThis.firstSnapshot ?? {};
    this.#source = view().get("source");
    this.#listen();
    const first = await message; // mostly there by now, so that the first paint has cards
    if (first && source === this.#source) this.#take(first, true);
    this.connect(); // without a first one the stream begins with a snapshot
  }

  connect() {
    const since = this.#source === view().get("source") && this.ready ? `since=${this.#have}` : "";
    this.#source = view().get("source");
    this.#stream?.close();
    this.#stream = new EventSource(`/api/events?${sourceQuery()}${since}`);
    this.#stream.addEventListener("snapshot", (event) => this.#take(JSON.parse(event.data), true));
    this.#stream.addEventListener("tick", (event) => this.#take(JSON.parse(event.data), false));
    this.#stream.addEventListener("error", () => this.#lose());
    this.#listen();
  }

  close() {
    clearTimeout(this.#watch);
    this.#stream?.close();
    this.#stream = null;
  }

  /** Another source was chosen. */
  follow() {
    if (this.#source !== view().get("source")) this.connect();
  }

  #listen() {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => this.#lose(), SILENT_MS);
  }

  #lose() {
    clearTimeout(this.#watch);
    this.#stream?.close();
    if (this.linked) {
      this.linked = false;
      this.dispatchEvent(new Event("link"));
    }
    this.#watch = setTimeout(() => this.#reconnect(), RETRY_MS);
  }

  async #reconnect() {
    try {
      // A stream does not say why it ended; a session that has ended leads to the login.
      const answer = await fetch("/favicon.svg", { method: "HEAD", cache: "no-store" });
      if (answer.status === 401) return location.reload();
    } catch {
      // Not there yet: the stream fails as well, and we come back here.
    }
    this.connect();
  }

  #take(message, whole) {
    this.#have = `${message.layout ?? this.#have.split(".")[0]}.${message.sequence}`;
    this.#nowMs = message.now_ms;
    this.#heardAt = performance.now();
    this.agent = message.agent;
    this.history = { error: message.history_error, error_ko: message.history_error_ko };
    this.#listen();
    const before = this.linked;
    this.linked = true;
    if (whole) this.#replace(message);
    if (!before) this.dispatchEvent(new Event("link"));
    if (whole) {
      this.dispatchEvent(new Event("layout"));
      return;
    }
    const changed = this.#apply(message);
    this.dispatchEvent(new CustomEvent("tick", { detail: changed }));
    if (message.bars) {
      this.bars = message.bars;
      this.dispatchEvent(new Event("bars"));
    }
  }

  #replace(message) {
    const { devices, tags, values, states, bars, sources } = message;
    Object.assign(this, { devices, tags, values, states, bars, sources });
    this.tsMs = message.ts_ms;
    this.qualities = [...message.qualities];
    this.#setTroubles(message.troubles);
    this.#deviceOf = [];
    devices.forEach((device, index) => {
      for (const position of device.tags) this.#deviceOf[position] = index;
    });
    this.ready = true;
  }

  #apply(message) {
    const changed = new Set();
    for (const [position, value, tsMs, quality] of message.changes ?? []) {
      this.values[position] = value;
      this.tsMs[position] = tsMs;
      this.qualities[position] = quality;
      changed.add(this.#deviceOf[position]);
    }
    if (message.troubles) {
      for (const position of this.troubles.keys()) changed.add(this.#deviceOf[position]);
      this.#setTroubles(message.troubles);
      for (const position of this.troubles.keys()) changed.add(this.#deviceOf[position]);
    }
    for (const [index, state, since] of message.states ?? []) {
      this.states[index] = [state, since];
      changed.add(index);
    }
    return changed;
  }

  #setTroubles(list) {
    this.troubles = new Map(list.map(([position, reason, since]) => [position, { reason, since }]));
  }
}

export const live = new Live();

live.begin();
document.addEventListener("view", () => live.follow());
// A page in the back/forward cache keeps no stream.
addEventListener("pagehide", () => live.close());
addEventListener("pageshow", (event) => event.persisted && live.connect());
