from knowledge.ingestion.parse import parse_document


def parse(text: str, filename: str = "port-list.csv"):
    return parse_document(data=text.encode(), filename=filename)


def test_each_row_can_be_read_alone():
    parsed = parse('Device,Port,Note\nsw1,1,"uplink, core"\nsw2,,"two\nlines"\n\nsw3,7,\n')
    assert parsed.text == (
        "Device: sw1; Port: 1; Note: uplink, core\nDevice: sw2; Note: two lines\nDevice: sw3; Port: 7"
    )
    assert [parsed.text[block.start : block.end] for block in parsed.blocks] == parsed.text.split("\n")
    assert {block.kind for block in parsed.blocks} == {"table"}
    assert parsed.title == "Port list"


def test_semicolons_and_tabs():
    assert parse("Gerät;Ort\nsw1;Ulm\nsw2;Köln\n").text == "Gerät: sw1; Ort: Ulm\nGerät: sw2; Ort: Köln"
    assert parse("a\tb c\n1\t2, 3\n", "x.tsv").text == "a: 1; b c: 2, 3"


def test_a_table_without_a_header_keeps_its_first_row():
    assert parse("10.0.0.1,sw1\n10.0.0.2,sw2\n").text == "10.0.0.1; sw1\n10.0.0.2; sw2"
    assert parse("sw1,sw1\nsw2,sw3\n").text == "sw1; sw1\nsw2; sw3"


def test_rows_longer_and_shorter_than_the_header():
    assert parse("Device,Port\nsw1,1,extra\nsw2\n").text == "Device: sw1; Port: 1; extra\nDevice: sw2"


def test_a_single_row_is_data():
    assert parse("only,one,row\n").text == "only; one; row"
