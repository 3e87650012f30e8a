"""People over GraphQL: made known one by one and in batches, read back, with consent and devices."""

from typing import Any

from tests.app.caller import Caller
from tests.profiles import people

ADA = {
    "externalId": "ada",
    "email": "Ada@Example.com",
    "phone": "+44 20 7946 0000",
    "traits": {"plan": "premium", "orders": 3, "tags": ["a", "b"]},
    "timeZone": "Europe/London",
    "locale": "en-GB",
    "country": "GB",
    "city": "London",
}


async def test_a_person_is_made_known_and_changed_field_by_field(console: Caller) -> None:
    made = await console.data("ProfileUpsert", input=ADA)
    assert made["created"] is True
    assert {name: made["profile"][name] for name in ADA} == ADA
    assert made["profile"]["identified"] is True
    changed = await console.data(
        "ProfileUpsert", input={"externalId": "ada", "city": None, "traits": {"plan": None, "orders": 4}}
    )
    assert changed["created"] is False
    assert changed["profileId"] == made["profileId"]
    left = changed["profile"]
    assert (left["city"], left["email"], left["traits"]) == (None, ADA["email"], {"orders": 4, "tags": ["a", "b"]})


async def test_a_person_is_found_by_either_id(console: Caller) -> None:
    made = (await console.data("ProfileUpsert", input=ADA))["profile"]
    assert (await console.data("Profile", id=made["id"]))["externalId"] == "ada"
    assert (await console.data("Profile", externalId="ada"))["id"] == made["id"]
    assert await console.data("Profile", externalId="nobody") is None
    assert await console.data("Profile", id="prf_2147483647") is None
    assert (await console.error("Profile"))["code"] == "ONE_IDENTITY"
    assert await console.error("Profile", id="seg_" + "0" * 32) == {"code": "INVALID_ID", "field": ["id"]}


WRONG_FIELDS: list[tuple[dict[str, Any], str, list[str]]] = [
    ({"externalId": " "}, "BLANK", ["externalId"]),
    ({"email": "not an address"}, "INVALID_EMAIL", ["email"]),
    ({"email": "a@b@c"}, "INVALID_EMAIL", ["email"]),
    ({"phone": "call me"}, "INVALID_PHONE", ["phone"]),
    ({"timeZone": "Mars/Olympus"}, "UNKNOWN_TIME_ZONE", ["timeZone"]),
    ({"locale": "???"}, "INVALID_LOCALE", ["locale"]),
    ({"country": "ZZ"}, "UNKNOWN_COUNTRY", ["country"]),
    ({"traits": [1]}, "NOT_AN_OBJECT", ["traits"]),
    ({"traits": {"my_key": {"deep": 1}}}, "INVALID_VALUE", ["traits", "my_key"]),
    ({"brandIds": ["seg_" + "0" * 32]}, "INVALID_ID", ["brandIds"]),
    ({"brandIds": ["brd_" + "0" * 32]}, "NOT_FOUND", ["brandIds"]),
]


async def test_a_wrong_field_is_named_and_nothing_is_written(console: Caller) -> None:
    for wrong, code, field in WRONG_FIELDS:
        wanted = {"externalId": "ada", "email": "ada@example.com"} | wrong
        found, path = await console.refusal("ProfileUpsert", input=wanted)
        assert (found, path[: len(field) + 1] if path else None) == (code, ["input", *field])
        assert (await console.data("Profiles"))["edges"] == []


async def test_a_batch_says_what_became_of_each(console: Caller) -> None:
    answer = await console.data(
        "ProfilesUpsert",
        input={
            "profiles": [
                {"externalId": "a"},
                {"externalId": "b", "email": "nonsense"},
                {"externalId": "c", "brandIds": ["x"]},
                {"externalId": "a", "city": "Rome"},
            ]
        },
    )
    assert [(o["created"], o["error"] and (o["error"]["code"], o["error"]["field"])) for o in answer["outcomes"]] == [
        (True, None),
        (False, ("INVALID_EMAIL", ["input", "profiles", "1", "email"])),
        (False, ("INVALID_ID", ["input", "profiles", "2", "brandIds"])),
        (False, None),
    ]
    assert [e["node"]["externalId"] for e in (await console.data("Profiles"))["edges"]] == ["a"]


async def test_a_batch_above_a_thousand_is_refused_as_a_whole(console: Caller) -> None:
    people = [{"externalId": str(number)} for number in range(1001)]
    code, _ = await console.refusal("ProfilesUpsert", input={"profiles": people})
    assert code == "TOO_MANY_ITEMS"
    assert (await console.data("Profiles"))["edges"] == []


async def test_people_are_searched_by_whole_address_or_id(console: Caller) -> None:
    await console.data("ProfilesUpsert", input={"profiles": [ADA, {"externalId": "bob", "email": "bob@example.com"}]})

    async def found(search: str) -> list[str]:
        return [e["node"]["externalId"] for e in (await console.data("Profiles", search=search))["edges"]]

    assert await found("ADA@example.com") == ["ada"]
    assert await found("bob") == ["bob"]
    assert await found("bo") == []


async def test_brands_relate_people(console: Caller) -> None:
    brand = (await console.data("BrandCreate", input={"name": "Acme"}))["brand"]
    assert await console.refusal("BrandCreate", input={"name": "Acme"}) == ("BRAND_EXISTS", ["input", "name"])
    await console.data("ProfileUpsert", input={"externalId": "ada", "brandIds": [brand["id"]]})
    assert [one["name"] for one in (await console.data("Profile", externalId="ada"))["brands"]] == ["Acme"]
    assert [one["id"] for one in await console.data("Brands")] == [brand["id"]]


async def test_consent_is_the_last_word_said(console: Caller) -> None:
    key = (await console.data("ProfileUpsert", input={"externalId": "ada"}))["profileId"]
    said = {"profileId": key, "channel": "EMAIL", "topic": "news", "source": "form"}
    await console.data("ConsentUpdate", input=said | {"status": "SUBSCRIBED"})
    await console.data("ConsentUpdate", input=said | {"status": "UNSUBSCRIBED"})
    (held,) = (await console.data("Profile", id=key))["consents"]
    assert (held["topic"], held["status"], held["source"]) == ("news", "UNSUBSCRIBED", "form")
    wrong = said | {"status": "SUBSCRIBED"}
    assert await console.refusal("ConsentUpdate", input=wrong | {"profileId": "prf_2147483647"}) == (
        "NOT_FOUND",
        ["input", "profileId"],
    )
    assert await console.refusal("ConsentUpdate", input=wrong | {"topic": ""}) == ("BLANK", ["input", "topic"])


async def test_a_suppressed_address_is_kept_once_and_can_be_allowed_again(console: Caller) -> None:
    address = {"channel": "EMAIL", "address": "Ada@Example.com"}
    other_spelling = {"channel": "EMAIL", "address": " ada@EXAMPLE.com "}
    assert (await console.data("SuppressionAdd", input=address))["added"] is True
    assert (await console.data("SuppressionAdd", input=other_spelling))["added"] is False
    assert (await console.data("SuppressionRemove", input=other_spelling))["removed"] is True
    assert (await console.data("SuppressionRemove", input=address))["removed"] is False
    for operation in ("SuppressionAdd", "SuppressionRemove"):
        refusal = await console.refusal(operation, input={"channel": "EMAIL", "address": "nobody"})
        assert refusal == ("INVALID_EMAIL", ["input", "address"])


async def test_events_are_taken_once_and_bad_ones_named(console: Caller) -> None:
    """S2-04, S4-07."""
    events = [
        {"messageId": "1", "name": "purchase", "externalId": "ada", "properties": {"value": 12.5}},
        {"messageId": "2", "name": "", "externalId": "ada"},
        {"messageId": "3", "name": "visit", "externalId": "ada", "occurredAt": "1999-01-01T00:00:00Z"},
        {"messageId": "4", "name": "visit"},
        {"messageId": "5", "name": "visit", "anonymousId": "v", "country": "XX"},
        {"messageId": "1", "name": "purchase", "externalId": "ada"},
    ]
    answer = (await console.ask("EventsTrack", input={"events": events}))["data"]["eventsTrack"]
    assert (answer["accepted"], answer["duplicates"]) == (1, 1)
    assert [(e["code"], e["field"]) for e in answer["userErrors"]] == [
        ("BLANK", ["input", "events", "1", "name"]),
        ("TOO_OLD", ["input", "events", "2", "occurredAt"]),
        ("ONE_IDENTITY", ["input", "events", "3"]),
        ("UNKNOWN_COUNTRY", ["input", "events", "4", "country"]),
    ]
    again = await console.data("EventsTrack", input={"events": events[:1]})
    assert (again["accepted"], again["duplicates"]) == (0, 1)


async def test_a_device_is_registered_renewed_and_unregistered(console: Caller) -> None:
    device = {"provider": "APNS", "token": "t", "platform": "IOS", "externalId": "ada", "appVersion": "1.2"}
    first = (await console.data("DeviceRegister", input=device))["deviceId"]
    assert (await console.data("DeviceRegister", input=device | {"appVersion": "1.3"}))["deviceId"] == first
    (held,) = (await console.data("Profile", externalId="ada"))["devices"]
    assert (held["id"], held["appVersion"], held["platform"]) == (first, "1.3", "IOS")
    gone = {"provider": "APNS", "token": "t"}
    assert (await console.data("DeviceUnregister", input=gone))["removed"] is True
    assert (await console.data("DeviceUnregister", input=gone))["removed"] is False
    assert (await console.data("Profile", externalId="ada"))["devices"] == []
    assert await console.refusal("DeviceRegister", input=device | {"token": ""}) == ("BLANK", ["input", "token"])
    code, _ = await console.refusal("DeviceRegister", input=device | {"anonymousId": "v"})
    assert code == "ONE_IDENTITY"


async def visitor_of(console: Caller, anonymous_id: str, **event: Any) -> str:
    """The profile of a visitor who did one thing."""
    events = [{"messageId": f"of {anonymous_id}", "name": "visit", "anonymousId": anonymous_id} | event]
    assert (await console.data("EventsTrack", input={"events": events}))["accepted"] == 1
    found: str = (await console.data("Profiles"))["edges"][-1]["node"]["id"]
    return found


async def test_two_profiles_of_one_person_become_one_and_every_old_id_leads_to_it(console: Caller) -> None:
    loser = (await console.data("ProfileUpsert", input=ADA))["profileId"]
    kept = {"externalId": "lovelace", "city": "Turin", "traits": {"plan": "free", "age": 36}}
    winner = (await console.data("ProfileUpsert", input=kept))["profileId"]
    device = {"provider": "FCM", "token": "t", "platform": "ANDROID", "externalId": "ada"}
    await console.data("DeviceRegister", input=device)
    no = {"profileId": loser, "channel": "EMAIL", "topic": "news", "status": "UNSUBSCRIBED", "source": "link"}
    await console.data("ConsentUpdate", input=no)
    await console.data("ConsentUpdate", input=no | {"profileId": winner, "status": "SUBSCRIBED", "source": "form"})
    seen = {"messageId": "1", "name": "visit", "externalId": "ada", "occurredAt": "2026-01-02T03:04:05Z"}
    await console.data("EventsTrack", input={"events": [seen]})

    done = await console.data("ProfileMerge", input={"loserId": loser, "winnerId": winner})
    assert (done["profileId"], done["merged"]) == (winner, True)
    person = done["profile"]
    assert (person["externalId"], person["email"], person["city"]) == ("lovelace", ADA["email"], "Turin")
    assert person["traits"] == {"plan": "free", "age": 36, "orders": 3, "tags": ["a", "b"]}
    assert person["lastSeenAt"] == "2026-01-02T03:04:05Z"
    for names in ({"id": loser}, {"id": winner}, {"externalId": "ada"}, {"externalId": "lovelace"}):
        found = await console.data("Profile", **names)
        assert (found["id"], len(found["devices"])) == (winner, 1)
        assert [(said["topic"], said["status"]) for said in found["consents"]] == [("news", "UNSUBSCRIBED")]
    assert (await console.data("Node", id=loser))["id"] == winner
    # What still comes in under the old id is the winner's.
    changed = await console.data("ProfileUpsert", input={"externalId": "ada", "city": "Rome"})
    assert (changed["profileId"], changed["created"], changed["profile"]["city"]) == (winner, False, "Rome")
    later = seen | {"messageId": "2", "occurredAt": "2026-02-02T03:04:05Z"}
    await console.data("EventsTrack", input={"events": [later]})
    assert (await console.data("Profile", id=winner))["lastSeenAt"] == "2026-02-02T03:04:05Z"
    assert [e["node"]["id"] for e in (await console.data("Profiles"))["edges"]] == [winner]
    # Told again, it is so already.
    again = await console.data("ProfileMerge", input={"loserId": loser, "winnerId": winner})
    assert (again["profileId"], again["merged"]) == (winner, False)


async def test_what_cannot_be_merged_is_refused_in_words(console: Caller, foreigner: Caller) -> None:
    key = (await console.data("ProfileUpsert", input={"externalId": "ada"}))["profileId"]
    foreign = (await foreigner.data("ProfileUpsert", input={"externalId": "ada"}))["profileId"]
    for loser, winner, code, field in [
        (key, key, "SAME_PROFILE", "loserId"),
        (foreign, key, "NOT_FOUND", "loserId"),
        (key, foreign, "NOT_FOUND", "winnerId"),
        (key, "seg_" + "0" * 32, "INVALID_ID", "winnerId"),
    ]:
        refusal = await console.refusal("ProfileMerge", input={"loserId": loser, "winnerId": winner})
        assert refusal == (code, ["input", field])
    assert (await foreigner.data("Profile", externalId="ada"))["id"] == foreign


async def test_a_visitor_who_signs_in_is_the_person_from_then_on(console: Caller) -> None:
    """S2-07: anonymous before, identified after, with all that was done before."""
    person = (await console.data("ProfileUpsert", input={"externalId": "ada"}))["profileId"]
    visitor = await visitor_of(console, "cookie", occurredAt="2026-01-02T03:04:05Z")
    assert (await console.data("Profile", id=visitor))["identified"] is False
    who = {"anonymousId": "cookie", "externalId": "ada"}
    done = await console.data("ProfileIdentify", input=who)
    assert (done["profileId"], done["merged"]) == (person, True)
    assert (done["profile"]["identified"], done["profile"]["lastSeenAt"]) == (True, "2026-01-02T03:04:05Z")
    again = await console.data("ProfileIdentify", input=who)
    assert (again["profileId"], again["merged"]) == (person, False)
    # What the cookie does now, the person does.
    later = {"messageId": "2", "name": "visit", "anonymousId": "cookie", "occurredAt": "2026-02-02T03:04:05Z"}
    await console.data("EventsTrack", input={"events": [later]})
    assert (await console.data("Profile", externalId="ada"))["lastSeenAt"] == "2026-02-02T03:04:05Z"
    # Nobody else can be the same cookie.
    taken = await console.refusal("ProfileIdentify", input=who | {"externalId": "bob"})
    assert taken == ("ALIAS_TAKEN", ["input", "anonymousId"])
    assert await console.refusal("ProfileIdentify", input=who | {"externalId": " "}) == (
        "BLANK",
        ["input", "externalId"],
    )
    # A visitor who turns out to be somebody new keeps the profile.
    other = await visitor_of(console, "other")
    made = await console.data("ProfileIdentify", input={"anonymousId": "other", "externalId": "eve"})
    assert (made["profileId"], made["merged"], made["profile"]["externalId"]) == (other, False, "eve")
    # And who was never seen before is made.
    new = await console.data("ProfileIdentify", input={"anonymousId": "third", "externalId": "joe"})
    assert (await console.data("Profile", externalId="joe"))["id"] == new["profileId"]


async def test_apps_can_neither_merge_nor_identify(console: Caller, app_caller: Caller) -> None:
    key = (await console.data("ProfileUpsert", input={"externalId": "ada"}))["profileId"]
    for operation, input in [
        ("ProfileMerge", {"loserId": key, "winnerId": key}),
        ("ProfileIdentify", {"anonymousId": "v", "externalId": "ada"}),
    ]:
        assert (await app_caller.error(operation, input=input))["code"] == "FORBIDDEN"


async def test_what_comes_in_about_an_erased_person_is_refused_item_by_item(console: Caller) -> None:
    key = (await console.data("ProfileUpsert", input=ADA))["profileId"]
    await people.erase(console.workspace_id, int(key.removeprefix("prf_")))
    answer = await console.data("ProfilesUpsert", input={"profiles": [ADA, {"externalId": "bob"}]})
    assert [(one["created"], one["error"] and one["error"]["code"]) for one in answer["outcomes"]] == [
        (False, "ERASED"),
        (True, None),
    ]
    events = [{"messageId": name, "name": "visit", "externalId": name} for name in ("ada", "bob")]
    taken = (await console.ask("EventsTrack", input={"events": events}))["data"]["eventsTrack"]
    assert (taken["accepted"], taken["duplicates"]) == (1, 0)
    assert [(e["code"], e["field"]) for e in taken["userErrors"]] == [
        ("ERASED", ["input", "events", "0", "externalId"])
    ]
    device = {"provider": "FCM", "token": "t", "platform": "ANDROID", "externalId": "ada"}
    assert await console.refusal("DeviceRegister", input=device) == ("ERASED", ["input", "externalId"])
    assert await console.data("Profile", externalId="ada") is None
    assert await people.rows(console.workspace_id, "SELECT count(*) FROM event") == [(1,)]
