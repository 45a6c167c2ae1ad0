"""A study read to be shown: in a fraction of the time that Optuna takes for thousands of trials."""

import gc
import json
from collections import defaultdict
from collections.abc import Container, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select

from hawsweep.errors import StudyError
from hawsweep.trials import TARGETS_PER_BYTE

_Values = models.TrialValueModel
_Curves = models.TrialIntermediateValueModel
# Databases limit how many values a question may have.
_MOST_ASKED = 500


class ReadStudy(optuna.Study):
    """A study as it was at the last ``refresh``.

    Optuna makes an object of every attribute of every trial: 8 s of processor time for 10,000
    trials. Here each table is read once, and at a later refresh only what may have changed.

    Its trials are whole but for one thing: finished ones have no intermediate values; ``curve_of``
    reads them.

    Raises:
        KeyError: There is no study of this name.
    """

    def __init__(self, storage: RDBStorage, name: str) -> None:
        super().__init__(name, storage, sampler=RandomSampler())
        self._engine = storage.engine
        self._trials: dict[int, FrozenTrial] = {}  # by their ids
        self._attributes: dict[str, Any] = {}
        self._distributions: dict[str, BaseDistribution] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what is new."""
        self._attributes = self._storage.get_study_user_attrs(self._study_id)
        is_open = [key for key, each in self._trials.items() if not each.state.is_finished()]
        if len(is_open) > _MOST_ASKED:
            self._trials, is_open = {}, []
        table = models.TrialModel
        newest = max(self._trials, default=-1)
        changed = or_(table.trial_id > newest, table.trial_id.in_(is_open))
        with _no_collecting(), self._engine.connect() as connection:
            self._read(connection, and_(table.study_id == self._study_id, changed))

    @property
    def user_attrs(self) -> dict[str, Any]:
        """The study's attributes."""
        return self._attributes

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials in the order of their numbers; never copies of them."""
        found = sorted(self._trials.values(), key=lambda each: each.number)
        return found if states is None else [each for each in found if each.state in states]

    def _read(self, connection: Connection, which: ColumnElement[bool]) -> None:
        users = _attributes(connection, models.TrialUserAttributeModel, which)
        systems = _attributes(connection, models.TrialSystemAttributeModel, which)
        settings = self._settings(connection, which)
        curves = _curves(connection, which)
        asked = _of_trials(which, _Values.trial_id, _Values.value, _Values.value_type)
        values = {
            trial_id: _Values.stored_repr_to_value(value, kind)
            for trial_id, value, kind in connection.execute(asked).all()
        }
        columns: Any = models.TrialModel.__table__.c
        whole: Select[Any] = select(
            columns.trial_id,
            columns.number,
            columns.state,
            columns.datetime_start,
            columns.datetime_complete,
        ).where(which)
        for trial_id, number, state, started, ended in connection.execute(whole).all():
            known = settings.get(trial_id, ())
            self._trials[trial_id] = FrozenTrial(
                number=number,
                trial_id=trial_id,
                state=state,
                value=values.get(trial_id),
                datetime_start=_local(started),
                datetime_complete=_local(ended),
                params={name: how.to_external_repr(value) for name, value, how in known},
                distributions={name: how for name, _, how in known},
                user_attrs=users.get(trial_id, {}),
                system_attrs=systems.get(trial_id, {}),
                intermediate_values=curves.get(trial_id, {}),
            )

    def _settings(
        self, connection: Connection, which: ColumnElement[bool]
    ) -> dict[int, list[tuple[str, float, BaseDistribution]]]:
        """By trial, in the order in which they were suggested."""
        table = models.TrialParamModel
        columns = (table.trial_id, table.param_name, table.param_value, table.distribution_json)
        found: defaultdict[int, list[tuple[str, float, BaseDistribution]]] = defaultdict(list)
        asked = _of_trials(which, *columns).order_by(table.param_id)
        for trial_id, name, value, text in connection.execute(asked).all():
            found[trial_id].append((name, value, self._distribution(text)))
        return found

    def _distribution(self, text: str) -> BaseDistribution:
        if text not in self._distributions:
            self._distributions[text] = json_to_distribution(text)
        return self._distributions[text]


@contextmanager
def _no_collecting() -> Iterator[None]:
    """Python would look for garbage again and again among what is only being made: a third of the
    time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _local(at: datetime | None) -> datetime | None:
    """What Optuna keeps as a naive time in UTC and gives as one where it is read."""
    return None if at is None else at.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _of_trials(which: ColumnElement[bool], *columns: Any) -> Select[Any]:
    """Asks for columns of a table about trials, the trial's id first, of some trials."""
    trials = models.TrialModel
    return select(*columns).join(trials, trials.trial_id == columns[0]).where(which)


def _curves(connection: Connection, which: ColumnElement[bool]) -> dict[int, dict[int, float]]:
    """The intermediate values of trials that have not ended."""
    is_open = models.TrialModel.state.in_([TrialState.RUNNING, TrialState.WAITING])
    columns = (_Curves.trial_id, _Curves.step, _Curves.intermediate_value)
    found: defaultdict[int, dict[int, float]] = defaultdict(dict)
    asked = _of_trials(and_(which, is_open), *columns, _Curves.intermediate_value_type)
    for trial_id, step, value, kind in connection.execute(asked).all():
        found[trial_id][step] = _Curves.stored_repr_to_intermediate_value(value, kind)
    return found


def _attributes(
    connection: Connection, table: Any, which: ColumnElement[bool]
) -> dict[int, dict[str, Any]]:
    """By trial: the texts are put together and read at once, which is faster."""
    columns = (table.trial_id, table.key, table.value_json)
    if connection.dialect.name == "sqlite":  # can put them together itself, faster yet
        pair = func.json_quote(table.key).concat(":").concat(table.value_json)
        asked = _of_trials(which, table.trial_id, func.group_concat(pair))
        rows = connection.execute(asked.group_by(table.trial_id)).all()
        texts = {trial_id: text for trial_id, text in rows}  # noqa: C416 - rows are no tuples to mypy
    else:
        parts: defaultdict[int, list[str]] = defaultdict(list)
        for trial_id, key, text in connection.execute(_of_trials(which, *columns)).all():
            parts[trial_id].append(f"{json.dumps(key)}:{text}")
        texts = {trial_id: ",".join(each) for trial_id, each in parts.items()}
    try:
        return {trial_id: json.loads(f"{{{text}}}") for trial_id, text in texts.items()}
    except json.JSONDecodeError as fault:
        raise StudyError(f"An attribute of a trial in the database is no JSON: {fault}.") from fault


def curve_of(study: optuna.Study, trial: FrozenTrial) -> tuple[tuple[int, float], ...]:
    """A trial's iterations and the validation losses there, in nats per token."""
    values = trial.intermediate_values
    if not values and trial.state.is_finished():
        values = study._storage.get_trial(trial._trial_id).intermediate_values
    per_byte = trial.user_attrs.get(TARGETS_PER_BYTE, 1.0)
    return tuple((step, -value / per_byte) for step, value in sorted(values.items()))
