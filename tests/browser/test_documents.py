"""Looking after documents as people do it: files and folders come in, are followed, tagged, deleted and brought back."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from knowledge.models import Document, Job, Source
from tests.browser.chromium import DESKTOP, PHONE
from tests.knowledge.ingestion.test_worker_real import worker

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"]),
]

SIZES = pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])


@pytest.fixture
def in_acme(cast: Any, in_thread: Any) -> Any:
    """Runs a function with acme in force, beside the browser's loop."""
    from tenants.scope import scope

    def run(function: Any) -> Any:
        def inside() -> Any:
            with scope(tenant_id=cast.acme.pk, tags=None):
                return function()

        return in_thread(inside)

    return run


@pytest.fixture
def run_jobs(in_acme: Any) -> Any:
    """Does the work of every job that waits, here and now."""

    def work() -> int:
        from knowledge.embedding.factory import embedder
        from knowledge.ingestion.run import run_claimed_job

        waiting = list(Job.objects.filter(state=Job.State.PENDING).values_list("pk", flat=True))
        for pk in waiting:
            run_claimed_job(job_id=str(pk), embedder=embedder())
        return len(waiting)

    return lambda: in_acme(work)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as an engineer has one: with a sub-folder, something hidden, and a file of no use."""
    top = tmp_path / "handbook"
    (top / "routing").mkdir(parents=True)
    (top / "routing" / "ospf.md").write_text(
        "# OSPF\n\nThe dead interval on the wombat ring is 12 seconds.\n"
    )
    (top / "vlan.txt").write_text("VLAN 412 is the wombat ring's.\n")
    (top / ".secret.md").write_text("Hidden.\n")
    (top / "logo.png").write_bytes(b"\x89PNG\r\n")
    return top


# Puts files on the page as a drop does: Chromium gives entries for them, as it does for real ones.
DROP = """([zone, files]) => {
  const transfer = new DataTransfer();
  for (const [name, text] of files) transfer.items.add(new File([text], name));
  const target = document.querySelector(zone);
  for (const kind of ["dragenter", "dragover", "drop"]) {
    target.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
  }
}"""


def drop_from_the_desktop(visitor: Any, *paths: Path) -> None:
    """What the mouse does: files and folders of the disk, let go over the page."""
    browser = visitor.page.context.new_cdp_session(visitor.page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": kind, "x": 150, "y": 300, "data": data})


def row(visitor: Any, name: str) -> Any:
    return visitor.page.locator("[data-upload-row]").filter(has_text=name)


# Counts how many uploads are under way at once.
WATCH_UPLOADS = """() => {
  let now = 0;
  window.most = 0;
  const open = XMLHttpRequest.prototype.open;
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    open.call(this, method, url, ...rest);
    if (!String(url).endsWith("/upload/")) return;
    window.most = Math.max(window.most, ++now);
    this.addEventListener("load", () => { now -= 1; });
  };
}"""


@SIZES
def test_files_and_a_folder_come_in_and_can_be_asked_about(
    visit: Any, in_acme: Any, folder: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    name = "phone" if size == PHONE else "desktop"
    nina = visit(size=size).sign_in("nina")
    page = nina.page
    nina.go("/documents/")
    nina.shoot(f"documents-list-{name}")
    expect(page.locator("#upload")).to_be_hidden()
    # Dropped anywhere on the page.
    page.evaluate(
        DROP,
        [
            "main",
            [
                ["quokka.md", "# Quokka\n\nThe quokka port is 4433.\n"],
                ["spares.csv", "part,locker\nSFP,12\n"],
                ["evil.exe", "MZ"],
            ],
        ],
    )
    expect(page.locator("#upload")).to_be_visible()
    expect(row(nina, "quokka.md")).to_contain_text("ready")
    expect(row(nina, "evil.exe")).to_contain_text("No kind of file that can be read")
    # A phone has no folders to choose.
    page.locator("#folder").set_input_files(folder)
    expect(row(nina, "handbook/routing/ospf.md")).to_contain_text("ready")
    expect(row(nina, "logo.png")).to_contain_text("No kind of file that can be read")
    expect(row(nina, ".secret.md")).to_have_count(0)
    row(nina, "logo.png").get_by_role("button", name="Remove").click()
    expect(row(nina, "logo.png")).to_have_count(0)
    page.locator("#upload").get_by_label("runbooks").check()
    page.locator("#upload-collection").select_option("handbook")
    nina.shoot(f"documents-upload-ready-{name}")
    assert not nina.scrolls_sideways()
    page.get_by_role("button", name="Upload 4 files").click()
    for file in ("quokka.md", "spares.csv", "handbook/routing/ospf.md", "handbook/vlan.txt"):
        expect(row(nina, file)).to_contain_text("waiting")
    nina.shoot(f"documents-upload-waiting-{name}")

    log = tmp_path / "worker.log"
    with worker(log):  # a real one, as beside a running site
        for file in ("quokka.md", "spares.csv", "handbook/routing/ospf.md", "handbook/vlan.txt"):
            expect(row(nina, file)).to_contain_text("can be asked about", timeout=90_000)
    expect(page.locator("#messages")).to_contain_text("4 can be asked about")
    expect(page.locator("#list")).to_contain_text("handbook/routing/ospf.md")
    nina.shoot(f"documents-upload-done-{name}")
    assert not nina.scrolls_sideways()
    polls: list[str] = []
    page.on("request", lambda request: polls.append(request.url) if "/progress/" in request.url else None)
    page.wait_for_timeout(2_500)
    assert not polls, "the page still asks although nothing is left to wait for"

    def stored() -> dict[str, Any]:
        found = Document.objects.filter(uri__in=["quokka.md", "handbook/routing/ospf.md"]).select_related(
            "collection"
        )
        return {d.uri: (d.tags, d.collection.slug, d.status) for d in found}

    assert in_acme(stored) == dict.fromkeys(
        ("quokka.md", "handbook/routing/ospf.md"), (["runbooks"], "handbook", "indexed")
    )
    nina.go("/")
    nina.ask("What is the dead interval on the wombat ring?")
    expect(nina.wait_for_answer()).to_contain_text("12 seconds")


def test_three_at_a_time_and_one_that_fails_is_tried_again(visit: Any, in_acme: Any) -> None:
    nina = visit(lenient=True).sign_in("nina")  # the browser itself complains of what is cut off
    page = nina.page
    nina.go("/upload/")
    page.evaluate(DROP, ["main", [[f"part-{n}.md", f"# Part {n}\n\n" + "Words. " * 2000] for n in range(7)]])
    # Without a tag that she reads each is refused, in its own row.
    page.evaluate(WATCH_UPLOADS)
    page.get_by_role("button", name="Upload 7 files").click()
    expect(page.locator("[data-upload-row] .reason:visible")).to_have_count(7)
    assert page.evaluate("window.most") == 3
    expect(row(nina, "part-3.md")).to_contain_text("Give at least one tag that your role reads")
    nina.shoot("documents-upload-refused-desktop")
    page.locator("#upload").get_by_label("runbooks").check()
    # The connection breaks, then is there again.
    page.route(
        "**/upload/", lambda route: route.abort() if route.request.method == "POST" else route.continue_()
    )
    row(nina, "part-3.md").get_by_role("button", name="Retry").click()
    expect(row(nina, "part-3.md")).to_contain_text("The server was not reached")
    page.unroute("**/upload/")
    # So does the session; what was chosen is still there.
    session = [one for one in page.context.cookies() if one["name"] == "ragsite_session"]
    page.context.clear_cookies(name="ragsite_session")
    row(nina, "part-3.md").get_by_role("button", name="Retry").click()
    expect(row(nina, "part-3.md")).to_contain_text("You have been signed out")
    page.context.add_cookies(session)
    row(nina, "part-3.md").get_by_role("button", name="Retry").click()
    expect(row(nina, "part-3.md")).to_contain_text("waiting")
    assert in_acme(
        lambda: list(Document.objects.filter(uri__startswith="part-").values_list("uri", flat=True))
    ) == ["part-3.md"]
    # Its job can be ended and begun again from the row.
    row(nina, "part-3.md").get_by_role("button", name="Cancel").click()
    expect(row(nina, "part-3.md")).to_contain_text("cancelled")
    row(nina, "part-3.md").get_by_role("button", name="Retry").click()
    expect(row(nina, "part-3.md")).to_contain_text("waiting")


def test_a_folder_is_dropped_with_what_is_below_it(visit: Any, folder: Path) -> None:
    nina = visit().sign_in("nina")
    nina.go("/documents/")
    drop_from_the_desktop(nina, folder, folder / "vlan.txt")
    for path in ("handbook/routing/ospf.md", "handbook/vlan.txt", "handbook/logo.png"):
        expect(row(nina, path)).to_have_count(1)
    expect(nina.page.locator("[data-upload-row]")).to_have_count(4)  # vlan.txt once more, alone
    expect(nina.page.get_by_role("button", name="Upload 3 files")).to_be_visible()


def test_an_upload_goes_on_being_told_after_a_reload(visit: Any, run_jobs: Any) -> None:
    nina = visit().sign_in("nina")
    nina.go("/upload/")
    nina.page.locator("#file").set_input_files(
        {"name": "later.md", "mimeType": "", "buffer": b"# Later\n\nOn.\n"}
    )
    nina.page.locator("#upload").get_by_label("runbooks").check()
    nina.page.get_by_role("button", name="Upload 1 file").click()
    expect(row(nina, "later.md")).to_contain_text("waiting")
    nina.page.reload()
    expect(row(nina, "later.md")).to_contain_text("waiting")
    run_jobs()
    expect(row(nina, "later.md")).to_contain_text("can be asked about")


@SIZES
def test_deleting_several_and_undoing_it(visit: Any, size: tuple[int, int]) -> None:
    name = "phone" if size == PHONE else "desktop"
    nina = visit(size=size).sign_in("nina")
    page = nina.page
    nina.go("/documents/")
    bar = page.locator("[data-bulk]")
    expect(bar).to_be_hidden()
    for title in ("BGP session down", "Edge BGP policy"):
        page.get_by_label(f"Select {title}").check()
    expect(bar).to_contain_text("2 selected")
    nina.shoot(f"documents-selected-{name}")
    assert not nina.scrolls_sideways()
    page.evaluate("window.stays = true")
    bar.get_by_role("button", name="Delete").click()
    message = page.locator("[data-message]")
    expect(message).to_contain_text("2 documents deleted.")
    expect(page.locator("#list")).to_contain_text("No document yet that your role reads")
    nina.shoot(f"documents-deleted-{name}")
    message.get_by_role("button", name="Undo").click()
    expect(page.locator("#list")).to_contain_text("Edge BGP policy")
    expect(page.locator("#messages")).to_contain_text("2 documents restored.")
    assert page.evaluate("window.stays"), "the page was loaded anew for a small thing"
    # What was deleted and not undone is found among the deleted.
    page.get_by_label("Select Edge BGP policy").check()
    bar.get_by_role("button", name="Delete").click()
    expect(page.locator("#list tbody")).not_to_contain_text("Edge BGP policy")
    page.get_by_label("State").select_option("deleted")
    expect(page.locator("#list tbody")).to_contain_text("Edge BGP policy")
    page.wait_for_url("**/documents/?status=deleted")
    nina.shoot(f"documents-among-deleted-{name}")
    page.get_by_role("button", name="Restore Edge BGP policy").click()
    expect(page.locator("#list")).to_contain_text("Nothing is deleted.")
    page.get_by_role("link", name="Show all documents").click()
    expect(page.locator("#list tbody")).to_contain_text("Edge BGP policy")


@SIZES
def test_tags_in_bulk(visit: Any, in_acme: Any, size: tuple[int, int]) -> None:
    name = "phone" if size == PHONE else "desktop"
    ada = visit(size=size).sign_in("ada")
    page = ada.page
    ada.go("/documents/")
    page.get_by_label("Search").fill("bgp")
    expect(page.locator("#list tbody tr")).to_have_count(2)
    page.wait_for_url("**/documents/?q=bgp")
    if size == DESKTOP:
        page.get_by_label("Select all that are shown").check()
    else:
        for box in page.locator("[data-pick]").all():
            box.check()
    bar = page.locator("[data-bulk]")
    bar.get_by_text("Tags", exact=True).first.click()
    bar.get_by_label("topology").check()
    bar.get_by_label("Others, separated by commas").fill("audits")
    ada.shoot(f"documents-bulk-tags-{name}")
    assert not ada.scrolls_sideways()
    bar.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#messages")).to_contain_text("Tags of 2 documents changed.")
    expect(page.locator("#list tbody tr").first).to_contain_text("audits")
    tags = in_acme(
        lambda: list(Document.objects.filter(title__icontains="bgp").values_list("tags", flat=True))
    )
    assert sorted(map(sorted, tags)) == [
        ["audits", "runbooks", "topology"],
        ["audits", "standards", "topology"],
    ]
    expect(bar).to_be_hidden()


def test_a_range_is_ticked_with_shift_and_escape_closes_a_box(visit: Any) -> None:
    ada = visit().sign_in("ada")
    page = ada.page
    ada.go("/documents/")
    ticks = page.locator("[data-pick]")
    ticks.nth(0).click()
    ticks.nth(3).click(modifiers=["Shift"])
    expect(page.locator("[data-bulk]")).to_contain_text("4 selected")
    page.locator("[data-bulk]").get_by_text("Move", exact=True).first.click()
    expect(page.get_by_label("To the collection")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_label("To the collection")).to_be_hidden()


@SIZES
def test_one_document_is_looked_after(visit: Any, run_jobs: Any, size: tuple[int, int]) -> None:
    name = "phone" if size == PHONE else "desktop"
    nina = visit(size=size, lenient=True).sign_in("nina")  # what is refused is told on the console, too
    page = nina.page
    nina.go("/documents/")
    page.get_by_role("link", name="BGP session down").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("BGP session down")
    expect(page.locator(".chunk").first).to_contain_text("tokens")
    nina.shoot(f"document-manage-{name}")
    assert not nina.scrolls_sideways()
    page.evaluate("window.stays = true")
    page.get_by_role("textbox", name="Title").fill("When BGP is down")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#messages")).to_contain_text("Saved.")
    expect(page.get_by_role("heading", level=1)).to_have_text("When BGP is down")
    page.get_by_label("runbooks").uncheck()
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#tags-error")).to_contain_text("Give at least one tag that your role reads")
    page.locator("#file").set_input_files(
        {"name": "bgp.md", "mimeType": "", "buffer": b"# BGP\n\nThe hold timer is 45 seconds now.\n"}
    )
    page.get_by_role("button", name="Upload").click()
    expect(page.locator("#facts")).to_contain_text("new version waits")
    page.get_by_role("textbox", name="Title").fill("Half typed")
    run_jobs()
    expect(page.locator(".chunk").first).to_contain_text("45 seconds")
    expect(page.locator("#document-state")).to_have_text("indexed")
    expect(page.get_by_role("textbox", name="Title")).to_have_value("Half typed")
    assert page.evaluate("window.stays")
    page.get_by_role("button", name="Delete").click()
    page.wait_for_url("**/documents/")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#list")).to_contain_text("When BGP is down")


@SIZES
def test_a_source_is_made_and_run(
    visit: Any, folder: Path, configure: Any, run_jobs: Any, in_acme: Any, size: tuple[int, int]
) -> None:
    name = "phone" if size == PHONE else "desktop"
    configure(RAGSITE_INGEST_ROOT=folder.parent)
    (folder / "plan.pdf").write_bytes(b"no PDF at all")
    ada = visit(size=size).sign_in("ada")
    page = ada.page
    ada.go("/sources/")
    expect(page.locator("main")).to_contain_text("No source yet")
    ada.shoot(f"sources-empty-{name}")
    page.get_by_role("link", name="New source").click()
    path = page.get_by_label("Folder of the server")
    expect(path).to_be_visible()
    page.wait_for_load_state()  # what is typed before the page's scripts have run is not checked
    path.fill("nowhere")
    path.blur()
    expect(page.locator("#path-check")).to_contain_text("There is no folder")
    path.fill("handbook")
    path.blur()
    expect(page.locator("#path-check")).to_contain_text("This folder is there.")
    page.get_by_label("runbooks").check()
    page.get_by_label("Time zone").fill("Europe/Berlin")
    # Giving the time chooses the schedule.
    page.get_by_label("Time of day", exact=True).fill("03:15")
    expect(page.get_by_label("Every day at")).to_be_checked()
    expect(page.locator("#schedule-check")).to_contain_text("Every day at 03:15, Europe/Berlin. Next:")
    ada.shoot(f"source-form-{name}")
    assert not ada.scrolls_sideways()
    page.get_by_label("Fetch its documents now").uncheck()
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("handbook")
    expect(page.locator("main")).to_contain_text("It has not run yet.")
    page.get_by_role("button", name="Sync now").click()
    expect(page.locator("#source")).to_contain_text("waiting")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    run_jobs()
    expect(page.locator("#source")).to_contain_text("done, with errors")
    expect(page.locator("#source")).to_contain_text("plan.pdf")
    expect(page.locator("#source")).to_contain_text("Skipped: holds no text")
    ada.shoot(f"source-{name}")
    assert not ada.scrolls_sideways()
    ada.go("/sources/")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#sources")).to_contain_text("paused")
    ada.shoot(f"sources-{name}")
    assert not ada.scrolls_sideways()
    assert in_acme(lambda: Source.objects.get().enabled) is False
    page.get_by_role("link", name=re.compile("handbook →")).click()
    page.locator("#delete > summary").click()
    expect(page.locator("#delete")).to_contain_text("With it go 2 documents")
    ada.shoot(f"source-delete-{name}")
    page.get_by_role("button", name="Delete source and documents").click()
    expect(page.locator("main")).to_contain_text("No source yet")
    assert in_acme(lambda: Document.objects.count()) == 5


@SIZES
def test_a_job_is_cancelled_and_tried_again(
    visit: Any, run_jobs: Any, in_acme: Any, size: tuple[int, int]
) -> None:
    name = "phone" if size == PHONE else "desktop"

    def make() -> None:
        from django.utils import timezone

        from knowledge.models import Collection
        from tenants.models import User

        Job.objects.create(
            kind="reindex",
            collection=Collection.objects.get(slug="handbook"),
            user=User.objects.get(username="ada"),
            state="PROGRESS",
            step="indexing again",
            progress=42,
            seen=5,
            changed=2,
            started_at=timezone.now(),
            heartbeat_at=timezone.now(),
        )

    in_acme(make)
    ada = visit(size=size).sign_in("ada")
    page = ada.page
    ada.go("/jobs/")
    line = page.locator("tbody tr").first
    expect(line).to_contain_text("42 %")
    ada.shoot(f"jobs-running-{name}")
    assert not ada.scrolls_sideways()
    page.evaluate("window.stays = true")
    in_acme(lambda: Job.objects.update(progress=77))
    expect(line).to_contain_text("77 %")
    line.get_by_role("button", name="Cancel").click()
    expect(line).to_contain_text("stopping")
    in_acme(lambda: Job.objects.update(state="CANCELLED", step="cancelled"))
    expect(line).to_contain_text("cancelled")
    line.get_by_role("button", name="Retry").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator("tbody tr").first).to_contain_text("waiting")
    run_jobs()
    expect(page.locator("tbody tr").first).to_contain_text("done")
    assert page.evaluate("window.stays")
    page.locator("tbody tr").first.get_by_role("link", name="Index again").click()
    expect(page.locator(".figures")).to_contain_text("Documents seen")
    ada.shoot(f"job-{name}")
    assert not ada.scrolls_sideways()


def test_without_javascript(visit: Any, run_jobs: Any, folder: Path, configure: Any) -> None:
    configure(RAGSITE_INGEST_ROOT=folder.parent)
    (folder / "plan.pdf").write_bytes(b"no PDF at all")
    ada = visit(javascript=False, lenient=True).sign_in("ada")  # a page that says 415 is told on the console
    page = ada.page
    ada.go("/documents/")
    page.get_by_role("link", name="Upload").click()
    page.get_by_label("Files").set_input_files([folder / "vlan.txt", folder / "logo.png"])
    page.locator("#upload").get_by_label("runbooks").check()
    ada.shoot("documents-without-javascript")
    page.locator("#upload").get_by_role("button", name="Upload").click()
    expect(page.locator("#upload [role=alert]").first).to_contain_text("logo.png has no supported ending")
    expect(page.locator("[data-uploads]")).to_contain_text("vlan.txt")
    run_jobs()
    page.get_by_role("link", name="Look again").click()
    expect(page.locator("[data-uploads]")).to_contain_text("can be asked about")
    page.get_by_label("Search").fill("vlan")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#list tbody tr")).to_have_count(1)
    page.get_by_label("Select vlan").check()
    page.locator("[data-bulk]").get_by_text("Tags", exact=True).first.click()
    page.locator("[data-bulk]").get_by_label("faq").check()
    page.locator("[data-bulk]").get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#list tbody tr")).to_contain_text("faq")
    page.get_by_label("Select vlan").check()
    page.locator("[data-bulk]").get_by_role("button", name="Delete").click()
    expect(page.locator("#list")).to_contain_text("No document matches.")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#list")).to_contain_text("vlan")
    ada.go("/sources/new/")
    page.get_by_label("Folder of the server").fill("handbook")
    page.get_by_label("Every so many hours").check()
    page.get_by_role("button", name="Create").click()
    expect(page.locator("main")).to_contain_text("every hour")
    run_jobs()
    page.reload()
    expect(page.locator("main")).to_contain_text("done, with errors")
    page.get_by_role("link", name="Jobs").click()
    expect(page.locator("tbody")).to_contain_text("Synchronise")


@pytest.mark.parametrize("width", [375, 768, 1024, 1920])
def test_no_width_scrolls_sideways(visit: Any, width: int) -> None:
    ada = visit(size=(width, 900), dark=True).sign_in("ada")
    wide = []
    for path in ("/documents/", "/upload/", "/collections/", "/collections/new/", "/sources/new/", "/jobs/"):
        ada.go(path)
        if ada.scrolls_sideways():
            wide.append(path)
        ada.shoot(f"{path.strip('/').replace('/', '-')}-{width}-dark")
    assert not wide
