"""What ends or changes access or an answer holds on the very next request, although hits before Django read no database."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connections
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from django.utils import timezone
from rest_framework_simplejwt.tokens import AccessToken

from knowledge.documents import delete_document
from knowledge.models import Document, ModelSettings
from tenants.keys import create_api_key
from tenants.models import ApiKey, Membership, Role, Tenant, User
from tenants.people import add_member, create_user, save_role, set_tenant_status
from tenants.scope import scope, unscoped
from tenants.tokens import TokenPair, issue_tokens
from tests.cast import PASSWORD
from tests.knowledge.helpers import run_job, send, upload_indexed
from tests.knowledge.hits_site import Asker, is_fast, new_question
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.live import serve

pytestmark = on_shared_cast
TAGS = ["runbooks", "standards"]
NOTE = "# Ticket {0}\n\nThe spare key of rack {0} is in drawer {1}.\n"
ELSEWHERE = "9999"


@pytest.fixture(scope="module")
def site(shared: Any) -> Iterator[str]:
    from django.conf import settings

    before, settings.HOPS_IN_CALLING_THREAD = settings.HOPS_IN_CALLING_THREAD, False
    try:
        with serve(fast_hits=True) as address:
            yield address
    finally:
        settings.HOPS_IN_CALLING_THREAD = before


@dataclass
class Stage:
    """A member of their own in a role of their own, and a document that their answer rests on."""

    shared: Any
    membership: Membership
    role: Role
    tokens: TokenPair
    key: ApiKey
    document: str
    rack: str
    drawer: str
    secret: str

    @property
    def question(self) -> str:
        return f"In which drawer is the spare key of rack {self.rack}?"

    @property
    def user(self) -> User:
        user: User = self.membership.user
        return user

    def as_ada(self, method: str, path: str, body: Any = None) -> None:
        response = send(self.shared.ada, method, path, body)
        assert response.status_code < 300, response.content


@pytest.fixture
def stage(shared: Any) -> Iterator[Stage]:
    rack, drawer = uuid.uuid4().hex[:6], f"D-{uuid.uuid4().hex[:6]}"
    with scope(tenant_id=shared.acme.pk, tags=None):
        role = save_role(role=Role(name=f"role-{rack}", tags=TAGS, abilities=["ask"]))
        user = create_user(username=f"user-{rack}", password=PASSWORD, check_password=False)
        membership = add_member(user=user, role=role)
        key, secret = create_api_key(principal=shared.ada.principal, member=membership, name=f"key-{rack}")
        tokens = issue_tokens(membership=membership)
    document = upload_indexed(shared.ada, f"{rack}.md", NOTE.format(rack, drawer), tags="runbooks")
    yield Stage(shared, membership, role, tokens, key, document, rack, drawer, secret)


Act = Callable[[Stage], Any]


def _as_platform(work: Callable[[], Any]) -> None:
    with unscoped(reason="tests"):
        work()


def _sql(stage: Stage) -> None:
    with connections["platform"].cursor() as cursor:
        cursor.execute(
            "UPDATE tenants_membership SET status = 'suspended' WHERE id = %s", [stage.membership.pk]
        )


def _new_password(stage: Stage) -> None:
    user = User.objects.get(pk=stage.user.pk)
    user.set_password("another-Passw0rd")
    user.save()


def _reuse(stage: Stage) -> None:
    refresh = {"refresh": stage.tokens.refresh}
    assert send(stage.shared.ada, "post", "token/refresh", refresh).status_code == 200
    assert send(stage.shared.ada, "post", "token/refresh", refresh).status_code == 401


def _new_content(stage: Stage) -> None:
    file = SimpleUploadedFile(f"{stage.rack}.md", NOTE.format(stage.rack, ELSEWHERE).encode())
    path = f"/api/v1/documents/{stage.document}"
    response = stage.shared.ada.client.put(
        path, encode_multipart(BOUNDARY, {"file": file}), content_type=MULTIPART_CONTENT
    )
    assert response.status_code == 202, response.content
    run_job(stage.shared.ada, response.json()["task_id"])


def _delete_by_function(stage: Stage) -> None:
    with scope(tenant_id=stage.shared.acme.pk, tags=None):
        delete_document(
            document=Document.objects.get(pk=stage.document), principal=stage.shared.ada.principal
        )


ENDS: dict[str, tuple[str, Act, int]] = {
    "the member is suspended": (
        "both",
        lambda s: s.as_ada("patch", f"members/{s.membership.pk}", {"status": "suspended"}),
        401,
    ),
    "the member is removed": ("both", lambda s: s.as_ada("delete", f"members/{s.membership.pk}"), 401),
    "the user is shut off": (
        "both",
        lambda s: User.objects.filter(pk=s.user.pk).update(is_active=False),
        401,
    ),
    "the user is deleted": ("both", lambda s: _as_platform(lambda: s.user.delete()), 401),
    "by hand, in SQL": ("both", _sql, 401),
    "the tenant is suspended": (
        "both",
        lambda s: set_tenant_status(tenant=s.shared.acme, status="suspended"),
        401,
    ),
    "the role may not ask": (
        "both",
        lambda s: s.as_ada("patch", f"roles/{s.role.pk}", {"abilities": ["upload"]}),
        403,
    ),
    "the key is revoked": ("key", lambda s: s.as_ada("delete", f"api-keys/{s.key.pk}"), 401),
    "the key may something else": (
        "key",
        lambda s: _as_platform(lambda: ApiKey.objects.filter(pk=s.key.pk).update(scopes=["upload"])),
        403,
    ),
    "the sign-in is revoked": (
        "token",
        lambda s: s.as_ada("post", "token/revoke", {"token": s.tokens.access}),
        401,
    ),
    "a refresh token comes twice": ("token", _reuse, 401),
    "the password is another": ("token", _new_password, 401),
}
CHANGES: dict[str, Act] = {
    "the member has another role": lambda s: s.as_ada(
        "patch", f"members/{s.membership.pk}", {"role": "management"}
    ),
    "the role reads other tags": lambda s: s.as_ada("patch", f"roles/{s.role.pk}", {"tags": ["faq"]}),
    "the document is deleted": lambda s: s.as_ada("delete", f"documents/{s.document}"),
    "the document is deleted by a function": _delete_by_function,
    "the document says something else": _new_content,
    "the document has other tags": lambda s: s.as_ada(
        "patch", f"documents/{s.document}", {"tags": ["incident_reports"]}
    ),
}
MISSES: dict[str, Act] = {
    "another document is new": lambda s: upload_indexed(
        s.shared.ada, f"other-{s.rack}.md", "# Other\n\nNothing of the kind.\n", tags="runbooks"
    ),
    "a collection changes": lambda s: s.as_ada(
        "patch", f"collections/{s.shared.collections['acme'].pk}", {"content_class": "reference"}
    ),
    "the models are others": lambda s: s.as_ada("patch", "model-settings", {"prompt_tokens": 900}),
    "the cache is cleared": lambda s: s.as_ada("delete", "cache"),
}


def ways_in(stage: Stage, which: str) -> dict[str, dict[str, str]]:
    ways = {
        "token": {"Authorization": f"Bearer {stage.tokens.access}"},
        "key": {"X-API-Key": stage.secret},
    }
    return ways if which == "both" else {which: ways[which]}


def put_back(stage: Stage) -> None:
    set_tenant_status(tenant=stage.shared.acme, status="active")
    with scope(tenant_id=stage.shared.acme.pk, tags=None):
        ModelSettings.objects.all().delete()


@pytest.mark.parametrize("what", ENDS)
def test_access_ends_with_the_next_request(stage: Stage, site: str, what: str) -> None:
    which, act, status = ENDS[what]
    question = stage.question
    askers = [Asker(site, headers) for headers in ways_in(stage, which).values()]
    try:
        for asker in askers:
            assert stage.drawer in asker.warm(question).json()["answer"]
        assert all(asker.is_fast(question) for asker in askers)
        act(stage)
        for asker in askers:
            response = asker.post(question)
            assert response.status_code == status, response.text
            assert stage.drawer not in response.text
    finally:
        put_back(stage)


@pytest.mark.parametrize("what", [*CHANGES, *MISSES])
def test_another_answer_is_due_with_the_next_request(stage: Stage, site: str, what: str) -> None:
    question = stage.question
    asker = Asker(site, ways_in(stage, "token")["token"])
    try:
        assert stage.drawer in asker.warm(question).json()["answer"] and asker.is_fast(question)
        (CHANGES | MISSES)[what](stage)
        response = asker.post(question)
        assert response.status_code == 200 and not is_fast(response), "it was answered by Django"
        assert (stage.drawer in response.json()["answer"]) == (what in MISSES)
        again = asker.warm(question)
        assert again.json()["answer"] == response.json()["answer"]
    finally:
        put_back(stage)


def test_a_key_that_runs_out_is_no_longer_known(stage: Stage, site: str) -> None:
    ends = timezone.now() + timedelta(seconds=2)
    _as_platform(lambda: ApiKey.objects.filter(pk=stage.key.pk).update(expires_at=ends))
    asker = Asker(site, ways_in(stage, "key")["key"])
    asker.warm()
    time.sleep(max(0.0, (ends - timezone.now()).total_seconds()))
    assert asker.post().status_code == 401


def test_a_token_that_runs_out_is_no_longer_known(
    stage: Stage, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AccessToken, "lifetime", timedelta(seconds=3))
    with scope(tenant_id=stage.shared.acme.pk, tags=None):
        ends, access = time.time() + 3, issue_tokens(membership=stage.membership).access
    asker = Asker(site, {"Authorization": f"Bearer {access}"})
    asker.warm()
    time.sleep(max(0.0, ends - time.time()))
    assert asker.post().status_code == 401


def test_nobody_is_shown_anothers_answer(stage: Stage, site: str) -> None:
    question = stage.question
    own = Asker(site, ways_in(stage, "token")["token"])
    assert stage.drawer in own.warm(question).json()["answer"]
    for member in (stage.shared.mona, stage.shared.gina):
        other = Asker(site, {"Authorization": member.client.defaults["HTTP_AUTHORIZATION"]})
        for _ in range(4):
            assert stage.drawer not in other.post(question).text
    forged = stage.tokens.access[:-4] + "AAAA"
    for _ in range(3):
        assert Asker(site, {"Authorization": f"Bearer {forged}"}).post(question).status_code == 401


def test_under_load_nothing_is_answered_after_the_revocation_was(stage: Stage, site: str) -> None:
    question = new_question()
    Tenant.objects.using("platform").filter(pk=stage.shared.acme.pk).update(
        user_requests=1_000_000, tenant_requests=1_000_000
    )
    headers = ways_in(stage, "token")["token"]
    Asker(site, headers).warm(question)
    begun: list[tuple[float, int]] = []
    stop = threading.Event()

    def hammer() -> None:
        with httpx.Client(base_url=site, headers=headers, timeout=20) as client:
            while not stop.is_set():
                at = time.monotonic()
                response = client.post("/api/v1/query", json={"question": question})
                begun.append((at, response.status_code))

    threads = [threading.Thread(target=hammer) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    send(stage.shared.ada, "patch", f"members/{stage.membership.pk}", {"status": "suspended"})
    revoked = time.monotonic()
    while sum(at >= revoked for at, _ in begun) < len(threads) and time.monotonic() < revoked + 20:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    Tenant.objects.using("platform").filter(pk=stage.shared.acme.pk).update(
        user_requests=None, tenant_requests=None
    )
    assert {status for at, status in begun if at < revoked} >= {200}
    assert {status for at, status in begun if at >= revoked} == {401}
