// The running map with its figures, why the file is not it, and every version there is.

import { h, setText } from "./base.js";
import { problemsPanel } from "./map-problems.js";
import { Figures } from "./tables.js";
import { count, when } from "./units.js";
import { say, told } from "./words.js";

const HASH_SHOWN = 12;

/** Figures of what runs, and the trouble with the file. Changes in place. */
export class Running {
  constructor() {
    this.title = h("h2", { id: "running-title" });
    this.facts = new Figures("facts");
    this.download = h("a.button", { href: "/api/map/file", download: "" });
    this.trouble = h("section.problems", { hidden: true });
    this.node = h(
      "section.running",
      { "aria-labelledby": "running-title" },
      h("header", {}, this.title, this.download),
      this.trouble,
      this.facts.node,
    );
  }

  update(state, versions) {
    setText(this.title, say("running"));
    setText(this.download, say("download_running"));
    const version = versions.find((one) => one.version === state?.version);
    this.facts.update([
      [say("map_version"), state?.version ? String(state.version) : "–"],
      [say("load_tags"), version ? count(version.tags) : "–"],
      [say("applied_at"), version ? when(version.applied_at_ms) : "–", { note: version ? say("by", version.author) : "" }],
      [say("hash"), state?.sha256.slice(0, HASH_SHOWN) ?? "–", { title: state?.sha256 ?? "" }],
      [say("file_path"), state?.path ?? "–"],
    ]);
    this.#tell(state);
  }

  /** Only another trouble is drawn anew: who reads it must not lose their place. */
  #tell(state) {
    this.trouble.hidden = !state?.error;
    const drawn = JSON.stringify([state?.error, state?.problems, document.documentElement.lang]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    if (!state?.error) return this.trouble.replaceChildren();
    const total = state.problems.length;
    this.trouble.replaceChildren(
      h("h2", {}, say("file_differs")),
      h("p", {}, told(state, "error")),
      h("p.hint", {}, say("file_differs_since", when(state.error_since_ms))),
      total ? problemsPanel("file-problems", state.problems, total) : "",
    );
  }
}

/** All versions, newest first. `goBack` is called with the number of one. */
export class Versions {
  constructor(goBack) {
    this.goBack = goBack;
    this.title = h("h2", { id: "versions-title" });
    this.sum = h("span.sum");
    this.head = h("thead");
    this.body = h("tbody");
    this.caption = h("caption.hidden");
    this.empty = h("p.none");
    this.scroll = h(
      "div.scroll",
      { role: "region", tabindex: "0" },
      h("table", {}, this.caption, this.head, this.body),
    );
    this.node = h(
      "section.panel",
      { id: "versions", "aria-labelledby": "versions-title" },
      h("header", {}, this.title, this.sum),
      this.empty,
      this.scroll,
    );
  }

  update(versions, running) {
    const drawn = JSON.stringify([versions[0]?.version, versions.length, running, document.documentElement.lang]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    setText(this.title, say("versions"));
    setText(this.sum, versions.length ? say("versions_kept", count(versions.length)) : "");
    setText(this.caption, say("versions"));
    this.scroll.setAttribute("aria-label", say("versions"));
    setText(this.empty, say("no_versions"));
    this.empty.hidden = versions.length > 0;
    this.scroll.hidden = !versions.length;
    const heads = [
      ["version_number", ".number"],
      ["when_applied"],
      ["who"],
      ["how"],
      ["load_tags", ".number"],
      ["change"],
      ["hash"],
      ["actions"],
    ];
    const cells = heads.map(([word, kind = ""]) => h(`th${kind}`, { scope: "col" }, say(word)));
    this.head.replaceChildren(h("tr", {}, ...cells));
    this.body.replaceChildren(...versions.map((version) => this.#row(version, version.version === running)));
  }

  #row(version, isRunning) {
    const plain = { "data-tone": "plain" };
    const { version: number, added, changed, removed } = version;
    const download = h(
      "a.button",
      { href: `/api/map/versions/${number}`, download: "", "aria-label": say("download_version", number) },
      say("download"),
    );
    const back = h(
      "button.button",
      { type: "button", "aria-label": say("go_back_to", number), onclick: () => this.goBack(number) },
      say("go_back"),
    );
    return h(
      "tr",
      { "data-version": number },
      h("th.number", { scope: "row" }, String(number)),
      h("td", plain, when(version.applied_at_ms)),
      h("td", plain, version.author),
      h("td", plain, howText(version.how)),
      h("td.number", plain, count(version.tags)),
      h("td.change", plain, `+${count(added)} ~${count(changed)} −${count(removed)}`),
      h("td", { ...plain, title: version.sha256 }, version.sha256.slice(0, HASH_SHOWN)),
      h("td", plain, h("div.actions", {}, download, isRunning ? h("strong", {}, say("is_running")) : back)),
    );
  }
}

function howText(how) {
  const number = /^rollback to (\d+)$/.exec(how)?.[1];
  if (number) return say("how_rollback", number);
  return ["start", "file", "upload"].includes(how) ? say(`how_${how}`) : how;
}
