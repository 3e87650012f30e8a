"""The page of development for trying queries."""

import re

from app import graphiql

FROM_ELSEWHERE = re.compile(r'\["([^"]+)",\s*"([^"]+)"\]')


def test_every_file_from_elsewhere_has_a_version_and_a_hash() -> None:
    found = FROM_ELSEWHERE.findall(graphiql.PAGE)
    assert len(found) == 4
    for path, integrity in found:
        assert re.fullmatch(r"[a-z-]+@\d+\.\d+\.\d+/[\w./-]+\.min\.(js|css)", path)
        assert re.fullmatch(r"sha384-[A-Za-z0-9+/]{64}", integrity)


def test_the_form_is_in_the_page_and_needs_nothing_from_elsewhere() -> None:
    form, _, script = graphiql.PAGE.partition("<script>")
    assert 'id="send"' in form
    assert not re.search(r"\b(?:src|href)=\"(?!data:)", form)
    assert script.index('place("send").onclick') < script.index("load(")


def test_the_page_speaks_to_its_own_api_only() -> None:
    """What is typed into it is a key."""
    policy = graphiql.page().headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"


def test_subscriptions_go_over_a_web_socket_of_the_same_api() -> None:
    """GraphiQL refuses them when it is given no address for them."""
    assert 'createFetcher({ url, subscriptionUrl: location.origin.replace("http", "ws") + url })' in graphiql.PAGE
