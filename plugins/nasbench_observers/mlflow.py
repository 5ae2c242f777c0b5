"""MLflow: the store that `MLFLOW_TRACKING_URI` names, else the folder `mlruns` beside the runs."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from pydantic import PrivateAttr

from nasbench import Run
from nasbench.results.leaderboard import settings
from nasbench_observers.rows import Marked, numbers


class MLflow(Marked):
    """A run of MLflow for each run; the recipe is its parameters."""

    library: ClassVar[str | None] = "mlflow"

    experiment: str = "nasbench"
    """The experiment that runs go into."""
    _client: Any = PrivateAttr(None)
    _id: str = PrivateAttr("")

    def begin(self, run: Run, known: str | None) -> str:
        from mlflow import MlflowClient

        store = os.environ.get("MLFLOW_TRACKING_URI")
        if not store:  # a folder needs no server and no database; newer versions want that to be said
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
            store = (run.runs / "mlruns").resolve().as_uri()
        self._client = MlflowClient(store)
        if known:
            self._client.update_run(known, status="RUNNING")
            self._id = known
            return known
        found = self._client.get_experiment_by_name(self.experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self.experiment)
        self._id = self._client.create_run(experiment, run_name=run.folder.name).info.run_id
        record = {"recipe": run.recipe.model_dump(mode="json"), "dataset_hash": run.data.content_hash}
        for name, value in {**settings(record), "seed": run.recipe.seed}.items():
            self._client.log_param(self._id, name, value)
        return self._id

    def tell(self, values: dict[str, float], stage: str, step: int) -> None:
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=step)

    def results(self, run: Run, record: dict[str, Any]) -> None:
        for name, value in numbers(record).items():
            self._client.log_metric(self._id, name.replace("=", "_"), value)
        self._client.set_terminated(self._id)
