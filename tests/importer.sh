#!/usr/bin/env bash
# Galaxy's importer on the tarball in dist/.
set -eu
top=$PWD
tarball=$(echo "$top"/dist/windfarm-airflow-*.tar.gz)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset ANSIBLE_CONFIG
export PATH=$top/.venv-importer/bin:$PATH
if ! python -m galaxy_importer.main "$tarball" > log 2>&1; then cat log; exit 1; fi
grep -E 'ERROR|WARNING' log || true
grep 'completed successfully' log
