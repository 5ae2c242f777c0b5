.PHONY: test check format bench leaderboard reproduced
test:         ## the fast tests, on every core
	pytest
check:        ## what the tests check about style and types
	ruff format --check . && ruff check . && mypy
format:
	ruff format . && ruff check --fix .
bench:        ## our speed against a plain reference, in one run
	python benchmarks/bench.py --short
leaderboard:  ## fail if a committed table is not what its records give
	nasbench leaderboard --out leaderboards --check
reproduced:   ## write the pages of the papers' tables again, from the records
	nasbench reproduce dance dynamic-supernet eas mg-darts --preset cpu --dataset cifar10=cifar10-jpeg \
	  --runs leaderboards --dry-run --out leaderboards/reproduced
