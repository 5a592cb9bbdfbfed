// What all elements are made of.

/** Makes an element: `h("a.card", {href: "/"}, "text", child)`. */
export function h(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  return fill(node, attributes, children);
}

/** The same for SVG. */
export function s(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  if (classes.length) node.setAttribute("class", classes.join(" "));
  return fill(node, attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Change a text or an attribute only if it differs: most values do not, from tick to tick. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** An element that draws itself: `start` when it is in the page, all listeners gone when it is not. */
export class Drawn extends HTMLElement {
  connectedCallback() {
    this.leaving = new AbortController();
    this.start();
  }

  disconnectedCallback() {
    this.leaving.abort();
    this.replaceChildren();
  }

  /** Listen as long as this element is in the page. */
  on(target, type, listener) {
    target.addEventListener(type, listener, { signal: this.leaving.signal });
  }
}

// React takes the page over after the first paint, when people have begun to use it. It listens on
// the document, which hears of keys and clicks first, and stops those on what it has not reached
// yet. What happens inside an element of ours is none of its business: there nothing stops them.
const DONE_BY_PEOPLE = ["keydown", "keyup", "mousedown", "mouseup", "pointerdown", "pointerup", "click", "dblclick", "input", "change", "drop"];

function goOn(event) {
  if (event.composedPath().some((node) => node instanceof Drawn)) event.stopPropagation = () => {};
}

for (const type of DONE_BY_PEOPLE) addEventListener(type, goOn, { capture: true });

/** Icons, drawn: fonts have none of them everywhere. */
export function icon(name) {
  return s(
    "svg.icon",
    { viewBox: "0 0 24 24", "aria-hidden": "true" },
    s("path", { d: ICONS[name], fill: "none", stroke: "currentColor" }),
  );
}

const ICONS = {
  search: "M11 4a7 7 0 1 1 0 14 7 7 0 0 1 0-14m5 12 4.5 4.5",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z",
  sun: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8M12 2v2m0 16v2M2 12h2m16 0h2M5 5l1.4 1.4M17.6 17.6L19 19M5 19l1.4-1.4M17.6 6.4L19 5",
  warn: "M12 4l9 16H3zM12 10v4m0 3v.5",
};
