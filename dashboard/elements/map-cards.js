// The cards of devices that got new tags, as soon as the plant has them.

import { h, setText } from "./base.js";
import { Card } from "./card.js";
import { live } from "./live.js";
import { say } from "./words.js";

const CARDS_MAX = 12; // the home page has them all

/** `keys` are site/device/tag of rows that were added. */
export class NewCards {
  constructor(keys) {
    this.wanted = new Map();
    for (const key of keys) {
      const [site, device, tag] = key.split("/");
      const place = JSON.stringify([site, device]);
      this.wanted.set(place, [...(this.wanted.get(place) ?? []), tag]);
    }
    this.cards = [];
    this.title = h("h3");
    this.wait = h("p.hint");
    this.list = h("div.cards");
    this.node = h("div.new", { hidden: !this.wanted.size }, this.title, this.wait, this.list);
    this.make();
  }

  /** Another layout, or another language. */
  make() {
    setText(this.title, say("new_cards"));
    setText(this.wait, say("new_cards_wait"));
    this.cards = live.devices
      .map((device, index) => (this.#isNew(device) ? index : -1))
      .filter((index) => index >= 0)
      .slice(0, CARDS_MAX)
      .map((index) => new Card(index));
    this.list.replaceChildren(...this.cards.map(({ node }) => node));
    this.wait.hidden = this.cards.length > 0;
  }

  update() {
    for (const card of this.cards) card.update();
  }

  /** Whether a device is there with all that it was to get. */
  #isNew({ site, device, tags }) {
    const wanted = this.wanted.get(JSON.stringify([site, device]));
    const own = new Set(tags.map((position) => live.tags[position].tag));
    return wanted?.every((tag) => own.has(tag)) ?? false;
  }
}
