import ast
from pathlib import Path

import hawsweep
from hawsweep.study import attributes

ROOT = Path(hawsweep.__file__).parent
SETTERS = {"set_user_attr", "set_trial_user_attr", "set_study_user_attr"}


def literal_keys(source):
    """Lines and strings by which a source speaks of user attributes."""
    tree = ast.parse(source)
    holders = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target, value in assigned(node)
        if isinstance(target, ast.Name) and is_user_attrs(value)
    }
    return sorted(
        (key.lineno, key.value)
        for node in ast.walk(tree)
        for key in keys_in(node, holders)
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    )


def assigned(node):
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=True)
        else:
            yield target, node.value


def is_user_attrs(node, holders=frozenset()):
    if isinstance(node, ast.Name):
        return node.id in holders
    return isinstance(node, ast.Attribute) and node.attr == "user_attrs"


def keys_in(node, holders):
    """The keys of user attributes that a node gets, sets or looks for."""
    if isinstance(node, ast.Subscript) and is_user_attrs(node.value, holders):
        return [node.slice]
    if isinstance(node, ast.Compare) and is_user_attrs(node.comparators[0], holders):
        return [node.left]
    if isinstance(node, ast.keyword) and node.arg == "user_attrs":
        return getattr(node.value, "keys", [])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in SETTERS:
            return node.args
        if node.func.attr == "get" and is_user_attrs(node.func.value, holders):
            return node.args[:1]
    return []


def test_every_way_to_a_user_attribute_is_seen():
    source = """
study.user_attrs["a"], trial.user_attrs.get("b", "none"), "c" in trial.user_attrs
trial.set_user_attr("d", 1), storage.set_trial_user_attr(7, "e", 1)
study.enqueue_trial({}, user_attrs={"f": 1, G: 1})
attrs, said = trial.user_attrs, []
attrs["h"], attrs.get(I), other["j"]
"""
    assert [key for _, key in literal_keys(source)] == list("abcdefh")


def test_keys_of_user_attributes_are_named_once():
    found = {
        str(path.relative_to(ROOT)): keys
        for path in ROOT.rglob("*.py")
        if (keys := literal_keys(path.read_text(encoding="utf-8")))
    }
    assert found == {}
    names = [value for name, value in vars(attributes).items() if name.isupper()]
    assert len(names) == len(set(names))
