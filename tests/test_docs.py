import re
from pathlib import Path

import pytest

from hawsweep import __version__, cli
from hawsweep.spec.reference import reference

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "sweeps/*.md", "studies/README.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
)
MOST_LINES = 200
FENCE = re.compile(r"^(```+)[^\n]*\n.*?^\1 *$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(text):
    """The anchors that GitHub gives the headings of a document."""
    found = set()
    for title in re.findall(r"^#{1,6} +(.+?) *$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        n_before = sum(name == slug or re.sub(r"-\d+$", "", name) == slug for name in found)
        found.add(f"{slug}-{n_before}" if n_before else slug)
    return found


def broken_links(path, text):
    """The links of a document, those to the web left out, that lead nowhere."""
    broken = []
    for link in LINK.findall(CODE.sub("", FENCE.sub("", text))):
        if re.match(r"(https?|mailto):", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name
        is_there = not name or target.exists()
        if not is_there or (anchor and anchor not in anchors(read(target) if name else text)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_of_a_document_leads_somewhere(path):
    assert broken_links(path, path.read_text(encoding="utf-8")) == []


def test_each_test_that_the_threat_model_names_exists_and_none_is_left_out():
    named = {
        name if name.startswith("tests/") else f"tests/security/{name}"
        for name in re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py)`", read("docs/security.md"))
    }
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
    security = {f"tests/security/{path.name}" for path in ROOT.glob("tests/security/test_*.py")}
    assert security - named == set()


def test_links_that_lead_nowhere_are_found():
    text = "# A `b`: c, d\n\n[a](none.md) [b](#a-b-c-d) [c](#e) [d](README.md#e) `[e](f)`\n"
    text += "```\n# e\n[g](h)\n```\n[i](https://example.org/i) [j](LICENSE)\n"
    assert broken_links(ROOT / "some.md", text) == ["none.md", "#e", "README.md#e"]
    assert anchors("# Same\n\n## Same\n") == {"same", "same-1"}


def test_readme_is_short():
    assert len(read("README.md").splitlines()) <= MOST_LINES


def test_readme_names_both_commands_of_a_fresh_clone_on_its_first_screen():
    first = "\n".join(read("README.md").splitlines()[:25])
    assert re.search(r"git clone .*\nmake sweep .*\nmake test ", first)


def test_every_document_is_linked_from_the_readme_or_a_document_it_links():
    linked, todo = set(), [ROOT / "README.md"]
    while todo:
        path = todo.pop()
        linked.add(path)
        for link in LINK.findall(path.read_text(encoding="utf-8")):
            target = (path.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.is_file() and target not in {*linked, *todo}:
                todo.append(target)
    # AGENTS.md is found by its name; GitHub's templates, and the note in studies, where they lie.
    docs = [path for path in DOCUMENTS if path.parent in (ROOT / "docs", ROOT / "sweeps")]
    assert [path for path in [*docs, ROOT / "CONTRIBUTING.md"] if path not in linked] == []


def test_reference_of_keys_is_current():
    # Remade with: python -m hawsweep.spec.reference > sweeps/README.md
    assert read("sweeps/README.md") == reference()


def test_a_document_shows_the_bundled_sweep_as_it_is():
    assert f"```yaml\n{read('sweeps/lr-rank.yaml')}```" in read("docs/sweeps.md")


def test_changelog_begins_with_this_version():
    assert re.findall(r"^## \[([\d.]+)\]", read("CHANGELOG.md"), re.MULTILINE)[0] == __version__


@pytest.mark.parametrize("name", sorted(cli.main.commands))
def test_command_has_help_with_an_example_and_is_documented(name):
    command = cli.main.commands[name]
    assert command.help is not None
    assert f"Example: hawsweep {name}" in command.help
    assert f"hawsweep {name}" in read("README.md")
    assert f"hawsweep {name}" in read("docs/commands.md")
    assert name in anchors(read("docs/commands.md"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_a_document_exists(path):
    text = path.read_text(encoding="utf-8")
    blocks = "".join(block.group() for block in FENCE.finditer(text))
    named = re.findall(r"^(?:\$ )?hawsweep ([a-z]+(?:-[a-z]+)*)\b", blocks, re.MULTILINE)
    named += re.findall(r"`hawsweep ([a-z]+(?:-[a-z]+)*)\b[^`]*`", FENCE.sub("", text))
    assert set(named) <= set(cli.main.commands)
