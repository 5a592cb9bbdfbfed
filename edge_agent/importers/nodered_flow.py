"""A flow of Node-RED as a graph: nodes by id, what stands before and behind them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from edge_agent.importers.base import DEPTH_MAX, Place, is_true, number, text

Node = Mapping[str, object]


class Flow:
    """The nodes of a flow file in file order."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self._by_id = {text(node.get("id")): node for node in nodes}
        self._behind = {key: _targets(node) for key, node in self._by_id.items()}
        self._before: dict[str, list[str]] = {}
        for key, targets in self._behind.items():
            for target in targets:
                self._before.setdefault(target, []).append(key)

    def node(self, key: object) -> Node | None:
        """A node by its id."""
        return self._by_id.get(text(key)) if text(key) else None

    def place(self, node: Node) -> Place:
        """A node as a report names it."""
        name = text(node.get("name"))
        return Place(f"node {text(node.get('id'))}" + (f" ({name})" if name else ""))

    def disabled(self, node: Node) -> str:
        """Why a node does not run; empty if it does."""
        if is_true(node.get("d")):
            return "the node is disabled"
        tab = self.node(node.get("z"))
        if tab is not None and (is_true(tab.get("disabled")) or is_true(tab.get("d"))):
            return "its flow is disabled"
        return ""

    def next_nodes(self, node: Node) -> Iterator[Node]:
        """The nodes that a node's outputs are wired to, through links between tabs too."""
        for found in self._of(_targets(node)):
            if text(found.get("type")) == "link out":
                for link in self._of(_targets(found)):
                    yield from self._of(_targets(link))
            else:
                yield found

    def _of(self, keys: Iterable[str]) -> Iterator[Node]:
        return (self._by_id[key] for key in dict.fromkeys(keys) if key in self._by_id)

    def before(self, node: Node) -> Iterator[Node]:
        """Every node from which a message can reach a node, the nearest first."""
        return self._reach(node, self._before)

    def behind(self, node: Node) -> Iterator[Node]:
        """Every node that a message of a node can reach, the nearest first."""
        return self._reach(node, self._behind)

    def repeat_ms(self, node: Node) -> float | None:
        """How often the nearest inject node that repeats triggers a node; ``None`` if none does."""
        for one in (node, *self.before(node)):
            repeat_s = number(one.get("repeat"))
            if text(one.get("type")) == "inject" and repeat_s:
                return repeat_s * 1_000
        return None

    def _reach(self, node: Node, neighbours: Mapping[str, Sequence[str]]) -> Iterator[Node]:
        seen = edge = {text(node.get("id"))}
        for _ in range(DEPTH_MAX):
            nearest = dict.fromkeys(key for one in edge for key in neighbours.get(one, ()))
            edge = nearest.keys() - seen
            seen = seen | edge
            yield from self._of(key for key in nearest if key in edge)


def _targets(node: Node) -> list[str]:
    """The ids that a node's wires and links lead to."""
    wires = node.get("wires")
    found = [
        target
        for output in (wires if isinstance(wires, list) else [])
        for target in (output if isinstance(output, list) else [])
        if isinstance(target, str)
    ]
    if text(node.get("type")) == "link out":
        links = node.get("links")
        found += (
            [link for link in links if isinstance(link, str)] if isinstance(links, list) else []
        )
    return found
