"""What papers print, and how to run it here: a folder for each, with its numbers and its tables.

`reported.yaml` holds the printed numbers, `tables.yaml` the run that each of them is here, or why there is none. The
entry-point group `nasbench.papers` maps a name to such a folder.
"""

from pathlib import Path

HERE = Path(__file__).parent
DANCE = HERE / "dance"
"""Resource-Efficient Neural Architecture Search with Data-Aware and Continuous Adaptation (IJCAI 2025)."""
DYNAMIC_SUPERNET = HERE / "dynamic_supernet"
"""Subnet-Aware Dynamic Supernet Training for Neural Architecture Search (CVPR 2025)."""
EAS = HERE / "eas"
"""Elastic Architecture Search for Efficient and Diverse Deployment (arXiv:2108.01224)."""
MG_DARTS = HERE / "mg_darts"
"""Multi-Granularity Differentiable Architecture Search (IEEE TNNLS)."""
