"""E-mail messages, written by the standard library and by hand."""

from email.message import EmailMessage

import pytest

from knowledge.ingestion.parse import ParseError, parse_document


def make_message(subject: str, text: str) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = "Nina <nina@example.com>"
    message["Date"] = "Sat, 01 Mar 2025 10:00:00 +0100"
    message.set_content(text)
    return message


def read(data: bytes):
    return parse_document(data=data, filename="mail.eml")


def test_headers_text_attachments_and_forwarded_messages():
    message = make_message(
        "Outage Hamburg – root cause", "Hi all,\n\nthe card failed.\n\nSteps:\n- reseat\n- replace"
    )
    message["To"] = "noc@example.com"
    message.add_alternative("<p>html</p>", subtype="html")
    message.add_attachment(b"x" * 3000, maintype="application", subtype="pdf", filename="rca.pdf")
    message.add_attachment(make_message("Older", "forwarded text"))
    parsed = read(bytes(message))
    assert parsed.title == "Outage Hamburg – root cause"
    assert [(heading.level, heading.title) for heading in parsed.headings] == [
        (1, parsed.title),
        (2, "Older"),
    ]
    assert parsed.text == (
        "Outage Hamburg – root cause\n\nFrom: Nina <nina@example.com>\nTo: noc@example.com\n"
        "Date: 2025-03-01 10:00+01:00\n\nHi all,\n\nthe card failed.\n\nSteps:\n- reseat\n- replace\n\n"
        "Attachments:\n- rca.pdf (3 KB)\n\nOlder\n\nFrom: Nina <nina@example.com>\n"
        "Date: 2025-03-01 10:00+01:00\n\nforwarded text"
    )


def test_html_alone_is_read_as_html_and_charsets_are_honoured():
    message = make_message("x", "y")
    message.set_content("<h2>Befund</h2><p>Prüfung der Geräte</p>", subtype="html", charset="iso-8859-1")
    assert "Befund\n\nPrüfung der Geräte" in read(bytes(message)).text
    raw = (
        b"Subject: =?koi8-r?B?8NLJ18XU?=\r\nContent-Type: text/plain; charset=koi8-r\r\n\r\n"
        + "Привет".encode("koi8-r")
    )
    assert (read(raw).title, read(raw).text) == ("Привет", "Привет\n\nПривет")
    lying = b"Subject: a\r\nContent-Type: text/plain; charset=x-none\r\n\r\n" + "Prüfung der Geräte".encode()
    assert "Prüfung der Geräte" in read(lying).text


def compose(kind: str, *parts: tuple[str, str]) -> bytes:
    """A message of a multipart kind whose parts are (headers, text)."""
    rows = "".join(f"--B\r\nContent-Type: {head}\r\n\r\n{text}\r\n" for head, text in parts)
    head = f"From: a@example.com\r\nSubject: Report\r\nMIME-Version: 1.0\r\nContent-Type: multipart/{kind}; boundary=B"
    return f"{head}\r\n\r\n{rows}--B--\r\n".encode()


def test_texts_around_a_picture_are_joined():
    picture = "image/png; name=p.png\r\nContent-Disposition: inline"
    log = 'text/plain; name="edge.log"\r\nContent-Disposition: inline; filename=edge.log'
    text = read(
        compose(
            "mixed",
            ("text/plain", "First half."),
            (picture, "x"),
            ("text/plain", "Second half: the root cause."),
            ("text/html", "<p>Third, in HTML.</p>"),
            (log, "line of the log"),
        )
    ).text
    assert "First half.\n\nSecond half: the root cause.\n\nThird, in HTML.\n\nAttachments:" in text
    assert "- p.png" in text and "- edge.log" in text and "line of the log" not in text


def test_an_empty_plain_text_is_no_alternative():
    html = ("text/html", "<p>Only in HTML.</p>")
    assert "Only in HTML." in read(compose("alternative", ("text/plain", " "), html)).text
    both = read(compose("alternative", ("text/plain", "Plain."), html)).text
    assert "Plain." in both and "Only in HTML." not in both
    # Nested as programs write it: the picture belongs to the HTML, the attachment to the message.
    inner = (
        "multipart/related; boundary=R",
        "--R\r\nContent-Type: text/html\r\n\r\n<p>Inner.</p>\r\n"
        "--R\r\nContent-Type: image/png; name=logo.png\r\nContent-ID: <1>\r\n\r\nx\r\n--R--",
    )
    pdf = ("application/pdf; name=rca.pdf\r\nContent-Disposition: attachment", "x")
    nested = read(compose("mixed", inner, pdf)).text
    assert "Inner." in nested and "- rca.pdf" in nested and "logo.png" not in nested
    assert "Inner." in read(compose("alternative", ("text/plain", ""), inner)).text


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"just some words without a header", "wrong_type"),
        (b"Subject: empty\r\n\r\n", "no_text"),
        (b"Subject: a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", "no_text"),
    ],
)
def test_what_is_no_message_or_says_nothing_is_refused(data, code):
    with pytest.raises(ParseError) as caught:
        read(data)
    assert caught.value.code == code


def test_malformed_headers_do_no_harm():
    parsed = read(b"Subject: a\x00b\xff\r\nFrom: <<>>;;\r\nDate: yesterday\r\nTo: =?x?Q?=ZZ?=\r\n\r\nwords")
    assert parsed.text.endswith("words")
    assert "Date: yesterday" in parsed.text
