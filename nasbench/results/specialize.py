"""`nasbench specialize`: a network for another budget or superclass, from a run that is finished."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nasbench import records
from nasbench.errors import BadInput
from nasbench.files import lock, write_atomic
from nasbench.harness import prepare, result
from nasbench.plugins import answerer


def specialize(record: Path, scenario: dict[str, str], out: Path | None = None) -> tuple[dict[str, Any], Path]:
    """What the method of a finished run chooses for a scenario, without training, and the folder it is in.

    The answer has the form of a record's result; network and artefact lie in that folder, by default
    `specialized/<scenario>` beside the record. Raises BadInput if the method has no answer to scenarios, or if
    the run's stages are gone.
    """
    known = records.read(record)
    run, key = prepare(records.recipe_of(known), record.parent.parent)
    if answerer(run.manager, "specialize") is None:
        raise BadInput(f"{run.recipe.method} chooses once, when it is run; it has no answer to a scenario.")
    if (run.folder, key) != (record.parent, known["id"]):
        raise BadInput(f"{record} is not where its run left it; name the run's folder, with its stages.")
    run.finished = True
    with lock(run.folder):
        run.hook.train(run=run)
        choice = run.hook.specialize(run=run, scenario=scenario)
        metrics = [m for answer in run.hook.evaluate(run=run, choices=[choice]) for m in answer]
        name = re.sub(r"[^\w.=-]+", "_", "-".join(scenario.values()))
        folder = out or run.folder / "specialized" / name
        answer = result(run, 0, choice, metrics, folder)
        write_atomic(folder / "result.json", records.dumps(answer))
    return answer, folder
