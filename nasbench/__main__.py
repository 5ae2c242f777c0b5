"""`python -m nasbench` is `nasbench`."""

from nasbench.cli import main

main()
