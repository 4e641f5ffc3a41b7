"""Text of many languages and scripts is indexed, searched and found by its words."""

from typing import Any

import pytest

from knowledge.documents import save_collection
from knowledge.models import Collection, Job
from tenants.scope import scope
from tests.knowledge.helpers import ask, run_job, send, upload_indexed
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401

pytestmark = on_shared_cast

# language of the collection → (text, question, a word of the passage)
TEXTS = {
    "german": ("Die Wartungsfenster der Häuser liegen am Sonntag.", "Wann ist das Wartungsfenster eines Hauses?", "Sonntag"),
    "french": ("Les commutateurs sont remplacés chaque année.", "Quand remplace-t-on un commutateur ?", "année"),
    "spanish": ("Los enrutadores se reinician los martes.", "¿Cuándo se reinicia el enrutador?", "martes"),
    "simple": ("東京の予備ルーターは毎週月曜日に再起動されます。", "予備ルーターの再起動はいつ?", "月曜日"),
}  # fmt: skip
OTHERS = {
    "الموجه الاحتياطي في القاهرة": "متى الموجه الاحتياطي",
    "Резервный маршрутизатор стоит в Казани": "Где резервный маршрутизатор?",
    "备用路由器位于上海机房": "备用路由器在哪里",
    "นโยบายสำรองข้อมูลของสาขา": "นโยบายสำรองข้อมูล",
}


def found(member: Any, question: str) -> str:
    response = send(member, "post", "search", {"question": question, "k": 3})
    assert response.status_code == 200, response.content
    return "\n".join(source["text"] for source in response.json()["sources"][:1])


@pytest.mark.parametrize("language", list(TEXTS))
def test_words_are_found_by_their_language(shared: Any, language: str) -> None:
    text, question, word = TEXTS[language]
    slug = f"in-{language}"
    body = {"name": slug, "slug": slug, "language": language, "default_tags": ["faq"]}
    assert send(shared.ada, "post", "collections", body).status_code == 201
    upload_indexed(shared.ada, f"{language}.md", f"# {language}\n\n{text}\n", collection=slug)
    assert word in found(shared.hal, question)


# Documents of one collection: file → (text, question, what its answer says)
MIXED = {
    "dienst.md": (
        "# Bereitschaft\n\nDie Bereitschaft des Rechenzentrums Wieselburg erreicht man unter der Durchwahl 4711.\n",
        "Unter welcher Durchwahl erreicht man die Bereitschaft des Rechenzentrums Wieselburg?",
        "4711",
    ),
    "onduleur.md": (
        "# Onduleur\n\nLes batteries de l'onduleur de Quimper sont remplacées tous les quatre ans.\n",
        "Quand remplace-t-on les batteries de l'onduleur de Quimper ?",
        "quatre ans",
    ),
    "generator.md": (
        "# Generator\n\nThe diesel generator in Aberystwyth is tested on the first Thursday of each month.\n",
        "When is the diesel generator in Aberystwyth tested?",
        "first Thursday",
    ),
}  # fmt: skip


@pytest.mark.parametrize("language", ["simple", "english", "german"])
def test_a_collection_of_three_languages_is_asked_in_each(shared: Any, language: str) -> None:
    slug = f"mixed-{language}"
    body = {"name": slug, "slug": slug, "language": language, "default_tags": ["faq"]}
    assert send(shared.ada, "post", "collections", body).status_code == 201
    ids = {
        name: upload_indexed(shared.ada, name, text, collection=slug) for name, (text, *_) in MIXED.items()
    }
    for name, (_, question, fact) in MIXED.items():
        answer = ask(shared.hal, question, collections=[slug], cache=False)
        assert answer["answered"] and fact in answer["answer"], answer
        cited = answer["sources"][answer["citations"][0]["source"] - 1]
        assert (cited["document_id"], cited["collection"]) == (ids[name], slug)
        assert answer["sources"][0]["document_id"] == ids[name]


def test_scripts_without_a_stemmer(shared: Any) -> None:
    for number, text in enumerate(OTHERS):
        upload_indexed(shared.ada, f"other-{number}.md", f"{text}\n", tags="faq")
    for text, question in OTHERS.items():
        assert text in found(shared.hal, question), question


def test_another_language_makes_the_terms_again(shared: Any) -> None:
    with scope(tenant_id=shared.acme.pk, tags=None):
        collection = save_collection(
            collection=Collection(), changes={"slug": "switching", "name": "Switching", "language": "simple"}
        )
    upload_indexed(shared.ada, "hütten.md", "# Hütten\n\nZwölf Hütten.\n", collection="switching", tags="faq")
    path = f"collections/{collection.pk}"
    assert send(shared.ada, "patch", path, {"description": "Other words."}).status_code == 200
    with scope(tenant_id=shared.acme.pk, tags=None):
        assert not Job.objects.filter(kind="reindex", collection=collection).exists()
    assert send(shared.ada, "patch", path, {"language": "german"}).status_code == 200
    with scope(tenant_id=shared.acme.pk, tags=None):
        job = Job.objects.get(kind="reindex", collection=collection)
    done = run_job(shared.ada, str(job.pk))
    assert done["state"] == "SUCCESS" and done["documents"]["changed"] == 1
    assert "Zwölf" in found(shared.hal, "die Hütte")
