"""Where tracked links lead, remembered in the process: a redirect needs no database once its link was followed here."""

from collections import OrderedDict

from app.patience import within
from campaigns import responses
from campaigns.responses import Target

MOST_TARGETS = 4_096
"""Links that a process remembers; each some hundred bytes, 3 KB at most."""
LOOK_UP_WITHIN_S = 5.0


class Targets:
    """The links asked for last. What a link is never changes, so nothing here grows old."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, Target] = OrderedDict()

    async def find(self, link_id: int) -> Target | None:
        """See `campaigns.responses.find_target`. Raises what `app.patience.UNREACHABLE` lists, for those not known."""
        if (known := self._known.get(link_id)) is not None:
            self._known.move_to_end(link_id)
            return known
        found = await within(LOOK_UP_WITHIN_S, responses.find_target(link_id))
        if found is not None:
            self._known[link_id] = found
            if len(self._known) > MOST_TARGETS:
                self._known.popitem(last=False)
        return found
