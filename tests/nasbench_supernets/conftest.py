"""The watched short run of the single-path methods."""

from tests.nasbench_oneshot.conftest import train as train
