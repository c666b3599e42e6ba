#!/bin/sh
# Copy what the collection ships, and the unit tests of that, to FOLDER/ansible_collections/windfarm/airflow:
# ansible-test wants a real path of that shape, and refuses the symlink to a folder that makes a checkout usable.
set -eu
target=$1/ansible_collections/windfarm/airflow
mkdir -p "$target"
git ls-files -z --cached --others --exclude-standard | grep -zvE '^(\.collections|molecule|tools|tests/lab|tests/long)/|^tests/[^/]*\.(py|sh)$|^tests/unit/test_(docs|documentation|ledger|listings|locks|parts|security_tools)\.py$' | xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' sh |
  tar --null --files-from=- -c | tar -C "$target" -x
git init -q "$target"
echo "$target"
