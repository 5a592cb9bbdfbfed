// What is shown stands in the URL, and only there: a link shows it to somebody else, the back
// button works, and a server that starts again changes nothing. Listen to "view" on `document`.

export const view = () => new URLSearchParams(location.search);

/** Change parameters: a text, a list, or nothing to remove it. `push` makes a step to go back to. */
export function show(changes, { push = false } = {}) {
  const parameters = view();
  for (const [name, value] of Object.entries(changes)) {
    parameters.delete(name);
    for (const one of [value].flat()) {
      if (one !== undefined && one !== null && one !== "") parameters.append(name, one);
    }
  }
  const query = parameters.toString();
  const url = `${location.pathname}${query ? `?${query}` : ""}`;
  if (url === `${location.pathname}${location.search}`) return;
  // React Router keeps its own position in the history's state.
  history[push ? "pushState" : "replaceState"](history.state, "", url);
  document.dispatchEvent(new Event("view"));
}

addEventListener("popstate", () => document.dispatchEvent(new Event("view")));

/** The chosen source as the beginning of a query, "" for the default one. */
export function sourceQuery() {
  const source = view().get("source");
  return source ? `source=${encodeURIComponent(source)}&` : "";
}

/** Where a device's page is. */
export function deviceUrl(device, tag) {
  const parameters = new URLSearchParams({ site: device.site, device: device.device });
  if (tag) parameters.append("tag", tag);
  const source = view().get("source");
  if (source) parameters.append("source", source);
  return `/detail/?${parameters}`;
}
