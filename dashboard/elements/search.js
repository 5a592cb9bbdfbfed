// The search field. What is typed stands in the URL a moment later; "/" leads here from anywhere.

import { Drawn, h, icon, setAttribute } from "./base.js";
import { show, view } from "./view.js";
import { say } from "./words.js";

const DEBOUNCE_MS = 150;

class Search extends Drawn {
  start() {
    this.input = h("input", { type: "search", name: "q", autocomplete: "off", spellcheck: "false" });
    this.button = h("button", { type: "submit" }, icon("search"));
    // Elsewhere than on the home page a search leads there.
    const form = h("form", { action: "/", role: "search" }, this.input, this.button);
    this.replaceChildren(form);
    this.input.value = view().get("q") ?? "";
    this.on(this.input, "input", () => this.#type());
    this.on(form, "submit", (event) => this.#submit(event));
    this.on(document, "view", () => this.#follow());
    this.on(document, "language", () => this.#label());
    this.on(document, "keydown", (event) => this.#key(event));
    this.#label();
  }

  #label() {
    setAttribute(this.input, "placeholder", say("search"));
    setAttribute(this.input, "aria-label", say("search"));
    setAttribute(this.button, "aria-label", say("search"));
  }

  #type() {
    clearTimeout(this.timer);
    if (location.pathname !== "/") return;
    this.timer = setTimeout(() => show({ q: this.input.value.trim() }), DEBOUNCE_MS);
  }

  #submit(event) {
    if (location.pathname !== "/") return;
    event.preventDefault();
    clearTimeout(this.timer);
    show({ q: this.input.value.trim() });
  }

  #follow() {
    const query = view().get("q") ?? "";
    if (document.activeElement !== this.input) this.input.value = query;
  }

  #key(event) {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      this.input.select();
    } else if (event.key === "Escape" && event.target === this.input) {
      this.input.value = "";
      this.#type();
    }
  }
}

customElements.define("plc-search", Search);
