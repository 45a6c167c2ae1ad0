"""The parts of an export: each is built beside its place, checked, and then moved there."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from hawsweep.data.load import load_data
from hawsweep.data.tokens import common_system
from hawsweep.errors import ExportError
from hawsweep.export import ollama
from hawsweep.export.card_metadata import transformers_base
from hawsweep.export.fidelity import Judge
from hawsweep.export.folder import (
    CARD,
    MODELFILE,
    Origin,
    Part,
    building,
    install,
    size_of,
    write_card,
    write_texts,
)
from hawsweep.export.fuse import fuse_checked
from hawsweep.export.model_card import Released, card
from hawsweep.export.ollama import FROM
from hawsweep.export.peft import to_peft, write_peft
from hawsweep.export.upload import Repository, upload
from hawsweep.files import files_under
from hawsweep.layout import ADAPTER_DIR, CONFIG_FILE, WEIGHTS_FILE
from hawsweep.models.config_file import read_config
from hawsweep.models.load import load_template
from hawsweep.spec.sweep import SweepSpec
from hawsweep.study.attributes import BEST_ITERATION
from hawsweep.study.place import Place
from hawsweep.study.study import date_of
from hawsweep.text import SayProgress


class Maker:
    """Makes the missing parts of one adapter's export.

    Attributes:
        system: The system message of all training data, or None.
        switches: Options that the base's chat template needs; see ``ChatTemplate.switches``.
        example: A validation prompt.
        unmeasured: The iteration of a checkpoint that the trial did not score; else None.
        new: The parts made, by name.
        lost: The scores of a fusion into quantized weights that lost the adapter; else None.
    """

    def __init__(
        self,
        study: optuna.Study,
        place: Place,
        trial: FrozenTrial,
        spec: SweepSpec,
        base: Path,
        origin: Origin,
        progress: SayProgress,
    ) -> None:
        self._study, self._place, self._trial = study, place, trial
        self._spec, self._base, self._origin, self._progress = spec, base, origin, progress
        splits = load_data(spec.data)
        self.system = common_system(splits.train)
        trusted, today = spec.trust_remote_code, date_of(study)
        self._template = load_template(base, trust_remote_code=trusted, today=today)
        self.switches = self._template.switches
        self.example = splits.valid[0].source
        self.lost: float | None = None
        self.new: dict[str, Part] = {}
        best = trial.user_attrs.get(BEST_ITERATION)
        # The trial scored its best iteration only.
        self.unmeasured = origin.checkpoint if origin.checkpoint != best else None

    def make(
        self,
        folder: Path,
        source: Path,
        there: dict[str, Part],
        missing: list[str],
        for_ollama: bool,
        dequantize: bool,
    ) -> None:
        """Build the missing parts beside the folder, check each, and put them in their place."""
        # Before the slow checks: these may be refused.
        modelfile = self._modelfile() if for_ollama else None
        peft = self._peft(source) if "peft" in missing else None
        with building(folder) as beside:
            if missing:
                self._build(beside, folder, source, there, missing, dequantize)
            if peft is not None:
                write_peft(beside / "peft", *peft)
                check = {**there, **self.new}["adapters"].check
                self._note("peft", beside / "peft", Part("peft", "peft", 0, check))
            parts = [*there.values(), *self.new.values()]
            texts = (self._origin, parts, self._card(parts, modelfile is not None), modelfile)
            if not there:
                write_texts(beside, *texts)
            names = [part.path for part in self.new.values()]
            install(beside, folder, names, is_new=not there)
            if there:
                write_texts(folder, *texts)

    def _build(
        self,
        beside: Path,
        folder: Path,
        source: Path,
        there: dict[str, Part],
        missing: list[str],
        dequantize: bool,
    ) -> None:
        is_checkpoint = self.unmeasured is not None
        self._judge = Judge(self._study, self._place, self._trial, is_checkpoint=is_checkpoint)
        adapters = folder / ADAPTER_DIR if "adapters" in there else beside / ADAPTER_DIR
        if "adapters" in missing:
            adapters.mkdir()
            for name in (WEIGHTS_FILE, CONFIG_FILE):
                shutil.copy2(source / name, adapters / name)
        if "adapters" in missing or is_checkpoint:
            self._check_adapters(adapters, is_new="adapters" in missing)
        if "fused" in missing:
            self._fuse(adapters, beside / "fused", dequantize=dequantize)

    def _check_adapters(self, adapters: Path, *, is_new: bool) -> None:
        self._progress("checking the adapter's translations")
        check = self._judge(self._base, adapters)
        if not check.holds:
            raise ExportError(
                f"The adapter of trial {self._trial.number}, loaded anew, scores "
                f"{check.describe()}. Has the model at {self._base} changed?"
            )
        if is_new:
            self._note("adapters", adapters, Part("adapters", adapters.name, 0, check))

    def _fuse(self, adapters: Path, target: Path, *, dequantize: bool) -> None:
        fused = fuse_checked(
            self._base,
            adapters,
            target,
            self._judge,
            dequantize=dequantize,
            trust_remote_code=self._spec.trust_remote_code,
            progress=self._progress,
        )
        self.lost = fused.lost
        self._note("fused", target, Part("fused", "fused", 0, fused.check, fused.dequantized))

    def _note(self, name: str, path: Path, part: Part) -> None:
        self.new[name] = replace(part, n_bytes=size_of(path))

    def _peft(self, source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        base = transformers_base(self._spec.model) or ""
        return to_peft(source, read_config(self._base)["model_type"], base)

    def _modelfile(self) -> str:
        title = f"Trial {self._trial.number} of the hawsweep sweep {self._study.study_name}"
        return ollama.modelfile(self._template, self.system, title)

    def _card(self, parts: Sequence[Part], has_modelfile: bool, repo: str | None = None) -> str:
        released = Released(parts, self.unmeasured, repo, has_modelfile, self.switches)
        return card(self._study, self._place, self._trial, released)

    def upload(self, folder: Path, parts: Sequence[Part], target: Repository) -> str:
        """Upload the fused model and its Modelfile if they were made, else the adapter; and that
        for PEFT.

        The uploaded card names the repository; the local card is written afterwards.
        """
        by_name = {part.name: part for part in parts}
        has_modelfile = (folder / MODELFILE).is_file()
        text = self._card(parts, has_modelfile, target.repo)
        root = folder / by_name["fused" if "fused" in by_name else "adapters"].path
        files: list[tuple[str, Path | bytes]] = [
            (path.relative_to(root).as_posix(), path)
            for path in files_under(root)
            if path != root / CARD
        ]
        if "peft" in by_name:
            peft = files_under(folder / by_name["peft"].path)
            files += [(path.relative_to(folder).as_posix(), path) for path in peft]
        if has_modelfile:
            modelfile = (folder / MODELFILE).read_text(encoding="utf-8")
            # The top of the repository has the files of the local folder `fused`.
            files.append((MODELFILE, modelfile.replace(FROM, "FROM .\n", 1).encode()))
        files.append((CARD, text.encode()))
        message = f"Trial {self._trial.number} of the hawsweep sweep {self._study.study_name}"
        url = upload(target, files, message, self._progress)
        write_card(folder, parts, text)
        return url
