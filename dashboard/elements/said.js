// Sentences of the agent as they came, with the commands in them as commands.

import { h } from "./base.js";

const shown = new WeakMap();

/** Show a sentence: what stands between backticks is code. Only a new one changes anything. */
export function said(node, text) {
  if (shown.get(node) === text) return;
  shown.set(node, text);
  const parts = text.split("`");
  node.replaceChildren(...parts.map((part, place) => (place % 2 ? h("code", {}, part) : part)));
}

const COMMAND = /^(edge-|systemctl )/;

/** A hint; its first part may be a command: "systemctl status x; what else to know". */
export function asCommand(hint) {
  if (!hint || hint.includes("`") || !COMMAND.test(hint)) return hint;
  const [command, ...rest] = hint.split("; ");
  return [`\`${command}\``, ...rest].join("; ");
}
