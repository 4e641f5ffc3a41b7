"""Terms: words by their stem, identifiers whole, and the same thing spelt in several ways."""

from typing import Any

import pytest

from knowledge.retrieval.analysis import (
    FORM,
    TERM,
    count_forms,
    count_terms,
    hash_term,
    pack_terms,
    question_forms,
    question_terms,
    unpack_terms,
)
from tenants.scope import scope
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


def terms(text: str, language: str = "english") -> dict[str, int]:
    return dict(count_terms(text, language=language))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Interface ge-0/0/1.", {"ge-0/0/1"}),
        ("(10.1.0.0/16)", {"10.1.0.0/16", "10.1.0.0"}),
        ("ERR-4711,", {"err-4711", "err4711", "4711"}),
        ("an MTU of 9216, MTU 9216", {"mtu", "9216", "mtu9216"}),
        ("see RFC7938", {"rfc7938"}),
        ("64512:100", {"64512:100", "64512"}),
        ("core-rtr-01.fra.example.net:8443", {"core-rtr-01.fra.example.net", "core", "rtr"}),
        ("aa:bb:cc:dd:ee:ff", {"aa:bb:cc:dd:ee:ff"}),
        ("2001:db8::1", {"2001:db8::1"}),
        ("max_prefix_limit", {"max_prefix_limit", "prefix", "limit"}),
        ("v7.4.2", {"v7.4.2"}),
    ],
)
def test_identifiers_are_kept_whole(text: str, wanted: set[str]) -> None:
    assert wanted <= set(terms(text)), terms(text)


def test_spellings_of_one_thing_meet() -> None:
    for spellings in (("RFC 7938", "rfc7938", "RFC-7938"), ("ERR-4711", "err 4711"), ("VLAN 210", "vlan210")):
        common = set.intersection(*(set(terms(each)) for each in spellings))
        assert any(any(c.isdigit() for c in term) for term in common), (spellings, common)
    # But not another number
    assert not {t for t in set(terms("RFC 7938")) & set(terms("RFC 793")) if any(c.isdigit() for c in t)}


def test_words_by_language() -> None:
    assert terms("Routers routed routing") == {"router": 1, "rout": 2}
    assert terms("Häuser", "german") == {"haus": 1}
    assert terms("Routers", "simple") == {"routers": 1}
    assert terms("Straße STRASSE", "german") == {"strass": 2}
    assert terms("ＲＦＣ７９３８") == terms("RFC7938")
    assert {"東京", "京タ"} <= set(terms("東京タワー", "simple"))
    assert terms("  \n?!—") == {}


def test_terms_come_back_as_they_were_stored() -> None:
    packed = unpack_terms([pack_terms({"bgp": 3, "x" * 500: 1}), pack_terms({}), pack_terms({"lots": 1000})])
    assert packed.dtype == TERM
    assert [(int(h), int(c)) for h, c in packed.tolist()] == [
        (hash_term("bgp"), 3),
        (hash_term("x" * 500), 1),
        (hash_term("lots"), 127),
    ]
    # A form is told from a term of the same name.
    both = unpack_terms([pack_terms({"bgp": 3}, forms={"bgp": 200})])
    assert [(int(h), int(c)) for h, c in both.tolist()] == [
        (hash_term("bgp"), 3),
        (hash_term("bgp"), FORM | 127),
    ]


def test_forms(shared: Any) -> None:
    with scope(tenant_id=shared.acme.pk, tags=None):
        text = "Routes of the Route-Reflector on ge-0/0/1, routes"
        assert count_forms([text, ""], language="english") == [
            {
                "=routes": 2, "=route": 1, "=reflector": 1, "=ge-0/0/1": 1,
                "rout rout": 1, "rout reflector": 1, "reflector ge-0/0/1": 1, "ge-0/0/1 rout": 1,
            },
            {},
        ]  # fmt: skip
        assert count_forms(["the of"], language="simple") == [{"=the": 1, "=of": 1, "the of": 1}]
        # Scripts without blanks are searched by pairs of characters already.
        assert count_forms(["設定を変更"], language="simple") == [{}]
        found = question_forms("route the routes", languages=["english", "german"])
        assert found == pytest.approx(
            {
                "=route": 0.3,
                "=routes": 0.3,
                "rout rout": 0.25,
                "=the": 0.3,
                "rout the": 0.25,
                "the rout": 0.25,
            }
        )


def test_a_question_has_no_stop_words(shared: Any) -> None:
    with scope(tenant_id=shared.acme.pk, tags=None):
        assert question_terms("What is the MTU of ge-0/0/1?", languages=["english"])["mtu"] == 1
        found = question_terms("Which of the routers are up?", languages=["english"])
        assert found == {"router": 1}
        assert question_terms("routers route to a router", languages=["english"]) == {"router": 2, "rout": 1}
        assert set(question_terms("die Häuser", languages=["german", "english"])) == {"haus", "die", "häuser"}
        assert question_terms("the of is", languages=["english"]) == {}
        assert question_terms("the of", languages=["simple"]) == {"the": 1, "of": 1}
        long = " ".join(f"subject{chr(97 + n % 26) * (1 + n // 26)}ing" for n in range(200))
        asked = f"{long} ERR-4711 on ge-0/0/1 with MTU 9216"
        for languages in (["english"], ["english", "german", "french"]):
            found = question_terms(asked, languages=languages)
            assert {"err-4711", "ge-0/0/1", "mtu9216"} <= set(found), languages
            assert 60 <= len(found) <= 60 * len(languages)
        assert len(question_terms(" ".join(f"w{n}x" for n in range(500)), languages=["english"])) == 60
        for odd in ("O'Brien \\ ' \" %s", "<script>", "a & b | !c", ":* <-> x", "\ud800"):
            question_terms(odd.encode("utf-8", "ignore").decode(), languages=["english", "french"])
