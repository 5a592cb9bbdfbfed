// What is broken, in a sentence, with the age of what is shown. It also makes the page grey while
// nothing on it is new, and says so to who does not see it.

import { Drawn, h, icon, setAttribute, setText } from "./base.js";
import { live } from "./live.js";
import { ago, say, told } from "./words.js";

const PATIENCE_MS = 1500; // a page that is just being loaded is not broken

class Banner extends Drawn {
  start() {
    this.text = h("strong");
    this.detail = h("span");
    this.more = h("a", { href: "/system/" });
    this.box = h("div.banner", { hidden: true, role: "status" }, icon("warn"), this.text, this.detail, this.more);
    this.replaceChildren(this.box);
    for (const type of ["layout", "tick", "link"]) this.on(live, type, () => this.#update());
    this.on(document, "language", () => this.#update());
    this.born = performance.now();
    // While the stream is broken nobody else says that time passes.
    const timer = setInterval(() => live.linked || this.#update(), 1000);
    this.leaving.signal.addEventListener("abort", () => clearInterval(timer));
  }

  #update() {
    const trouble = this.#trouble();
    document.documentElement.toggleAttribute("data-old", live.ready && !live.fresh);
    this.box.hidden = !trouble;
    if (!trouble) return;
    setAttribute(this.box, "data-level", trouble.level);
    setText(this.text, trouble.text);
    setText(this.detail, trouble.detail);
    setText(this.more, say("system"));
    this.more.hidden = trouble.level !== "warning" || location.pathname === "/system/";
  }

  #trouble() {
    const age = () => (live.ready ? say("shown_from", ago(live.ageMs())) : "");
    if (!live.linked) {
      const waiting = !live.ready && performance.now() - this.born < PATIENCE_MS;
      return waiting ? null : { level: "broken", text: say("server_away"), detail: age() };
    }
    if (!live.agent.up) {
      const seen = live.agent.age_s === null ? "" : age();
      return { level: "broken", text: say("agent_away"), detail: seen || told(live.agent, "error") };
    }
    if (!live.agent.well && live.agent.verdict) {
      return { level: "warning", text: say("not_well"), detail: told(live.agent, "verdict") };
    }
    if (live.history.error) {
      return { level: "warning", text: say("history_away"), detail: told(live.history, "error") };
    }
    return null;
  }
}

customElements.define("plc-banner", Banner);
