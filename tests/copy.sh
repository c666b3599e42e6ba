#!/bin/sh
# Copy the collection as git sees it to FOLDER/ansible_collections/windfarm/airflow: ansible-test wants a real path of
# that shape, and refuses the symlink to a folder that makes a checkout usable.
set -eu
target=$1/ansible_collections/windfarm/airflow
mkdir -p "$target"
git ls-files -z --cached --others --exclude-standard | grep -zv '^\.collections/' | xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' sh |
  tar --null --files-from=- -c | tar -C "$target" -x
git init -q "$target"
echo "$target"
