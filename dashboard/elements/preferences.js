// Language, theme, and the source of the data where there is more than one.

import { Drawn, h, icon, setAttribute } from "./base.js";
import { live } from "./live.js";
import { isDark, turnTheme } from "./theme.js";
import { show, view } from "./view.js";
import { otherLanguage, say, setLanguage } from "./words.js";

class Preferences extends Drawn {
  start() {
    this.language = h("button.quiet", { type: "button", onclick: () => setLanguage(otherLanguage()) });
    this.theme = h("button.quiet", { type: "button", onclick: turnTheme });
    this.source = h("select", { hidden: true, onchange: () => this.#choose() });
    this.replaceChildren(this.source, this.language, this.theme);
    this.on(document, "language", () => this.#label());
    this.on(document, "theme", () => this.#label());
    this.on(document, "view", () => this.#label());
    this.on(live, "layout", () => this.#label());
    this.#label();
  }

  #label() {
    const other = otherLanguage() === "en" ? "EN" : "한국어";
    this.language.textContent = other;
    // Who speaks to the page says what is written on the button.
    setAttribute(this.language, "aria-label", `${other}: ${say("language")}`);
    this.theme.replaceChildren(icon(isDark() ? "sun" : "moon"));
    setAttribute(this.theme, "aria-label", say(isDark() ? "light" : "dark"));
    setAttribute(this.source, "aria-label", say("source"));
    this.source.hidden = live.sources.length < 2;
    const chosen = view().get("source") ?? live.sources[0];
    this.source.replaceChildren(
      ...live.sources.map((name) => h("option", { value: name, selected: name === chosen }, say(name))),
    );
  }

  #choose() {
    show({ source: this.source.value === live.sources[0] ? null : this.source.value }, { push: true });
  }
}

customElements.define("plc-preferences", Preferences);
