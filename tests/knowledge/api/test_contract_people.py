"""The contract's rows of sign-in, people, keys, audit and costs."""

from typing import Any

from tests.cast import PASSWORD
from tests.knowledge.helpers import ask, check_problem, conforms, send
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast


def sign_in(client: Any, **body: str) -> Any:
    return client.post("/api/v1/token", body, content_type="application/json")


def test_token_refresh_revoke_and_me(shared: Any, client: Any) -> None:
    pair = conforms(sign_in(client, username="nina", password=PASSWORD), "/api/v1/token", "post")
    assert set(pair) == {"access", "refresh", "tenant", "role"}
    assert (pair["tenant"], pair["role"]) == ("acme", "network_engineer")
    named = sign_in(client, username="nina", password=PASSWORD, tenant="acme")
    assert named.status_code == 200
    check_problem(sign_in(client, username="nina", password=PASSWORD, tenant="globex"), 401)
    check_problem(sign_in(client, username="nina", password="wrong"), 401)
    assert check_problem(sign_in(client, username="nina"), 400)["errors"][0]["field"] == "password"

    bearer = {"authorization": f"Bearer {pair['access']}"}
    me = conforms(client.get("/api/v1/me", headers=bearer), "/api/v1/me", "get")
    assert me["username"] == "nina" and me["role"] == "network_engineer"
    assert "ask" in me["abilities"] and [t["slug"] for t in me["tenants"]] == ["acme"]

    def refresh(token: str) -> Any:
        return client.post("/api/v1/token/refresh", {"refresh": token}, content_type="application/json")

    fresh = conforms(refresh(pair["refresh"]), "/api/v1/token/refresh", "post")
    assert fresh["refresh"] != pair["refresh"]
    check_problem(refresh(pair["refresh"]), 401)  # reuse: the whole sign-in has ended
    check_problem(refresh(fresh["refresh"]), 401)
    check_problem(client.get("/api/v1/me", headers=bearer), 401)

    again = sign_in(client, username="nina", password=PASSWORD).json()
    revoked = client.post(
        "/api/v1/token/revoke", {"refresh": again["refresh"]}, content_type="application/json"
    )
    conforms(revoked, "/api/v1/token/revoke", "post")
    check_problem(
        client.get("/api/v1/me", headers={"authorization": f"Bearer {again['access']}"}),
        401,
        "unauthenticated",
    )


def test_a_member_of_several_tenants_names_one(shared: Any, client: Any) -> None:
    from tenants.models import Role, User
    from tenants.people import add_member
    from tenants.scope import scope

    with scope(tenant_id=shared.globex.pk, tags=None):
        add_member(user=User.objects.get(username="mona"), role=Role.objects.get(name="helpdesk"))
    problem = check_problem(sign_in(client, username="mona", password=PASSWORD), 400)
    assert {t["slug"] for t in problem["tenants"]} == {"acme", "globex"}
    pair = sign_in(client, username="mona", password=PASSWORD, tenant="globex").json()
    assert (pair["tenant"], pair["role"]) == ("globex", "helpdesk")


def test_members(shared: Any) -> None:
    form = {
        "username": "olga",
        "email": "olga@acme.example",
        "role": "helpdesk",
        "password": "a-long-password-1",
    }
    created = conforms(send(shared.ada, "post", "members", form), "/api/v1/members", "post")
    assert created["username"] == "olga" and created["status"] == "active"
    path = f"members/{created['id']}"
    changed = send(shared.ada, "patch", path, {"role": "network_engineer", "status": "suspended"})
    body = conforms(changed, "/api/v1/members/{id}", "patch")
    assert (body["role"], body["status"]) == ("network_engineer", "suspended")
    conforms(send(shared.ada, "get", path), "/api/v1/members/{id}", "get")
    conforms(send(shared.ada, "get", "members"), "/api/v1/members", "get")
    check_problem(send(shared.ada, "post", "members", form), 409)
    check_problem(send(shared.ada, "post", "members", {**form, "username": "p", "role": "no"}), 400)
    check_problem(send(shared.nina, "get", "members"), 403)
    check_problem(send(shared.gus, "get", path), 404)
    conforms(send(shared.ada, "delete", path), "/api/v1/members/{id}", "delete")
    check_problem(send(shared.ada, "get", path), 404)
    own = send(shared.ada, "get", "members?page_size=200").json()["results"]
    ada = next(row for row in own if row["username"] == "ada")
    check_problem(send(shared.ada, "delete", f"members/{ada['id']}"), 409, "last-admin")


def test_roles(shared: Any) -> None:
    form = {"name": "auditor", "tags": ["compliance"], "abilities": ["ask"]}
    role = conforms(send(shared.ada, "post", "roles", form), "/api/v1/roles", "post")
    path = f"roles/{role['id']}"
    changed = send(shared.ada, "patch", path, {"tags": ["compliance", "configs"]})
    assert conforms(changed, "/api/v1/roles/{id}", "patch")["tags"] == ["compliance", "configs"]
    conforms(send(shared.ada, "get", path), "/api/v1/roles/{id}", "get")
    conforms(send(shared.ada, "get", "roles"), "/api/v1/roles", "get")
    wrong = check_problem(send(shared.ada, "patch", path, {"tags": ["Not, a tag"]}), 400)
    assert wrong["errors"][0]["field"].startswith("tags")
    check_problem(send(shared.hal, "post", "roles", form), 403)
    conforms(send(shared.ada, "delete", path), "/api/v1/roles/{id}", "delete")


def test_api_keys_are_shown_once_and_act_as_their_member(shared: Any, client: Any) -> None:
    form = {"name": "poller", "member": "nina", "scopes": ["ask"]}
    made = conforms(send(shared.ada, "post", "api-keys", form), "/api/v1/api-keys", "post")
    key = {"authorization": f"Bearer {made['key']}"}
    listed = conforms(send(shared.ada, "get", "api-keys"), "/api/v1/api-keys", "get")
    assert made["key"] not in str(listed) and "key" not in listed["results"][0]
    me = client.get("/api/v1/me", headers=key).json()
    assert (me["username"], me["role"], me["abilities"]) == ("nina", "network_engineer", ["ask"])
    assert client.get("/api/v1/me", headers={"x-api-key": made["key"]}).status_code == 200
    check_problem(client.post("/api/v1/documents", {"file": "x"}, headers=key), 403)
    used = conforms(send(shared.ada, "get", f"api-keys/{made['id']}"), "/api/v1/api-keys/{id}", "get")
    assert used["last_used_at"]
    service = {"name": "robot-key", "service_account": {"name": "robot", "role": "helpdesk"}}
    robot = conforms(send(shared.ada, "post", "api-keys", service), "/api/v1/api-keys", "post")
    assert robot["member"] == "robot" and robot["role"] == "helpdesk"
    beyond = {"name": "too-much", "member": "hal", "scopes": ["manage"]}
    assert check_problem(send(shared.ada, "post", "api-keys", beyond), 400)["errors"][0]["field"] == "scopes"
    check_problem(send(shared.ada, "post", "api-keys", form), 409)
    conforms(send(shared.ada, "delete", f"api-keys/{made['id']}"), "/api/v1/api-keys/{id}", "delete")
    check_problem(client.get("/api/v1/me", headers=key), 401)


def test_audit_tells_of_questions_reads_and_changes(shared: Any) -> None:
    body = ask(shared.nina)
    document = body["sources"][0]["document_id"]
    send(shared.nina, "get", f"documents/{document}/content")
    rows = conforms(send(shared.ada, "get", "audit?action=question.ask&actor=nina"), "/api/v1/audit", "get")
    event = rows["results"][0]
    assert event["target_id"] == body["request_id"] and event["role"] == "network_engineer"
    assert document in event["detail"]["documents"]
    assert event["request_id"] == body["request_id"]
    read = send(shared.ada, "get", f"audit?action=document.&target_id={document}").json()["results"]
    assert [(e["action"], e["actor"]) for e in read] == [("document.read", "nina")]
    assert send(shared.ada, "get", "audit?from=2020-01-01&to=2020-01-02").json()["results"] == []
    wrong = check_problem(send(shared.ada, "get", "audit?from=yesterday"), 400)
    assert wrong["errors"][0]["field"] == "from"
    check_problem(send(shared.nina, "get", "audit"), 403)
    assert not [e for e in send(shared.gus, "get", "audit").json()["results"] if e["actor"] == "nina"]


def test_costs_without_a_model(shared: Any) -> None:
    costs = conforms(send(shared.mona, "get", "costs"), "/api/v1/costs", "get")
    names = "total_calls total_cost hourly_rate daily_rate monthly_rate avg_cost_per_query by_model by_user budget"
    assert set(costs) >= set(names.split())
    check_problem(send(shared.mona, "get", "costs?from=2026-02-02&to=2026-02-01"), 400)
    check_problem(send(shared.nina, "get", "costs"), 403)


def test_a_head_request_asks_for_the_same_ability_as_a_get(shared: Any) -> None:
    for path in ("members", "audit", "costs", "api-keys", "cache/stats"):
        assert send(shared.hal, "head", path).status_code == 403, path
    assert send(shared.ada, "head", "members").status_code == 200


def test_cache_stats_and_clearing(shared: Any) -> None:
    for _ in range(2):
        ask(shared.nina)
    stats = send(shared.ada, "get", "cache/stats")
    exact = stats.json()["layers"]["exact"]
    assert (exact["hits"], exact["misses"], exact["hit_rate"], exact["entries"]) == (1, 1, 0.5, 1)
    assert exact["bytes"] > 0
    assert send(shared.gus, "get", "cache/stats").json()["layers"]["exact"]["entries"] == 0
    assert send(shared.gus, "delete", "cache").json() == {"removed": 0}
    entries = sum(each["entries"] for name, each in stats.json()["layers"].items() if name != "process")
    assert send(shared.ada, "delete", "cache").json() == {"removed": entries}
    check_problem(send(shared.nina, "get", "cache/stats"), 403)
    assert ask(shared.nina)["cache"] == "miss"
