// The system page: is the agent well, and where does data stop?
//
// It asks each two seconds while somebody looks, and changes in place. What is not answered any
// more stays as it was, grey, with its age.

import "./main.js";
import "./system-words.js";

import { Drawn, h, setAttribute, setText } from "./base.js";
import { connectionFlow, journalFlow, Rates, sinkFlow } from "./flows.js";
import { checksOf, Panels } from "./panels.js";
import { pictureOf } from "./picture.js";
import { Pipeline } from "./pipeline.js";
import { asCommand, said } from "./said.js";
import { Figures } from "./tables.js";
import { count } from "./units.js";
import { sourceQuery } from "./view.js";
import { ago, duration, say, told } from "./words.js";

const INTERVAL_MS = 2000;
const TIMEOUT_MS = 8000; // the server waits up to 5 s for the agent
const NAMED_MAX = 3;
const HASH_SHOWN = 8;

class System extends Drawn {
  start() {
    this.rates = new Rates();
    this.answer = null; // the newest one
    this.failure = null; // of the server itself
    this.known = { status: null, losses: null, atMs: null }; // the newest of the agent
    this.#make();
    this.on(document, "language", () => this.#draw());
    this.on(document, "view", () => this.#follow());
    this.on(document, "visibilitychange", () => this.#follow());
    const clock = setInterval(() => this.grey && !document.hidden && this.#head(), 1000);
    this.leaving.signal.addEventListener("abort", () => {
      clearInterval(clock);
      this.#stop();
      this.pipeline.close();
    });
    this.#draw();
    this.#follow();
  }

  #make() {
    this.dot = h("i.dot");
    this.words = h("strong");
    this.detail = h("p.detail");
    this.hint = h("p.hint");
    this.facts = new Figures("facts");
    this.problemsTitle = h("h2", { id: "problems-title" });
    this.problemsList = h("ul");
    const label = { "aria-labelledby": "problems-title" };
    this.problems = h("section.problems", label, this.problemsTitle, this.problemsList);
    this.pipeline = new Pipeline();
    this.panels = new Panels();
    this.replaceChildren(
      h(
        "section.head",
        {},
        h("div.verdict", { role: "status" }, this.dot, this.words),
        h("div.why", {}, this.detail, this.hint),
        this.facts.node,
      ),
      this.problems,
      this.pipeline.node,
      ...this.panels.nodes,
    );
  }

  // -- asking

  /** Another source, or the page came into sight or went out of it: ask anew, or not at all. */
  #follow() {
    this.#stop();
    if (!document.hidden) this.#ask();
  }

  #stop() {
    clearTimeout(this.next);
    this.asking?.abort();
    this.asking = null;
  }

  async #ask() {
    const asking = new AbortController();
    this.asking = asking;
    const started = performance.now();
    const timeout = setTimeout(() => asking.abort(), TIMEOUT_MS);
    try {
      const response = await fetch(`/api/system?${sourceQuery()}`, { cache: "no-store", signal: asking.signal });
      const body = await response.json();
      if (!response.ok) throw new Error(told(body, "error") ?? response.statusText);
      if (this.asking === asking) this.#take(body);
    } catch (error) {
      if (this.asking !== asking) return; // nobody waits for it any more
      // What the browser says of a network that is away tells nothing more.
      this.failure = { said: asking.signal.aborted || error instanceof TypeError ? "" : error.message };
      this.#draw();
    } finally {
      clearTimeout(timeout);
    }
    if (this.asking !== asking) return;
    const rest = INTERVAL_MS - (performance.now() - started);
    this.next = setTimeout(() => this.#ask(), Math.max(rest, INTERVAL_MS / 4));
  }

  #take(answer) {
    this.failure = null;
    this.answer = answer;
    if (!answer.agent.error) {
      this.known = { status: answer.agent, losses: answer.losses, atMs: performance.now() };
      this.rates.add(answer.agent);
    }
    this.#draw();
  }

  // -- drawing

  /** Whether what is shown of the agent is not of now. */
  get grey() {
    return Boolean(this.failure ?? this.answer?.agent.error);
  }

  #draw() {
    const { answer, known, rates } = this;
    const health = answer && { ...answer.health, source: answer.source };
    const shown = { ...known, health, replication: answer?.replication ?? null };
    if (this.grey) setAttribute(this, "data-old", this.failure ? "all" : "agent");
    else this.removeAttribute("data-old");
    this.#list(shown); // before the head, which says whether there is any problem
    this.#head();
    this.#facts();
    this.pipeline.update(pictureOf(shown.status, shown.replication, rates));
    this.panels.update(shown, rates);
  }

  #head() {
    const { level, words, detail, hint = "" } = this.#verdict();
    setAttribute(this.dot, "data-level", level);
    setText(this.words, words);
    setText(this.detail, detail);
    setAttribute(this.detail, "title", detail); // of a long one the page shows only the beginning
    said(this.hint, hint);
    this.hint.hidden = !hint;
  }

  #verdict() {
    const { answer, known, failure } = this;
    const age = known.atMs === null ? "" : say("shown_from", ago(performance.now() - known.atMs));
    const old = (why) => [age, why].filter(Boolean).join(" · ");
    if (failure) return { level: "away", words: say("server_away"), detail: old(failure.said) };
    if (!answer) return { level: "away", words: say("loading"), detail: "" };
    const { agent } = answer;
    if (agent.error) {
      const hint = asCommand(told(agent, "hint"));
      return { level: "away", words: say("agent_away"), detail: old(told(agent, "error")), hint };
    }
    return { ...this.#judge(agent), detail: agent.well ? this.#scope(agent) : told(agent, "verdict") };
  }

  /** What it is that flows. */
  #scope({ connections, sinks }) {
    const sum = (key) => count(connections.reduce((all, one) => all + one[key], 0));
    const kept = sinks.reduce((all, { quarantined }) => all + quarantined, 0);
    return [
      `${say("good")} ${sum("tags_good")}/${sum("tags")}`,
      `${say("connections")} ${count(connections.length)}`,
      `${say("sinks")} ${sinks.map(({ name }) => name).join(", ") || count(0)}`,
      ...(kept ? [`${say("quarantined")} ${count(kept)}`] : []),
    ].join(" · ");
  }

  /** The same order of what matters as the agent's own verdict. */
  #judge(status) {
    const { connections, journal, sinks } = status;
    const stopped = journal.full
      ? []
      : connections.filter((one) => connectionFlow(one, journal, this.rates) === "stopped").map(({ conn }) => conn);
    const stops = [
      ...(stopped.length > 1 && stopped.length === connections.length ? [say("every_plc")] : stopped),
      ...(journalFlow(journal) === "stopped" ? [say("journal")] : []),
      ...sinks.filter((sink) => sink.error).map(({ name }) => name),
    ];
    if (stops.length) return { level: "stopped", words: say("stops_at", named(stops)) };
    const behind = sinks.filter((sink) => sinkFlow(sink) === "behind").map(({ name }) => name);
    if (behind.length) return { level: "behind", words: say("catching_up", named(behind)) };
    const well = status.well && !this.problemsList.children.length;
    return well ? { level: "ok", words: say("all_well") } : { level: "behind", words: say("needs_a_look") };
  }

  #facts() {
    const agent = this.known.status?.agent;
    const file = agent?.map?.split(/[\\/]/).at(-1);
    this.facts.update([
      [say("uptime"), agent ? duration(agent.uptime_s * 1000) : "–"],
      [say("version"), agent?.version ?? "–"],
      [say("agent"), agent?.id ?? "–"],
      [
        say("tags"),
        agent ? count(agent.tags) : "–",
        { note: agent?.disabled_tags ? say("disabled", count(agent.disabled_tags)) : "" },
      ],
      [say("map"), file ?? "–", { note: agent?.map_sha256?.slice(0, HASH_SHOWN) ?? "", title: agent?.map ?? "" }],
    ]);
  }

  /** What is wrong although data may flow, each sentence once. */
  #list({ status, losses, health, replication }) {
    const own = (body) => (body && told(body, "problems")) ?? [];
    const all = [...(status?.problems ?? []), ...(replication?.problems ?? [])];
    const known = (sentence) => all.some((one) => one.endsWith(sentence));
    const sentences = [
      ...own(status),
      ...own(replication).map((one) => `${say("replication")}: ${one}`),
      ...(replication?.error ? [`${say("replication_away")}: ${hinted(replication)}`] : []),
      ...checksOf(status, health, replication)
        .filter(({ problem }) => problem && !known(problem))
        .map((check) => `${say(check.where)}: ${told(check, "problem")}`),
      ...(health?.error ? [`${say("history_away")}: ${hinted(health)}`] : []),
      ...(losses?.error && !this.grey ? [`${say("losses_away")}: ${hinted(losses)}`] : []),
    ];
    const { children } = this.problemsList;
    while (children.length > sentences.length) this.problemsList.lastChild.remove();
    while (children.length < sentences.length) this.problemsList.append(h("li"));
    sentences.forEach((sentence, place) => said(children[place], sentence));
    setText(this.problemsTitle, say("problems"));
    this.problems.hidden = !sentences.length;
  }
}

/** The first few names, and how many more. */
function named(names) {
  const more = names.length - NAMED_MAX;
  return [...names.slice(0, NAMED_MAX), ...(more > 0 ? [say("and_more", more)] : [])].join(", ");
}

function hinted(body) {
  const error = told(body, "error");
  return body.hint ? `${error}; ${asCommand(told(body, "hint"))}` : error;
}

customElements.define("plc-system", System);
