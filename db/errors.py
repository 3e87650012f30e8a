"""The base of every refusal that a caller can mend."""


class MusterError(Exception):
    """A use case refused its input; nothing was written.

    `code` is for programs (SCREAMING_SNAKE), `message` says what is wrong and what to do about it, `field` is the
    path of the input that caused it, outermost first; empty when no single field did.
    """

    def __init__(self, code: str, message: str, *, field: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field

    def under(self, *path: str) -> "MusterError":
        """The same refusal, with `path` before its field: how an item of a list names its place in the whole."""
        self.field = (*path, *self.field)
        return self
