"""The versions of a study, and the commands that reproduce it."""

from importlib.metadata import version

import optuna
from optuna.trial import FrozenTrial

from hawsweep.spec.space import MODEL
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.attributes import BASE, SPEC, STARTS, VERSIONS


def asked_of(study: optuna.Study) -> list[tuple[str, str]]:
    """The model and the data of a study, each after its name; empty for another program's."""
    asked = study.user_attrs.get(SPEC)
    if asked is None:
        return []
    choices = asked.get("search", {}).get(MODEL, {}).get("choices") or [asked.get("model", "?")]
    data = asked.get("data", "?")
    sets = data if isinstance(data, list) else [data]
    names = [str(each.get("path", each)) if isinstance(each, dict) else str(each) for each in sets]
    return [("model", ", ".join(map(str, choices))), ("data", ", ".join(names))]


def made_with(study: optuna.Study, spec: SweepSpec | None) -> list[tuple[str, str]]:
    """Versions, fingerprints, the computation of metrics, and the machine, each with its name."""
    attrs = study.user_attrs
    found = [(name, str(version)) for name, version in attrs.get(VERSIONS, {}).items()]
    if spec is not None:
        found.append(("sweep, fingerprint", spec.digest()))
    prints = attrs.get(SPEC, {}).get("fingerprints", {})
    found += [(f"{name}, fingerprint", str(value)) for name, value in prints.items()]
    signatures = attrs.get(BASE, {}).get("signatures") or {}
    found += [(f"{name}, as measured", str(value)) for name, value in signatures.items()]
    starts = attrs.get(STARTS, [])
    if starts:
        last, git = starts[-1], starts[-1].get("git") or {}
        found += [
            ("python", str(last.get("python", ""))),
            ("platform", str(last.get("platform", ""))),
        ]
        if commit := git.get("commit"):
            changed = ", with changes" if git.get("dirty") else ""
            found.append(("commit of the folder it was started in", f"{commit}{changed}"))
        found.append(("starts", str(len(starts))))
    return found


def commands(
    study: optuna.Study, best: FrozenTrial | None, *, is_used: bool
) -> list[tuple[str, str]]:
    """Commands for a terminal, each after its purpose.

    Args:
        is_used: Whether the best trial is to be used.
    """
    name, versions = study.study_name, study.user_attrs.get(VERSIONS, {})
    pinned = " ".join(
        f"'{package}=={version}'"
        for package, version in versions.items()
        if package != "hawsweep" and version != "not installed"
    )
    steps = []
    if pinned:
        mine = versions.get("hawsweep", version("hawsweep"))
        steps.append((f"In an environment with hawsweep {mine}", f"pip install {pinned}"))
    steps.append(
        (
            f"The sweep of this report, saved as {name}.yaml",
            f"hawsweep start {name}.yaml --study {name}-again",
        )
    )
    if best is not None:
        fuse = f"hawsweep export {name} --fuse"
        config = f"studies/{name}/trials/{best.number:04d}/config.yaml"
        steps += [
            ("The comparison of the winner with the base", f"hawsweep compare {name}"),
            *([("The winner's adapter and the fused model", fuse)] if is_used else []),
            ("The winner's settings, trained by mlx_lm", f"mlx_lm.lora -c {config}"),
        ]
    return steps
