"""What was worked out of parts of documents, kept beside them for as long as they live."""

from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import ref

from graphql import Node

V = TypeVar("V")


class Beside(Generic[V]):
    """Something of each node, which `make` makes when it is first asked for.

    By the node itself and not by what it says: graphql-core compares nodes by all that is below them.
    """

    def __init__(self, make: Callable[[], V]) -> None:
        self.make = make
        self.kept: dict[int, tuple[ref[Node], V]] = {}

    def of(self, node: Node) -> V:
        """What is kept of a node."""
        key = id(node)
        known = self.kept.get(key)
        if known is None:
            known = self.kept[key] = (ref(node, lambda _: self.kept.pop(key, None)), self.make())
        return known[1]
