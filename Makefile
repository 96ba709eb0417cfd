PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test quick rehearsal install install-dev chromium

# What is installed has the versions of the lock; `make test LOCK=` takes the newest that pyproject.toml admits.
LOCK ?= requirements.lock
CONSTRAINTS = $(if $(LOCK),--constraint $(VENV)/constraints.txt)

run: install
	$(BIN)/python app.py

test: install-dev chromium
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	for platform in linux darwin win32; do $(BIN)/mypy --platform $$platform || exit 1; done
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# What a change usually breaks, without browser, servers, Hub, Ray and hostile input.
QUICK = imports errors metrics search images library evaluate vectors startup app encoders explain projection
quick: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile --durations=5 $(QUICK:%=tests/test_%.py)

# The life of a Space, with a Hub on loopback, in a virtual environment of its own.
rehearsal: install-dev
	PYTHON=$(BIN)/python tests/space_rehearsal.sh

install: $(VENV)/installed
install-dev: $(VENV)/installed-dev

$(VENV)/installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	sed -e '/^#/d' -e '/--hash/d' -e 's/ *\\$$//' requirements.lock > $(VENV)/constraints.txt
	@echo "Installing into $(VENV): 1.3 GB on the disk."
	$(BIN)/pip install --progress-bar on --editable . $(CONSTRAINTS)
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "Adding what the tests need: 7 GB on the disk, most of it torch."
	$(BIN)/pip install --progress-bar on --editable '.[dev]' $(CONSTRAINTS)
	touch $@

# The lists of what is installed. What is in the lock stays as it is; `make lock UPGRADE=--upgrade` takes the newest.
.PHONY: lock
lock: install-dev
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --all-extras $(UPGRADE) pyproject.toml --output-file requirements.lock
	{ echo "# What the tests run with: pyproject.toml, all of its extras, and what Hugging Face adds to every Gradio Space."; \
	  echo "# Made by \`make lock\`. With hashes: pip install --require-hashes -r requirements.lock"; \
	  cat requirements.lock; } > $(VENV)/lock && mv $(VENV)/lock requirements.lock
	$(BIN)/python -m imgret.hub.requirements > $(VENV)/requirements && mv $(VENV)/requirements requirements.txt

# The browser tests drive Debian's Chromium; where there is neither it nor a way to install it, they are skipped.
chromium:
	@command -v chromium >/dev/null || { command -v apt-get >/dev/null && apt-get -qq update && apt-get -qq install -y chromium >/dev/null; } || true

# The README's picture of the demo, taken from the demo.
.PHONY: screenshots
screenshots: install-dev chromium
	$(BIN)/python -m tests.screenshots

# What nobody sends by mistake: 6,300 inputs, each in a process of its own (10 minutes); and a fuzzer, for as long as said.
.PHONY: corpus fuzz
# Known holes in what is installed; asks the services of PyPI and OSV.
.PHONY: audit
audit: install-dev
	$(BIN)/pip install --quiet pip-audit
	$(BIN)/pip-audit --disable-pip --require-hashes -r requirements.lock

corpus: install-dev
	$(BIN)/python -m tests.corpus

MINUTES ?= 60
fuzz: install-dev
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)
