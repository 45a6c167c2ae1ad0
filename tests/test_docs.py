import re
from pathlib import Path

import pytest

from hawsweep import __version__, cli
from hawsweep.reference import reference

ROOT = Path(__file__).parents[1]


def test_reference_of_keys_is_current() -> None:
    # Remade with: python -m hawsweep.reference > sweeps/README.md
    assert (ROOT / "sweeps" / "README.md").read_text(encoding="utf-8") == reference()


def test_readme_shows_the_bundled_sweep_as_it_is() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    sweep = (ROOT / "sweeps" / "lr-rank.yaml").read_text(encoding="utf-8")
    assert f"```yaml\n{sweep}```" in readme


def test_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[([\d.]+)\]", changelog, re.MULTILINE)[0] == __version__


@pytest.mark.parametrize("name", sorted(cli.main.commands))
def test_command_has_help_with_an_example_and_is_in_the_readme(name: str) -> None:
    command = cli.main.commands[name]
    assert command.help is not None
    assert f"Example: hawsweep {name}" in command.help
    assert f"hawsweep {name}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_module_is_named_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    modules = {path.stem for path in (ROOT / "src" / "hawsweep").glob("*.py")}
    for package in ("dashboard", "drafting", "export", "report"):
        modules |= {path.stem for path in (ROOT / "src" / "hawsweep" / package).glob("*.py")}
    modules -= {"__init__"}
    assert [name for name in sorted(modules) if f"`{name}`" not in readme] == []
