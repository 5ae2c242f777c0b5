.PHONY: test check format leaderboard
test:         ## the fast tests, on every core
	pytest
check:        ## what the tests check about style and types
	ruff format --check . && ruff check . && mypy
format:
	ruff format . && ruff check --fix .
leaderboard:  ## fail if a committed table is not what its records give
	nasbench leaderboard --out leaderboards --check
