import pytest

from hawsweep.data.columns import Columns, open_pairs
from hawsweep.data.load import load_data
from hawsweep.errors import DataError
from hawsweep.spec.sweep import DataSpec


@pytest.fixture
def table(tmp_path):
    def write(header, *rows, name="a.csv"):
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in (header, *rows)), encoding="utf-8")
        return path

    return write


def chosen(path, **asked):
    with open_pairs(path, **asked) as (columns, rows):
        list(rows)
    return columns


def fault_of(path, **asked):
    with pytest.raises(DataError) as caught:
        chosen(path, **asked)
    return str(caught.value)


CHOSEN = {
    "names": ("English,Hawaiian", "a,b", {}, "Hawaiian", "English", "by their names"),
    "short names": ("tgt,src", "a,b", {}, "src", "tgt", "by their names"),
    "names beside an id": (
        "id,hawaiian,english",
        "a,b,c",
        {},
        *("hawaiian", "english"),
        "by their",
    ),
    "names of three with words": ("note,haw,en", "a,b,c", {}, "haw", "en", "by their names"),
    "beside where it is from": (
        "hawaiian,english,source",
        "a,b,Pukui 1983",
        {},
        *("hawaiian", "english"),
        "by their",
    ),
    "beside a citation": (
        "hawaiian,translation,reference",
        "a,b,Pukui 1983",
        {},
        *("hawaiian", "translation"),
        "by their",
    ),
    "beside a translation": (
        "source,reference,translation",
        "a,b,c",
        {},
        *("source", "reference"),
        "by their",
    ),
    "two columns": ("x,y", "1,2", {}, "x", "y", "the only two"),
    "two, one named": ("English,x", "a,b", {}, "x", "English", "the only two"),
    "two beside a group": ("group,x,y", "a,b,c", {}, "x", "y", "the only two"),
    "two with words": ("id,foo,bar", "1,a b,c", {}, "foo", "bar", "the two that hold words"),
    "two with words, one named": ("n,x,haw", "1,a,b", {}, "haw", "x", "the two that hold words"),
    "both asked for": ("a,b", "c,d", {"source": "b", "target": "a"}, "b", "a", "asked for"),
    "one asked for": ("en,haw", "c,d", {"source": "en"}, "en", "haw", "the only two"),
    "one asked for, one named": ("a,b,en", "c,d,e", {"source": "b"}, "b", "en", "by their names"),
    "other asked for": ("n,a,b", "1,c,d", {"target": "a"}, "b", "a", "the two that hold words"),
    "group asked for": ("a,group", "c,d", {"target": "group"}, "a", "group", "the only two"),
    "numbers asked for": ("a,b,id", "c,d,1", {"source": "id", "target": "a"}, "id", "a", "asked"),
    "spaces around a name": ("a, b", "c,d", {"source": " b"}, "b", "a", "the only two"),
}


@pytest.mark.parametrize(
    ("header", "row", "asked", "source", "target", "why"), CHOSEN.values(), ids=CHOSEN
)
def test_columns_are_asked_for_or_named_or_the_only_two(
    table, header, row, asked, source, target, why
):
    found = chosen(table(header, row), **asked)
    assert (found.source, found.target) == (source, target)
    assert found.why.startswith(why)
    names = {name.strip() for name in header.split(",")}
    assert {source, target, *found.others} == names - ({"group"} - {source, target})


THREE = "x,y,z"
NOT_CHOSEN = {
    "three with words": (THREE, "a,b,c", {}, "3 of its columns hold words, must be two"),
    "how to name": (THREE, "a,b,c", {}, "Its columns: x, y, z. Name them with data.source and"),
    "how init names": (THREE, "a,b,c", {}, "`hawsweep init` has --source and --target."),
    "one with words": ("x,y,z", "a,1,2", {}, "1 of its columns hold words, must be two"),
    "three, one asked for": ("x,y,z", "a,b,c", {"source": "x"}, "3 of its columns hold words"),
    "only a group beside": ("x,group", "a,b", {}, "1 of its columns hold words"),
    "no such source": (
        "a,b",
        "c,d",
        {"source": "c"},
        "no column 'c' (data.source). Its columns: a, b",
    ),
    "no such target": ("a,b", "c,d", {"target": "c"}, "has no column 'c' (data.target)"),
    "one for both": ("a,b", "c,d", {"source": "a", "target": "a"}, "both from the column 'a'"),
}


@pytest.mark.parametrize(("header", "row", "asked", "says"), NOT_CHOSEN.values(), ids=NOT_CHOSEN)
def test_columns_that_cannot_be_told_are_refused(table, header, row, asked, says):
    path = table(header, row)
    fault = fault_of(path, **asked)
    assert str(path) in fault
    assert says in fault


HEADLESS = {
    "phrases": ("Aloha kakahiaka,Good morning", "a,b"),
    "sentences": ("ʻO wai kou inoa?,What is your name?", "a,b"),
    "a word and its phrase": ("Mahalo,Thank you", "a,b"),
    "words that end sentences": ("ʻAe.,Yes!", "a,b"),
    "sentence with a usual name": ("ʻŌlelo Hawaiʻi mai ʻoe.,Speak Hawaiian with me.", "a,b"),
    "three columns": ("1,Aloha kakahiaka,Good morning", "2,a,b"),
    "three with words": ("Aloha kakahiaka,Good morning,greeting", "a,b,c"),
}


@pytest.mark.parametrize(("first", "row"), HEADLESS.values(), ids=HEADLESS)
def test_first_row_that_reads_like_data_is_refused(table, first, row):
    path = table(first, row)
    fault = fault_of(path)
    assert fault.startswith(f"{path}: its first row reads like data, not like the names of columns")
    assert first.replace(",", ", ") in fault
    assert "Put a line such as source,target before it." in fault
    assert "If these are names: name them with data.source and data.target" in fault


HEADERS = (
    *("Hawaiian sentence,English sentence", "ʻŌlelo Hawaiʻi,ʻŌlelo Pelekānia", "Haw.,Eng."),
    *(
        "my text,my translation",
        "text_haw,text_en",
        "x,y",
        "kumu,hopena",
        "Source (haw),Target (en)",
    ),
)


@pytest.mark.parametrize("header", HEADERS)
def test_first_row_of_names_is_a_header(table, header):
    source, target = header.split(",")
    assert chosen(table(header, "a,b")) == Columns(source, target, "the only two")


def test_first_row_that_is_named_is_a_header(table):
    path = table("Aloha kakahiaka,Good morning", "Mahalo,Thanks")
    asked = {"source": "Aloha kakahiaka", "target": "Good morning"}
    assert chosen(path, **asked) == Columns(*asked.values(), "asked for")


def test_columns_in_words_name_those_not_used():
    assert str(Columns("haw", "en", "by their names", ("id", "note"), "group")) == (
        "haw to en, by their names; groups: group; not used: id, note"
    )


def load(path, **options):
    spec = DataSpec(path=str(path), valid_fraction=0.5, test_fraction=0, **options)
    return load_data([spec])


@pytest.mark.parametrize("name", ["group", "Group"])
def test_column_group_is_the_records_group(table, name):
    path = table(f"haw,{name},en", "a,verb,b", "c,,d")
    splits = load(path)
    assert splits.columns[str(path)].group == name
    groups = {record.reference: record.group for record in (*splits.train, *splits.valid)}
    assert groups == {"b": "verb", "d": None}
    (ungrouped,) = (r for r in (*splits.train, *splits.valid) if r.reference == "d")
    assert ungrouped.content.keys() == {"prompt", "completion"}


def test_group_that_is_the_translation_is_no_group(table):
    splits = load(table("haw,group", "a,b", "c,d"), target="group")
    found = sorted(list(record.content.items()) for record in (*splits.train, *splits.valid))
    assert found == [
        [("prompt", f"Translate to English: {haw}"), ("completion", en)] for haw, en in ("ab", "cd")
    ]


def test_splits_know_the_columns_of_each_table(table, tmp_path):
    one, other = table("x,y", "a,b", "c,d"), table("id,en,haw", "1,a,b", "2,c,d", name="b.csv")
    specs = [DataSpec(path=str(path), valid_fraction=0.5, test_fraction=0) for path in (one, other)]
    assert load_data(specs).columns == {
        str(one): Columns("x", "y", "the only two"),
        str(other): Columns("haw", "en", "by their names", ("id",)),
    }
    assert load_data([DataSpec(path="phrasebook")]).columns == {}
