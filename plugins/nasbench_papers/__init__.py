"""What papers print, and how to run it here: a folder for each, with its numbers and its tables.

`reported.yaml` holds the printed numbers, `tables.yaml` the run that each of them is here, or why there is none. The
entry-point group `nasbench.papers` maps a name to such a folder.
"""

from pathlib import Path

HERE = Path(__file__).parent
DANCE = HERE / "dance"
DYNAMIC_SUPERNET = HERE / "dynamic_supernet"
EAS = HERE / "eas"
MG_DARTS = HERE / "mg_darts"
