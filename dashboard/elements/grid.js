// The grid of cards: what is out of limits first, then warnings, then silent ones, then map order.
//
// Cards outside the window are not touched until they come into it. No card moves while the
// pointer or the keyboard is on the grid: what one is about to click stays where it is.

import { Drawn, h } from "./base.js";
import { Card } from "./card.js";
import { live } from "./live.js";
import { show, view } from "./view.js";
import { say } from "./words.js";

const PLACEHOLDERS = 8; // about a screen
const FIRST_CARDS = 4; // a row: what is painted first
const CARDS_PER_FRAME = 24; // about 10 ms on a Pi-like processor
const canHover = matchMedia("(hover: hover)");
const ORDER = { alarm: 0, warning: 1, stale: 2, ok: 3 };

/** Which devices a view shows; the chips count by it too. */
export function matches(device, state, words, parameters) {
  const query = (parameters.get("q") ?? "").toLocaleLowerCase().split(/\s+/).filter(Boolean);
  const one = (name, value) => {
    const wanted = parameters.getAll(name);
    return !wanted.length || wanted.includes(value);
  };
  return (
    one("state", state) &&
    one("site", device.site) &&
    one("line", device.line) &&
    query.every((word) => words.includes(word))
  );
}

class Grid extends Drawn {
  start() {
    this.cards = [];
    this.places = [];
    this.visible = new Set();
    this.watcher = new IntersectionObserver((entries) => this.#see(entries), { rootMargin: "200px" });
    this.list = h("div.cards");
    this.empty = h("div.empty", { hidden: true });
    this.replaceChildren(this.list, this.empty);
    this.on(live, "layout", () => this.#make());
    this.on(live, "tick", (event) => this.#tick(event.detail));
    this.on(live, "bars", () => this.#drawAll());
    this.on(document, "language", () => this.#drawAll());
    this.on(document, "view", () => this.#arrange());
    // A moment later: focus goes from one card to the next by way of none.
    for (const type of ["pointerleave", "focusout"]) {
      this.on(this.list, type, () => setTimeout(() => this.isConnected && this.#tidy()));
    }
    if (live.ready) this.#make();
    else this.#makePlaceholders();
  }

  /** Whether the first row stands alone, with the rest to come. */
  get #isFirst() {
    return this.room === FIRST_CARDS && this.cards.length > FIRST_CARDS;
  }

  #makePlaceholders() {
    this.places = Array.from({ length: PLACEHOLDERS }, () => h("div.card.placeholder", {}, h("div.thumb")));
    this.list.setAttribute("aria-label", say("loading"));
    this.list.replaceChildren(...this.places);
  }

  #make() {
    this.watcher.disconnect();
    this.visible.clear();
    this.list.removeAttribute("aria-label");
    this.cards = live.devices.map((_, index) => new Card(index));
    this.room = FIRST_CARDS;
    this.shown = null;
    this.list.replaceChildren(...(this.#isFirst ? this.places.slice(FIRST_CARDS) : []));
    this.#arrange();
    performance.mark("cards");
    requestAnimationFrame(() => this.#growLater()); // a frame more: the first cards go to the screen
  }

  /** Behind the next paint, not in front of it. */
  #growLater() {
    requestAnimationFrame(() => setTimeout(() => this.#grow()));
  }

  /** The first screen is painted; now the rest, a few at a time. */
  #grow() {
    if (!this.isConnected || this.room >= this.cards.length) return;
    this.room += CARDS_PER_FRAME;
    this.#arrange();
    this.#growLater();
  }

  #see(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) {
        this.visible.add(target.card);
        target.card.draw();
      } else {
        this.visible.delete(target.card);
      }
    }
  }

  #tick() {
    for (const card of this.visible) card.update();
    this.#tidy();
  }

  #drawAll() {
    for (const card of this.visible) card.draw();
    if (!this.cards.length || !this.shown?.length) this.#arrange();
  }

  #tidy() {
    const pointed = canHover.matches && this.list.matches(":hover");
    if (!pointed && !this.list.contains(document.activeElement)) this.#arrange();
  }

  /** Put the cards that the view wants into their order; only those that moved are touched. */
  #arrange() {
    if (!live.ready) return;
    const parameters = view();
    const wanted = this.cards
      .filter((card) => matches(card.device, card.state, card.words, parameters))
      .sort((one, other) => ORDER[one.state] - ORDER[other.state] || one.index - other.index)
      .slice(0, this.room);
    if (!this.shown || wanted.length !== this.shown.length || wanted.some((card, place) => card !== this.shown[place])) {
      this.shown = wanted;
      let next = this.list.firstElementChild;
      for (const { node } of wanted) {
        if (node === next) next = next.nextElementSibling;
        else {
          if (!node.isConnected) this.watcher.observe(node);
          this.list.insertBefore(node, next);
        }
      }
      while (next) {
        const gone = next;
        next = next.nextElementSibling;
        if (!gone.card && this.#isFirst) continue; // the place of one to come
        this.watcher.unobserve(gone);
        this.visible.delete(gone.card);
        gone.remove();
      }
    }
    this.#explainEmpty();
  }

  #explainEmpty() {
    this.empty.hidden = this.shown.length > 0;
    if (this.empty.hidden) return;
    const [what, why] = this.cards.length ? ["no_match", "no_match_why"] : ["no_devices", "no_devices_why"];
    const reset = () => show({ q: null, state: null, site: null, line: null });
    this.empty.replaceChildren(
      h("h2", {}, say(what)),
      h("p", {}, say(why)),
      this.cards.length ? h("button.chip", { type: "button", onclick: reset }, say("reset")) : "",
    );
  }
}

customElements.define("plc-grid", Grid);
