"""What contents ask about those who get them."""

from app.api.declare import about, output
from app.api.scalars import Json


@output
class ContentVariable:
    """Something about recipients or viewers that a content asks for."""

    name: str = about("As it is written: profile.first_name in an email, first_name in a banner.")
    default: Json | None = about("What is declared to stand for it where somebody has none; null: nothing is.")
