# One command each: set-up, demo, tests. Every target sets up what it needs first.
PYTHON := .venv/bin/python
export PROJGEN_DATA

.PHONY: setup demo test lint bench bench-projection campaign clean

setup:
	@bash scripts/setup.sh

demo: setup
	$(PYTHON) examples/japanese_vowels.py --out build/demo

test: setup lint
	$(PYTHON) scripts/run_tests.py

lint: setup
	$(PYTHON) scripts/lint.py

bench: setup
	$(PYTHON) -m pytest benchmarks -q

# Accuracy after projection (hours); ARGUMENTS="--rows jv,fsdd --seeds 0-1 -o some.md" for a part.
bench-projection: setup
	$(PYTHON) -m benchmarks.projection $(ARGUMENTS)

# At least a million outputs on every target; ARGUMENTS="--outputs 5000000 --seed 7 --target cortex-m4" for others.
campaign: setup
	$(PYTHON) -m tests.chain.campaign $(ARGUMENTS)

clean:
	rm -rf build .venv
