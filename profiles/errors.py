"""What this package refuses, and why. Each message says what to do about it."""

from db.errors import MusterError


class ProfileError(MusterError):
    """A use case about people refused its input; nothing of it was written."""


class ProfileNotFound(ProfileError):
    def __init__(self, *, field: tuple[str, ...] = ()) -> None:
        super().__init__(
            "NOT_FOUND", "No such profile in this workspace: check the id, or upsert it first.", field=field
        )


class ProfileErased(ProfileError):
    """Erased people stay erased: what still comes in about them is refused, so that somebody notices and stops."""

    def __init__(self, *, field: tuple[str, ...] = ()) -> None:
        super().__init__(
            "ERASED",
            "This person was erased: stop sending data about them. Somebody else needs another id.",
            field=field,
        )


class BrandNotFound(ProfileError):
    def __init__(self, *, field: tuple[str, ...] = ()) -> None:
        super().__init__(
            "NOT_FOUND", "No such brand in this workspace: check the id, or create the brand first.", field=field
        )


class KeyNotFound(ProfileError):
    def __init__(self, *, field: tuple[str, ...] = ()) -> None:
        super().__init__("NOT_FOUND", "No such key in this workspace: check the id.", field=field)


class WorkspaceNotFound(ProfileError):
    def __init__(self, *, field: tuple[str, ...] = ()) -> None:
        super().__init__("NOT_FOUND", "No such workspace: check the id, or create it first.", field=field)
