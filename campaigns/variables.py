"""What templates can name: their context, traits, and what a loop has."""

from collections.abc import Mapping, Sequence

from campaigns.program import Value, dotted

CONTEXT: dict[str, frozenset[str] | None] = {
    "profile": None,
    "traits": None,
    "campaign": frozenset({"name"}),
    "sender": frozenset({"name", "address", "reply_to", "postal_address"}),
    "unsubscribe_url": frozenset(),
    "now": frozenset(),
}
"""The names a template may begin with, and their fields; None: any (a profile's traits), empty: it is a value itself.
`profile` has external_id, email, locale, time_zone, country, city, and every trait under its own name; a trait named
like one of these is reached by `traits`."""
KNOWN_AS = {
    "profile": "profile.<trait>",
    "traits": "traits.<trait>",
    "campaign": "campaign.name",
    "sender": "sender.name",
    "unsubscribe_url": "unsubscribe_url",
    "now": "now",
}
PROFILE_FIELDS = frozenset({"external_id", "email", "locale", "time_zone", "country", "city"})
"""What is a profile's own; every other field of `profile` is the trait of that name."""
LONGEST_NAME = 200
TRACKED_URLS = "tracked_urls"
"""What campaigns/tracking.py calls a recipient's addresses in HTML. Users' templates know no such name, and none of
their loops may use it."""
LOOP_FIELDS = frozenset({"index", "index0", "first", "last", "length"})


def one_name(root: str, keys: Sequence[str | int]) -> str:
    """A path dotted; a trait always begins with `traits`."""
    return dotted("traits" if root == "profile" and keys[0] not in PROFILE_FIELDS else root, keys)


def unnameable(
    root: str, keys: Sequence[str | int], *, context: Mapping[str, frozenset[str] | None], loops: Sequence[str]
) -> str | None:
    """Why no recipient could have what is called so, in a sentence; None when one could. `loops`: the item names of the
    loops around it."""
    if root in loops:
        return None
    fields = LOOP_FIELDS if root == "loop" and loops else context.get(root, frozenset())
    if root not in context and not (root == "loop" and loops):
        known = ", ".join(KNOWN_AS[name] for name in context)
        return f"{root} is not known; there are {known} and loop variables."
    if fields is None:
        if not keys:
            return f"{root} is not a text; name one of its fields, as in {root}.first_name."
    elif not fields and keys:
        return f"{root} has no fields; write {{{{ {root} }}}}."
    elif fields and (len(keys) != 1 or keys[0] not in fields):
        return f"{root} has {', '.join(sorted(fields))}; write one, as in {root}.{min(fields)}."
    return None


def loop_fields(index: int, length: int) -> dict[str, Value]:
    """What `loop` is in round `index` (from 0) of `length`."""
    last = index == length - 1
    return {"index": index + 1, "index0": index, "first": index == 0, "last": last, "length": length}
