.PHONY: test check format bench leaderboard pages
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
pages:        ## write all tables and the README's rows again, from the records
	python leaderboards/generate.py
