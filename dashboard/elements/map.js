// The page of the address map: try another one, see what it changes, apply it, go back.
//
// What was read from a chosen file once is what is planned and what is applied, whatever becomes of
// the file meanwhile. Every plan says over which map it was made; if another one has been applied
// since, nothing is done, and the plan is to be made anew.
//
// `outcome` is what became of the last choice; its `kind` says what is drawn:
// checking > wrong | plan | failed;  plan > applying > applied | plan with a conflict | failed.

import "./main.js";
import "./system-words.js";
import "./map-words.js";

import { Drawn, h, setText } from "./base.js";
import { live } from "./live.js";
import { ask, post, Refused, upload } from "./map-ask.js";
import { NewCards } from "./map-cards.js";
import { changesNothing, isImpossible, planParts } from "./map-plan.js";
import { problemsPanel } from "./map-problems.js";
import { textOf } from "./map-text.js";
import { Running, Versions } from "./map-versions.js";
import { asCommand, said } from "./said.js";
import { bytes, count } from "./units.js";
import { say } from "./words.js";

const INTERVAL_MS = 2000;
const FILE_BYTES_MAX = 16 * 1024 * 1024; // edge_agent/address_map
const KINDS = ".csv,.txt,.tsv,.xlsx";

class AddressMap extends Drawn {
  start() {
    this.state = null; // of the running map
    this.versions = [];
    this.trouble = null; // why there is no newer state
    this.outcome = null;
    this.#make();
    this.on(document, "language", () => this.#draw());
    this.on(document, "visibilitychange", () => this.#follow());
    this.on(live, "layout", () => this.outcome?.cards?.make());
    for (const type of ["tick", "bars"]) this.on(live, type, () => this.outcome?.cards?.update());
    this.#takeDrops();
    this.leaving.signal.addEventListener("abort", () => clearTimeout(this.next));
    this.#draw();
    this.#follow();
  }

  #make() {
    this.input = h("input", { type: "file", accept: KINDS, hidden: true, onchange: () => this.#choose(this.input.files[0]) });
    this.invitation = h("span");
    this.button = h("button.button.primary", { type: "button", onclick: () => this.input.click() });
    this.what = h("p.hint");
    this.drop = h("section.drop", {}, h("p", {}, this.invitation, this.button), this.what, this.input);
    this.away = h("section.problems.away", { role: "status", hidden: true }, h("h2"), h("p"), h("p.hint"));
    this.result = h("section.outcome", { tabindex: "-1", hidden: true });
    this.said = h("p.hidden", { role: "status" });
    this.running = new Running();
    this.list = new Versions((number) => this.#planVersion(number));
    this.dialog = h("dialog", { "aria-labelledby": "sure-title" });
    this.replaceChildren(this.away, this.drop, this.said, this.result, this.running.node, this.list.node, this.dialog);
  }

  // -- what runs

  #follow() {
    clearTimeout(this.next);
    if (!document.hidden) this.#look();
  }

  async #look() {
    clearTimeout(this.next);
    const known = this.versions[0]?.version;
    try {
      const state = await ask(`/api/map${known === undefined ? "" : `?known=${known}`}`);
      this.trouble = null;
      this.state = state;
      this.versions = state.versions ?? this.versions;
    } catch (error) {
      this.trouble = error;
    }
    if (!this.isConnected) return;
    this.#drawState();
    this.#compare();
    if (this.trouble?.status === 403) return; // a role changes with the session only
    clearTimeout(this.next);
    if (!document.hidden) this.next = setTimeout(() => this.#look(), INTERVAL_MS);
  }

  /** A plan over a map that does not run any more is no plan. */
  #compare() {
    const { outcome, state } = this;
    if (outcome?.kind !== "plan" || outcome.conflict || !state || outcome.plan.over === state.sha256) return;
    this.#show({ ...outcome, conflict: true });
  }

  // -- choosing a file

  /** A file that is dropped anywhere on the page is meant for us. */
  #takeDrops() {
    const inside = (event) => event.dataTransfer?.types.includes("Files");
    const mark = (isOver) => this.drop.toggleAttribute("data-over", isOver);
    this.on(window, "dragover", (event) => {
      if (!inside(event)) return;
      event.preventDefault();
      mark(true);
    });
    this.on(window, "dragleave", (event) => event.relatedTarget ?? mark(false));
    this.on(window, "drop", (event) => {
      if (!inside(event)) return;
      event.preventDefault();
      mark(false);
      if (!this.drop.hidden) this.#choose(event.dataTransfer.files[0]);
    });
  }

  async #choose(file) {
    this.input.value = ""; // the same file may be chosen again
    if (!file) return;
    const { name } = file;
    if (file.size > FILE_BYTES_MAX) {
      return this.#show({ kind: "failed", error: new Refused(413, say("too_large", bytes(FILE_BYTES_MAX))) });
    }
    this.#show({ kind: "checking", name });
    let data;
    try {
      data = await file.arrayBuffer();
    } catch {
      return this.#show({ kind: "failed", error: new Refused(0, say("unreadable")) });
    }
    this.#planFile(name, data);
  }

  #planFile(name, data) {
    return this.#plan({ name, data, again: () => this.#planFile(name, data) }, () => upload("/api/map/plan", data));
  }

  #planVersion(number) {
    const choice = { name: String(number), number, again: () => this.#planVersion(number) };
    return this.#plan(choice, () => ask(`/api/map/versions/${number}/plan`, { timeoutMs: 60000 }));
  }

  async #plan(choice, askForPlan) {
    const mine = { kind: "checking", ...choice };
    this.#show(mine);
    try {
      const plan = await askForPlan();
      if (this.outcome === mine) this.#show({ ...choice, kind: "plan", plan }, { focus: true });
    } catch (error) {
      if (this.outcome === mine) this.#fail(choice, error);
    }
  }

  #fail(choice, error) {
    if (error.status === 422) {
      const text = choice.data ? textOf(choice.data) : null;
      return this.#show({ ...choice, kind: "wrong", ...error.body, text }, { focus: true });
    }
    this.#show({ ...choice, kind: "failed", error }, { focus: true });
  }

  // -- applying

  #apply() {
    const { number, plan } = this.outcome;
    if (number !== undefined) this.#confirm(say("sure_back", number), say("sure_back_why"), say("apply_back", number));
    else if (isImpossible(plan)) this.#confirm(say("sure_impossible"), say("impossible_why"), say("apply"));
    else this.#applyNow();
  }

  /** Ask first; Escape and the second button leave everything as it is. */
  #confirm(title, why, yes) {
    const close = (then) => () => {
      this.dialog.close();
      then?.();
    };
    this.dialog.replaceChildren(
      h("h2", { id: "sure-title" }, title),
      h("p", {}, why),
      h(
        "div.buttons",
        {},
        h("button.button", { type: "button", onclick: close() }, say("cancel")),
        h("button.button.primary", { type: "button", onclick: close(() => this.#applyNow()) }, yes),
      ),
    );
    this.dialog.showModal();
  }

  async #applyNow() {
    const { kind, ...choice } = this.outcome;
    if (kind !== "plan") return;
    const { number, data, plan } = choice;
    const mine = { ...choice, kind: "applying" };
    this.#show(mine);
    try {
      const done = await (number === undefined
        ? upload("/api/map", data, plan.over)
        : post(`/api/map/versions/${number}/rollback`, plan.over));
      const cards = new NewCards(plan.rows.added.first);
      this.#show({ ...choice, kind: "applied", done, cards }, { focus: true });
    } catch (error) {
      if (error.status === 409) this.#show({ ...choice, kind: "plan", conflict: true }, { focus: true });
      else this.#fail(choice, error);
    }
    this.#look();
  }

  // -- drawing

  #draw() {
    setText(this.invitation, `${say("drop_here")} `);
    setText(this.button, say("choose_file"));
    setText(this.what, say("drop_what"));
    if (this.dialog.open) this.dialog.close();
    this.outcome?.cards?.make();
    this.#drawState();
    if (this.outcome) this.#drawOutcome();
  }

  #drawState() {
    const { trouble, state, versions } = this;
    this.away.hidden = !trouble;
    const isForbidden = trouble?.status === 403;
    this.drop.hidden = Boolean(trouble);
    this.running.node.hidden = !state || isForbidden;
    this.list.node.hidden = !state || isForbidden;
    this.toggleAttribute("data-old", Boolean(trouble));
    if (trouble) {
      const [title, why, hint] = this.away.children;
      setText(title, say(isForbidden ? "for_admins" : "map_away"));
      setText(why, trouble.why);
      said(hint, asCommand(trouble.hint));
    }
    this.running.update(state, versions);
    this.list.update(versions, state?.version);
  }

  #show(outcome, { focus = false } = {}) {
    this.outcome = outcome;
    this.#drawOutcome();
    if (focus) this.result.focus();
  }

  #drawOutcome() {
    const { outcome } = this;
    const { title, level = "", parts = [] } = outcome ? this.#draws[outcome.kind](outcome) : {};
    this.result.hidden = !outcome;
    this.result.dataset.kind = outcome?.kind ?? "";
    this.result.dataset.level = level;
    this.result.replaceChildren(...(outcome ? [h("h2", {}, title), ...parts.filter(Boolean)] : []));
    this.result.setAttribute("aria-label", title ?? "");
    setText(this.said, title ?? "");
    this.result.setAttribute("aria-busy", String(["checking", "applying"].includes(outcome?.kind)));
  }

  #draws = {
    checking: ({ name }) => ({ title: say("checking", name) }),
    applying: () => ({ title: say("applying") }),

    wrong: ({ name, problems, count: total, text }) => ({
      title: say("wrong_title", name),
      level: "alarm",
      parts: [
        h("p", {}, say("wrong_why")),
        problemsPanel("upload-problems", problems, total, text),
        buttons(this.#close()),
      ],
    }),

    failed: ({ error, again }) => {
      const hint = h("p.hint");
      said(hint, asCommand(error.hint));
      const retry = again ? h("button.button.primary", { type: "button", onclick: again }, say("again")) : null;
      return { title: say("not_possible"), level: "alarm", parts: [h("p", {}, error.why), hint, buttons(retry, this.#close())] };
    },

    plan: (outcome) => this.#drawPlan(outcome),

    applied: ({ done, plan, cards }) => ({
      title: done.version === null ? say("applied_unkept") : say("applied_title", done.version),
      level: "ok",
      parts: [
        h("p", {}, changesNothing(plan) ? say("plan_nothing") : countsText(plan)),
        cards.node,
        buttons(h("a.button.primary", { href: "/" }, say("to_home")), this.#close("close")),
      ],
    }),
  };

  #drawPlan({ name, number, plan, conflict, again }) {
    const title = number === undefined ? say("plan_title", name) : say("plan_back", number);
    if (conflict) {
      const compare = h("button.button.primary", { type: "button", onclick: again }, say("compare_again"));
      const parts = [h("p", {}, say("conflict_why")), buttons(compare, this.#close())];
      return { title: say("conflict"), level: "warning", parts };
    }
    const isSame = plan.over === plan.sha256;
    const label = number === undefined ? say("apply") : say("apply_back", number);
    const apply = h("button.button.primary", { type: "button", onclick: () => this.#apply() }, label);
    const parts = isSame ? [h("p", {}, say("applied_same"))] : planParts(plan);
    return { title, level: isImpossible(plan) ? "alarm" : "", parts: [...parts, buttons(isSame ? null : apply, this.#close())] };
  }

  #close(word = "cancel") {
    return h("button.button", { type: "button", onclick: () => this.#leave() }, say(word));
  }

  #leave() {
    this.#show(null);
    this.button.focus();
  }
}

const buttons = (...nodes) => h("div.buttons", {}, ...nodes);

const countsText = ({ rows: { added, changed, removed } }) =>
  [
    say("applied_counts", count(added.count)),
    say("applied_changed", count(changed.count)),
    say("applied_removed", count(removed.count)),
  ].join(", ");

customElements.define("plc-map", AddressMap);
