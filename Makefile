# Everything a developer or CI does with this repository. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PATH := $(CURDIR)/.venv/bin:$(PATH)
unexport PYTHONPATH

LAB ?= default
inventory_default := inventories/lab
inventory_single := inventories/lab-single
INVENTORY := $(inventory_$(LAB))
lab := .venv/bin/python molecule/lab/lab.py
play = .venv/bin/ansible-playbook -i $(INVENTORY) $(if $(PIPELINE),-e @dags/listings/inventory.yml)
cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/windfarm-airflow
BENCH ?= single lab
FLOOR ?= ../shared/bench/floor.sh
# Side by side: what needs a cluster, and the rest. Scenario security takes over the hosts of site.
CLUSTER := scenario-site scenario-security scenario-single scenario-content scenario-redis
PARTS := test-fast sanity importer scenario-postgresql scenario-upgrade scenario-workers
# In `make test` without their long tests, and roles alone on the newest Debian only; here whole.
LONG_PARTS := scenario-site scenario-single scenario-upgrade scenario-scale scenario-workers scenario-content scenario-postgresql \
  scenario-redis scenario-haproxy scenario-firewall second-day pipeline site

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+%?:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([^:]+):.*## /\1\t/' | expand -t 16

# ---------------------------------------------------------------------------------------------------------- set-up
# apt is asked only for what is missing, so that a second run costs nothing.
define apt
for pair in $(1); do type -P $${pair%%:*} >/dev/null || missing+=" $${pair##*:}"; done; \
if [ -n "$${missing:-}" ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; fi
endef

.venv/ready: requirements.txt tests/requirements.txt
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null; }
	@missing=; $(call apt,git:git ssh:openssh-client)
	python3 -m venv .venv
	.venv/bin/pip install -q --disable-pip-version-check -r requirements.txt -r tests/requirements.txt
	@touch $@

.PHONY: setup
setup: .venv/ready ## Make the virtual environment .venv

.PHONY: requirements
requirements: setup ## Resolve the requirements files anew
	for name in requirements tests/requirements tests/requirements-importer tests/requirements-docs; do \
	  .venv/bin/uv pip compile -q --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	    $$name.in -o $$name.txt; done

# ------------------------------------------------------------------------------------------------------------ demo
.PHONY: lab
lab: setup ## Boot the lab's hosts (LAB=default: four hosts, LAB=single: one)
	@$(lab) up $(INVENTORY)

.PHONY: demo
demo: lab ## A running cluster on lab hosts and a DAG run on it (LAB=default|single; PIPELINE=1: and the example pipeline)
	@$(if $(PIPELINE),.venv/bin/python tools/listings.py)
	@$(play) playbooks/secrets.yml
	@$(play) playbooks/site.yml
	@.venv/bin/python tests/lab/smoke.py --inventory $(INVENTORY)
	@$(if $(PIPELINE),.venv/bin/python tests/lab/pipeline.py --inventory $(INVENTORY))
	@$(lab) show $(INVENTORY)

.PHONY: pipeline
pipeline: PIPELINE := 1
pipeline: demo ## The example pipeline, and proof that its results, its order and its pools are right (LAB=default|single)
	@.venv/bin/pytest -v -rP tests/lab/test_pipeline.py --inventory $(INVENTORY)

LOAD ?= 60
.PHONY: ledger
ledger: demo ## What running tasks notice of COMMAND='…', else of LOAD=60 seconds without one, on the lab's cluster (LAB=default|single)
	@.venv/bin/python tests/lab/ledger.py --inventory $(INVENTORY) --seconds $(LOAD) -- $(COMMAND)

.PHONY: clean
clean: ## Remove the lab's hosts and their secrets, keep the cached images
	@if [ -x .venv/bin/python ]; then $(lab) down; fi
	@rm -rf .ansible .cache dist inventories/lab/group_vars/all/vault.yml inventories/lab-single/group_vars/all/vault.yml

# ----------------------------------------------------------------------------------------------------------- tests
.PHONY: test-fast
test-fast: setup ## The gate without hosts: lint, types, unit tests
	@.venv/bin/python tests/parallel.py \
	  'ansible-lint -q --offline' \
	  'yamllint --strict .' \
	  'ruff check .' \
	  'mypy .collections/ansible_collections/windfarm/airflow/plugins tools tests molecule/lab' \
	  'antsibull-changelog lint' \
	  'python tools/docs.py --check' \
	  'pytest tests/unit' \
	  'pytest tests/lab/test_bad_input.py'

# The newest ansible-core, where .venv has not got it already.
.venv-next/ready: requirements.txt tests/requirements.txt tests/next_core.sh | .venv/ready
	@tests/next_core.sh

.PHONY: sanity
sanity: .venv-next/ready ## ansible-test sanity and units, on the oldest and the newest ansible-core, and the newest's ansible-lint (ONE_CORE=1: the oldest alone)
	@tests/sanity.sh

.PHONY: package
package: setup ## Build the collection, install it elsewhere, show every plugin's documentation
	@tests/package.sh

.venv-importer/ready: tests/requirements-importer.txt | .venv/ready
	@.venv/bin/uv venv -q --clear --python .venv/bin/python .venv-importer
	@.venv/bin/uv pip install -q --python .venv-importer/bin/python -r tests/requirements-importer.txt
	@touch $@

.PHONY: importer
importer: package .venv-importer/ready ## What Galaxy checks on upload
	@tests/importer.sh

scenario-%: setup ## One molecule scenario: scenario-site, -security, -single, -upgrade, -scale, -workers, -content, -postgresql, -redis, -haproxy, -firewall
	@missing=; $(call apt,chromium:chromium)
	@COLUMNS=160 .venv/bin/molecule test --no-command-borders -s $*

.PHONY: second-day
second-day: ## On one host: what the health timer mends, restarts, retention and a rotation under the ledger, what the ledger must find
	@LAB_SUBJECTS='health servers rotation ledger' $(MAKE) scenario-single

.PHONY: test
test: .venv-next/ready ## Everything, as CI does
	@LAB_ONE_HOST=1 LAB_SHORT=1 .venv/bin/python tests/parts.py $(CLUSTER) -- $(PARTS)

LONG ?= tests/long
.PHONY: test-long
test-long: setup ## The long proofs (one alone: LONG=tests/long/test_x.py); each boots the hosts that it needs
	@.venv/bin/pytest -v -rP --durations=10 $(LONG)
	@$(if $(filter $(LONG),tests/long),.venv/bin/python tests/parts.py $(LONG_PARTS))

.PHONY: bench
bench: setup ## Time from bare hosts to a DAG run, beside the floor (FLOOR=script), and of a second run (BENCH=security: what TLS costs)
	@.venv/bin/python tests/bench.py $(BENCH) --floor $(FLOOR)

MANY ?= simulated
.PHONY: bench-many
bench-many: setup ## Processor time and memory of the controller for 4 to 200 hosts (MANY=twelve: a real lab of twelve workers, on a quiet machine)
	@.venv/bin/python tests/bench_many.py $(MANY)

.PHONY: docs
docs: setup ## Write what the documentation says of variables, playbooks, roles, modules and ports, from where each is defined
	@.venv/bin/python tools/docs.py

.venv-docs/ready: tests/requirements-docs.txt | .venv/ready
	@.venv/bin/uv venv -q --clear --python .venv/bin/python .venv-docs
	@.venv/bin/uv pip install -q --python .venv-docs/bin/python -r tests/requirements-docs.txt
	@touch $@

.PHONY: site
site: .venv-docs/ready ## Check every reference in the plugins' documentation, and build it as HTML in dist/site
	@tools/site.sh

.PHONY: lock
lock: setup ## Resolve the locks of an Airflow release anew: make lock AIRFLOW=x.y.z
	.venv/bin/python tools/lock.py --airflow $(or $(AIRFLOW),$(error say AIRFLOW=x.y.z))
