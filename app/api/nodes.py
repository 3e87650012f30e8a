"""What everything with an id has in common."""

from strawberry import ID

from app.api.declare import about, interface


@interface
class Node:
    """Anything that has an id; `node(id)` finds it again."""

    id: ID = about("The id: a prefix for the kind, and a key.")
