"""The semantic cache over the demonstration documents, from end to end: takes minutes."""

from typing import Any

import pytest
from django.core.management import call_command

from knowledge.evaluation.wordings import Pair, adversarial_pairs, paraphrase_pairs, read_questions
from tests.cast import member_of
from tests.knowledge.helpers import ask

USERS = {"network_engineer": "nina", "security_analyst": "sam", "helpdesk": "hal"}
DIFFERENT = 300


@pytest.mark.long
@pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
def test_paraphrases_hit_and_other_questions_do_not(configure: Any, monkeypatch: Any) -> None:
    configure(RAGSITE_LIMIT_USER_REQUESTS=0, RAGSITE_LIMIT_TENANT_REQUESTS=0, RAGSITE_LIMIT_USER_TOKENS=0)
    call_command("seed_demo")
    asked = {each.text: each for each in read_questions()}

    def member(text: str) -> Any:
        who = asked[text]
        username = USERS.get(who.role, "ada") if who.tenant == "acme" else "gus"
        return member_of(slug=who.tenant, username=username)

    async def keep_nothing(*_: Any, **__: Any) -> None:
        """Paraphrases and different questions are to find the first questions alone, not each other."""

    members = {text: member(text) for text in asked}
    answered = [text for text in asked if ask(members[text], text)["answered"]]
    assert len(answered) >= 35
    monkeypatch.setattr("knowledge.answering.travel.keep_question", keep_nothing)

    def hits(pair: Pair) -> bool:
        return bool(ask(members[pair.first], pair.second)["cache"] == "semantic")

    same = [pair for pair in paraphrase_pairs() if pair.first in answered]
    found = sum(map(hits, same))
    kinds = ("rival", "number", "turn")
    different = [pair for pair in adversarial_pairs() if pair.kind in kinds and pair.first in answered]
    wrong = [pair for pair in different[:: len(different) // DIFFERENT] if hits(pair)]
    print(
        f"{len(answered)} of {len(asked)} answered, {found} of {len(same)} paraphrases hit, wrongly {wrong}"
    )
    assert found >= 0.4 * len(same) and not wrong
