"""What a banner says: as marketers write it, and as one viewer sees it."""

from dataclasses import fields
from typing import Any

from app.api.declare import about, input_type, output
from app.api.scalars import Json
from app.api.variables import ContentVariable
from app.problems import ApiError, camel
from campaigns import banner_content

ACTION_URL = (
    "Where its button leads: an https address, or one of the app's own, such as myapp://offers/1, of a scheme that the"
    " placement allows."
)
TEXT = "{{name}} stands for a variable."


@output
class BannerFace:
    """What a viewer sees. Apps draw it, so it has facts and no markup: escape its texts within HTML."""

    title: str = about("Its title.")
    body: str = about("Its text.")
    image_url: str | None = about("An image.")
    dark_image_url: str | None = about("The image on a dark background.")
    image_alt: str = about("What the image shows, for those who cannot see it.")
    action_label: str = about("What its button says.")
    action_url: str | None = about("Where its button leads: an https address, or one of the app's own.")
    background_color: str | None = about("Colour of its background, as #RRGGBB.")
    text_color: str | None = about("Colour of its text, as #RRGGBB.")
    accent_color: str | None = about("Colour of its button, as #RRGGBB.")
    data: Json = about("For the app alone: an object.")

    @classmethod
    def of(cls, row: banner_content.BannerFace) -> "BannerFace":
        return cls(
            title=row.title,
            body=row.body,
            image_url=row.image_url,
            dark_image_url=row.dark_image_url,
            image_alt=row.image_alt,
            action_label=row.action_label,
            action_url=row.action_url,
            background_color=row.background_color,
            text_color=row.text_color,
            accent_color=row.accent_color,
            data=Json(row.data),
        )

    def to_json(self) -> dict[str, Any]:
        """The same as JSON, for GET /v1/banners."""
        return {camel(field.name): getattr(self, field.name) for field in fields(self)}


@output
class BannerTranslation:
    """A banner in another language; what is null is as it is in the banner's own."""

    locale: str = about("The language, such as de or pt-BR.")
    title: str | None = about("Its title.")
    body: str | None = about("Its text.")
    image_url: str | None = about("An image.")
    dark_image_url: str | None = about("The image on a dark background.")
    image_alt: str | None = about("What the image shows.")
    action_label: str | None = about("What its button says.")
    action_url: str | None = about("Where its button leads.")
    data: Json | None = about("For the app alone, instead of the banner's own.")

    @classmethod
    def of(cls, row: banner_content.Translation) -> "BannerTranslation":
        return cls(
            locale=row.locale,
            title=row.title,
            body=row.body,
            image_url=row.image_url,
            dark_image_url=row.dark_image_url,
            image_alt=row.image_alt,
            action_label=row.action_label,
            action_url=row.action_url,
            data=None if row.data is None else Json(row.data),
        )


@output
class BannerContent:
    """A banner, in all its languages, with the variables that it names."""

    title: str = about("Its title.")
    body: str = about("Its text.")
    image_url: str | None = about("An image.")
    dark_image_url: str | None = about("The image on a dark background.")
    image_alt: str = about("What the image shows, for those who cannot see it.")
    action_label: str = about("What its button says.")
    action_url: str | None = about(ACTION_URL)
    background_color: str | None = about("Colour of its background, as #RRGGBB.")
    text_color: str | None = about("Colour of its text, as #RRGGBB.")
    accent_color: str | None = about("Colour of its button, as #RRGGBB.")
    data: Json = about("For the app alone: an object.")
    locale: str | None = about("Language of all this; null: nobody said.")
    translations: list[BannerTranslation] = about("The banner in other languages.")
    variables: list[ContentVariable] = about("What it asks of client tokens.")

    @classmethod
    def of(cls, row: banner_content.BannerContent) -> "BannerContent":
        return cls(
            title=row.face.title,
            body=row.face.body,
            image_url=row.face.image_url,
            dark_image_url=row.face.dark_image_url,
            image_alt=row.face.image_alt,
            action_label=row.face.action_label,
            action_url=row.face.action_url,
            background_color=row.face.background_color,
            text_color=row.face.text_color,
            accent_color=row.face.accent_color,
            data=Json(row.face.data),
            locale=row.locale,
            translations=[BannerTranslation.of(one) for one in row.translations],
            variables=[ContentVariable(name=one.name, default=Json(one.default)) for one in row.variables],
        )


@input_type
class BannerTranslationInput:
    """A banner in another language; what is left out is as it is in the banner's own."""

    locale: str = about("The language, such as de or pt-BR.")
    title: str | None = about(f"Its title. {TEXT}", default=None)
    body: str | None = about(f"Its text. {TEXT}", default=None)
    image_url: str | None = about("An image: an https address.", default=None)
    dark_image_url: str | None = about("The image on a dark background.", default=None)
    image_alt: str | None = about("What the image shows.", default=None)
    action_label: str | None = about("What its button says.", default=None)
    action_url: str | None = about(ACTION_URL, default=None)
    data: Json | None = about(
        "For the app alone, instead of the banner's own: an object of at most 4 KB.", default=None
    )


@input_type
class BannerVariableInput:
    """A claim of client tokens that texts and addresses may name as {{name}}."""

    name: str = about("Its name, as in the claims: letters, digits and '_'.")
    default: str = about("What viewers see who have no such claim, at most 200 characters.")


@input_type
class BannerContentInput:
    """A banner. Apps draw it, so it has facts and no markup. It has a title, a body, an image or data."""

    title: str = about(f"Its title, at most 200 characters. {TEXT}", default="")
    body: str = about(f"Its text, at most 2,000 characters. {TEXT}", default="")
    image_url: str | None = about("An image: an https address.", default=None)
    dark_image_url: str | None = about("The image on a dark background.", default=None)
    image_alt: str = about("What the image shows, for those who cannot see it.", default="")
    action_label: str = about("What its button says, at most 100 characters.", default="")
    action_url: str | None = about(ACTION_URL, default=None)
    background_color: str | None = about("Colour of its background, as #RRGGBB.", default=None)
    text_color: str | None = about("Colour of its text, as #RRGGBB.", default=None)
    accent_color: str | None = about("Colour of its button, as #RRGGBB.", default=None)
    data: Json | None = about("For the app alone: an object of at most 4 KB and 8 levels.", default=None)
    locale: str | None = about("Language of all this, such as en; left out: nobody says.", default=None)
    translations: list[BannerTranslationInput] = about(
        "The banner in other languages, at most 50. A viewer sees the best one (RFC 4647 lookup), or what is above.",
        default_factory=list,
    )
    variables: list[BannerVariableInput] = about(
        "What texts and addresses name, at most 20; every name needs its default here.", default_factory=list
    )


def to_banner(wanted: BannerContentInput) -> banner_content.BannerContent:
    """The use case's banner; raises ApiError for data that is no object. All other rules are the domain's."""
    return banner_content.BannerContent(
        face=banner_content.BannerFace(
            title=wanted.title,
            body=wanted.body,
            image_url=wanted.image_url,
            dark_image_url=wanted.dark_image_url,
            image_alt=wanted.image_alt,
            action_label=wanted.action_label,
            action_url=wanted.action_url,
            background_color=wanted.background_color,
            text_color=wanted.text_color,
            accent_color=wanted.accent_color,
            data={} if wanted.data is None else to_object(wanted.data, ()),
        ),
        locale=wanted.locale,
        translations=tuple(
            banner_content.Translation(
                locale=one.locale,
                title=one.title,
                body=one.body,
                image_url=one.image_url,
                dark_image_url=one.dark_image_url,
                image_alt=one.image_alt,
                action_label=one.action_label,
                action_url=one.action_url,
                data=None if one.data is None else to_object(one.data, ("translations", str(place))),
            )
            for place, one in enumerate(wanted.translations)
        ),
        variables=tuple(banner_content.BannerVariable(one.name, one.default) for one in wanted.variables),
    )


def to_object(data: object, path: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ApiError("NOT_AN_OBJECT", "Data is an object of names and values.", field=("content", *path, "data"))
    return data
