"""Chat templates of a stranger: their time, their memory, their length, and what they may touch."""

import ast
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from transformers.utils.chat_template_utils import _compile_jinja_template

from hawsweep.cli import main
from hawsweep.errors import DataError, ModelError
from hawsweep.machine.children import child_command
from hawsweep.models import check_template, render_template
from hawsweep.models.check_template import check_templates
from hawsweep.models.load import load_template, load_tokenizer
from hawsweep.models.render_template import _givens, judge

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
# Each ends by the time alone; as a user of few messages meets it.
SLOW = {
    "nested-loops": ENDLESS,
    "nested-loops-of-three": "{% for a in range(9999) %}{% for b in range(9999) %}"
    "{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
    "recursive-macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(60) }}",
    "recursive-loop": "{% for a in [[0, 1]] recursive %}{% if loop.depth < 60 %}"
    "{{ loop([[0], [1]]) }}{% endif %}{% endfor %}",
    "power": "{% set x = 9 ** (9 ** 9) %}",
    "power-of-powers": "{% set x = (7 ** 9999999) ** 99 %}",
    "sorting": "{% for a in range(99999) %}{% set x = range(99999) | sort %}{% endfor %}",
    "replacing": "{% for a in range(99999) %}{% set x = ('a' * 99999).replace('a', 'b') %}"
    "{% endfor %}",
    "in-the-tag": "{% generation %}" + ENDLESS + "{% endgeneration %}",
    "with-a-tool": "{% if tools %}" + ENDLESS + "{% endif %}",
    "with-a-system-message": "{% if messages[0].role == 'system' %}" + ENDLESS + "{% endif %}",
    "in-a-long-conversation": "{% if messages | length > 9 %}" + ENDLESS + "{% endif %}",
    "to-ask": "{% if add_generation_prompt %}" + ENDLESS + "{% endif %}",
    "after-a-refusal": "{% if messages | length < 2 %}{{ raise_exception('no') }}{% endif %}"
    + ENDLESS,
    "by-characters": "{% for a in range(99999) %}{% for m in messages %}{% for c in m.content %}"
    "{% endfor %}{% endfor %}{% endfor %}",
}
LARGE = {
    "text": "{{ 'a' * 10 ** 9 }}",
    "text-kept": "{% set x = 'a' * 10 ** 9 %}",
    "list": "{% set x = [0] * 10 ** 9 %}",
    "tuple": "{% set x = (0, 0) * 10 ** 9 %}",
    "padded": "{{ 'a'.ljust(10 ** 10) }}",
    "centered": "{{ 'a' | center(10 ** 10) }}",
    "zeros": "{{ '1'.zfill(10 ** 10) }}",
    "indented": "{{ 'a\\na' | indent(10 ** 10) }}",
    "doubled-in-a-namespace": "{% set n = namespace(x='a') %}"
    "{% for a in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubled-list": "{% set n = namespace(x=[0]) %}"
    "{% for a in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "replaced": "{% set n = namespace(x='aa') %}"
    "{% for a in range(9) %}{% set n.x = n.x.replace('a', n.x) %}{% endfor %}",
    "joined": "{{ (['a' * 10 ** 6] * 10 ** 6) | join }}",
    "batched": "{% set x = [0] | batch(10 ** 10, 0) | list %}",
    "json": "{{ ([['a' * 10 ** 6] * 1000] * 10) | tojson }}",
    "json-indent": "{{ [1] | tojson(indent=10 ** 10) }}",
    "each-message-doubles": "{% set n = namespace(x='words') %}"
    "{% for m in messages %}{% set n.x = n.x + n.x %}{% endfor %}",
}
LONG = {
    "loop": "{% for a in range(99999) %}{{ 'a' * 100 }}{% endfor %}",
    "text": "{{ 'a' * 2 * 10 ** 6 }}",
    "macro": "{% macro f() %}{{ 'a' * 10 ** 5 }}{% endmacro %}"
    "{% for a in range(99) %}{{ f() }}{% endfor %}",
    "messages-by-messages": "{% for a in messages %}{% for b in messages %}{% for c in messages %}"
    "{{ c.content }}{% endfor %}{% endfor %}{% endfor %}",
    "format": "{{ '%2000000d' % 1 }}",
    "tag": "{% generation %}{{ 'a' * 2 * 10 ** 6 }}{% endgeneration %}",
    "filler": "{{ 'a' | center(2 * 10 ** 6) }}",
    "lipsum": "{% for a in range(999) %}{{ lipsum(n=9) }}{% endfor %}",
    "long-conversation": "{% if messages | length > 9 %}{{ 'a' * 2 * 10 ** 6 }}{% endif %}",
    "tool": "{% if tools %}{{ 'a' * 2 * 10 ** 6 }}{% endif %}",
}
# They raise or give nothing away, here as in transformers.
TOUCHING = {
    "mro": "{{ ''.__class__.__mro__ }}",
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "subclasses-by-attr": "{{ ('' | attr('__class__') | attr('__mro__'))[1] }}",
    "globals-of-cycler": "{{ cycler.__init__.__globals__.os.system('touch @') }}",
    "globals-of-joiner": "{{ joiner.__init__.__globals__.os.system('touch @') }}",
    "globals-of-namespace": "{{ namespace.__init__.__globals__.os.system('touch @') }}",
    "globals-of-lipsum": "{{ lipsum.__globals__['os'].system('touch @') }}",
    "globals-of-raise": "{{ raise_exception.__globals__['sys'].modules.os.system('touch @') }}",
    "globals-of-clock": "{{ strftime_now.__globals__['os'].system('touch @') }}",
    "self-of-clock": "{{ strftime_now.__self__.__class__ }}",
    "code-of-macro": "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
    "self": "{{ self._TemplateReference__context.environment.globals }}",
    "format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "format-map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "format-by-attr": "{{ ('{0.__class__}' | attr('format'))('') }}",
    "format-of-map": "{{ ['{0.__class__.__mro__}'] | map('format', '') | list }}",
    "import": "{% import 'os' as x %}{{ x.system('touch @') }}",
    "include": "{% include '/etc/passwd' %}",
    "extends": "{% extends '/etc/passwd' %}",
    "from": "{% from 'os' import system %}{{ system('touch @') }}",
    "open": "{{ open('@', 'w') }}",
    "dunder-import": "{{ __import__('os').system('touch @') }}",
    "eval": "{{ eval('1') }}",
    "append": "{{ messages.append(messages) }}",
    "clear": "{{ messages[0].clear() }}",
    "update": "{{ messages[0].update({'content': 1}) }}",
    "generator-frame": "{{ (messages | map('upper')).gi_frame.f_builtins }}",
    "range": "{% for a in range(10 ** 9) %}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "self-holding": "{% set n = namespace() %}{% set n.n = n %}{{ n | tojson }}",
    "undefined": "{{ nothing.at.all }}",
    "syntax": "{% for %}",
    "brackets": "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
    "tags": "{% if a %}" * 500 + "{% endif %}" * 500,
    "raises": "{{ raise_exception('no system message') }}",
    "division": "{{ 1 // 0 }}",
    "tojson-of-object": "{{ cycler | tojson }}",
    "surrogate": "{{ '\\ud800' }}",
    "nul": "{{ '\\0' }}",
}
GOOD = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, so that each template is tried."""
    monkeypatch.setenv("HAWSWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def one_second(monkeypatch):
    """A template has a second, and half the memory, so that the tests take no minutes."""
    monkeypatch.setattr(check_template, "SECONDS", 1)


def tokenizer(template, **special):
    return SimpleNamespace(chat_template=template, special_tokens_map=special)


def check(template, folder, **special):
    (folder / "tokenizer_config.json").write_text("{}")
    check_templates(tokenizer(template, **special), folder)


def refused(template, folder):
    started = time.monotonic()
    with pytest.raises(ModelError) as fault:
        check(template, folder)
    assert time.monotonic() - started < 10
    text = str(fault.value)
    assert text.startswith(f"{folder / 'tokenizer_config.json'}: the chat template ")
    assert text.endswith(". Correct it there, or use another model.")
    return text


@pytest.mark.parametrize("kind", SLOW)
def test_template_without_an_end_is_ended(tmp_path, kind, one_second):
    assert "takes more than 1 s for a conversation" in refused(SLOW[kind], tmp_path)


@pytest.mark.parametrize("kind", LARGE)
def test_template_that_holds_too_much_is_ended(tmp_path, kind, one_second):
    text = refused(LARGE[kind], tmp_path)
    # A machine that clears memory slowly ends it by its time.
    assert "needs more than 1 GB" in text or "takes more than 1 s" in text


@pytest.mark.parametrize("kind", LONG)
def test_template_of_long_prompts_is_refused(tmp_path, kind):
    assert "makes a prompt of over 1,000,000 characters" in refused(LONG[kind], tmp_path)


def test_seconds_and_bytes_are_those_of_the_limits():
    assert (check_template.SECONDS, check_template.MEMORY_BYTES) == (10, 1_000_000_000)


@pytest.mark.parametrize("kind", TOUCHING)
def test_template_that_would_touch_more_than_text_touches_nothing(tmp_path, kind):
    trap = tmp_path / "sprung"
    template = TOUCHING[kind].replace("@", str(trap))
    started = time.monotonic()
    assert judge(template, {}, 1_000_000) in {"kept", "memory"}
    assert time.monotonic() - started < 5
    assert not trap.exists()


@pytest.fixture
def folder(tiny_model_dir, tmp_path):
    """A copy of a small model that works."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


@pytest.mark.parametrize("load", [load_template, lambda path: load_tokenizer(path, {})])
@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
def test_every_way_to_load_a_template_checks_it_wherever_it_lies(folder, place, load, one_second):
    path = put(folder, place, ENDLESS)
    with pytest.raises(ModelError, match="takes more than 1 s") as fault:
        load(folder)
    assert str(fault.value).startswith(f"{path}: ")


def put(folder, place, template):
    """Have the template in one file of the model alone."""
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    path = folder / place
    if place == "tokenizer_config.json":
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if place == "chat_template.jinja":
        path.write_text(template)
    elif place == "chat_template.json":
        path.write_text(json.dumps({"chat_template": template}))
    return path


def test_template_of_an_older_checkpoint_is_checked(folder, one_second):
    path = put(folder, "chat_template.json", ENDLESS)
    with pytest.raises(ModelError, match="takes more than 1 s") as fault:
        load_template(folder)
    assert str(fault.value).startswith(f"{path}: ")


@pytest.mark.parametrize("command", ["validate", "preview"])
def test_commands_refuse_a_template_without_an_end_in_a_sentence(folder, command, one_second):
    path = put(folder, "chat_template.jinja", ENDLESS)
    sweep = folder.with_name("try.yaml")
    sweep.write_text(
        f"model: {folder}\ndata: phrasebook\n"
        "search: {learning_rate: {choices: [0.001, 0.002]}}\ntrials: 2\n"
    )
    done = CliRunner().invoke(main, [command, str(sweep)])
    said = " ".join(done.output.split())
    assert done.exit_code == 1, said
    assert "takes more than 1 s for a conversation" in said
    assert str(path) in said.replace(" ", "")


def test_each_of_several_templates_is_checked(tmp_path, one_second):
    text = refused({"default": GOOD, "tool_use": ENDLESS}, tmp_path)
    assert "takes more than 1 s" in text


def test_file_of_a_named_template_is_named(tmp_path, one_second):
    own = tmp_path / "additional_chat_templates" / "tool_use.jinja"
    own.parent.mkdir()
    own.write_text(ENDLESS)
    with pytest.raises(ModelError, match="takes more than 1 s") as fault:
        check({"default": GOOD, "tool_use": ENDLESS}, tmp_path)
    assert str(fault.value).startswith(f"{own}: ")


def test_template_of_more_than_1_mb_is_refused(tmp_path):
    assert "has 1,000,001 characters, and at most 1,000,000" in refused("a" * 1_000_001, tmp_path)


def test_long_special_token_counts_into_the_prompt(tmp_path):
    with pytest.raises(ModelError, match="over 1,000,000 characters"):
        check("{{ bos_token }}" * 2, tmp_path, bos_token="a" * 600_000)


@pytest.mark.parametrize("kind", ["recursion", "syntax", "raises", "range", "mro", "import"])
def test_template_that_refuses_all_ends_in_a_sentence(folder, kind):
    put(folder, "chat_template.jinja", TOUCHING[kind].replace("@", "sprung"))
    with pytest.raises((ModelError, DataError)) as fault:
        load_template(folder)
    assert str(fault.value).endswith(".") or "refuses the record" in str(fault.value)


def test_template_within_its_limits_is_tried_once(tmp_path, cache, monkeypatch):
    started = []
    real = check_template._render
    monkeypatch.setattr(check_template, "_render", lambda *given: started.append(1) or real(*given))
    for _ in range(3):
        check(GOOD, tmp_path)
    assert len(started) == 1
    assert len(list((cache / "templates").iterdir())) == 1
    check(GOOD, tmp_path, bos_token="<s>")
    check(f"{GOOD} ", tmp_path)
    assert len(started) == 3


def test_refusal_is_not_noted(tmp_path, cache):
    refused(LONG["text"], tmp_path)
    refused(LONG["text"], tmp_path)
    assert not (cache / "templates").exists()


def test_cache_that_cannot_be_written_does_no_harm(tmp_path, cache):
    cache.write_text("a file")
    check(GOOD, tmp_path)


def test_process_that_ends_otherwise_is_told(tmp_path, monkeypatch):
    command = child_command("-c", "import os; os.abort()")
    monkeypatch.setattr(check_template, "child_command", lambda *_: command)
    assert "ended the process that rendered it by SIGABRT" in refused(GOOD, tmp_path)


def test_process_that_waits_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(check_template, "SECONDS", 0.2)
    command = child_command("-c", "import time; time.sleep(60)")
    monkeypatch.setattr(check_template, "child_command", lambda *_: command)
    assert "takes more than 0.2 s" in refused(GOOD, tmp_path)


def test_renderer_imports_no_large_library():
    code = (
        "import sys, hawsweep.models.render_template; "
        "print([name for name in ('torch', 'transformers', 'mlx', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(child_command("-c", code), capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == []


def test_renderer_is_not_one_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "jinja2.py").write_text("open('sprung', 'w')\n")
    monkeypatch.chdir(tmp_path)
    check(GOOD, tmp_path)
    assert not os.path.exists("sprung")


@pytest.mark.parametrize(
    "template",
    [
        GOOD,
        "  {% if true %}\n  a\n  {% endif %}\n{{ messages | tojson(indent=2) }}",
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m }}{% endfor %}",
        "{% generation %}{{ messages[0].content }} é<>&'{% endgeneration %}",
        "{{ {'a': 'é<'} | tojson }}{{ strftime_now('%Y') }}{{ tools | tojson }}{{ documents }}",
        "{% set n = namespace(a=1) %}{% set n.a = 2 %}{{ n.a }}{{ dict(a=1) }}{{ bos_token }}",
    ],
)
def test_renderer_gives_what_transformers_gives(template):
    theirs = _compile_jinja_template(template)
    ours = render_template._environment().from_string(template)
    for given in _givens():
        assert ours.render(bos_token="<s>", **given) == theirs.render(bos_token="<s>", **given)
