"""Where a study's model and data are. Their relative paths are seen from the folder in which it was
started. The study keeps each as seen from the folder of studies: both may be moved together.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from hawsweep.errors import StudyError
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.place import Place


def located(spec: SweepSpec, paths: Mapping[str, str], place: Place) -> SweepSpec:
    """The spec with the model and all data where they are, whatever the current folder.

    Args:
        paths: The study's attribute ``PATHS``; empty of a study of an earlier version.
    """
    data = (each.model_copy(update={"path": _find(each.path, paths, place)}) for each in spec.data)
    model = _find(spec.model, paths, place)
    kept = spec.retention
    if kept is not None:
        kept = kept.model_copy(update={"data": _find(kept.data, paths, place)})
    return spec.model_copy(update={"model": model, "data": tuple(data), "retention": kept})


def paths_of(references: Iterable[str], known: Mapping[str, str], place: Place) -> dict[str, str]:
    """The relative paths among references to models and data, each as seen from the folder of
    studies.

    Args:
        known: Those of earlier starts.
    """
    return {
        each: os.path.relpath(_find(each, known, place), place.studies_dir)
        for each in references
        if each in known or (os.path.lexists(each) and not os.path.isabs(each))
    }


def found_here(spec: SweepSpec, model: Path | None, data: Path | None) -> dict[str, str]:
    """The paths of a sweep's model and data on this machine, as ``located`` takes them.

    Raises:
        StudyError: The sweep has several of them.
    """
    models, sources = tuple(spec.models), tuple(each.path for each in spec.data)
    found: dict[str, str] = {}
    for option, path, references in (("--model", model, models), ("--data", data, sources)):
        if path is not None and len(references) > 1:
            raise StudyError(
                f"{option} is the place of one, and the sweep has {', '.join(references)}. Put "
                "them where the sweep names them."
            )
        found |= {} if path is None else {references[0]: os.path.abspath(path)}
    return found


def _find(reference: str, paths: Mapping[str, str], place: Place) -> str:
    """A path as it was said, if it leads to the same file from here or is only here; else the
    absolute path.
    """
    if reference not in paths:
        return reference
    kept = os.path.normpath(os.path.join(os.path.abspath(place.studies_dir), paths[reference]))
    is_kept, is_here = os.path.exists(kept), os.path.exists(reference)
    if is_here and (not is_kept or os.path.samefile(kept, reference)):
        return reference
    return kept
