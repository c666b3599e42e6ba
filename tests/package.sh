#!/usr/bin/env bash
# Build the tarball, install it where no checkout is, and read every module, plugin and role of it from there.
set -eu
top=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf dist
ansible-galaxy collection build --output-path dist >/dev/null
tarball=$(echo "$top"/dist/windfarm-airflow-*.tar.gz)
tar -tzf "$tarball" > "$work/list"
if grep -E '(^|/)(vault\.yml|\.venv.*|\.collections|collections/.*|molecule/.*|__pycache__/.*)$' "$work/list"; then
  echo "these do not belong into the tarball"; exit 1
fi

cd "$work"
unset ANSIBLE_CONFIG
export ANSIBLE_COLLECTIONS_PATH=$work/installed
ansible-galaxy collection install --offline -p installed "$tarball" >/dev/null
ansible-galaxy collection verify --offline windfarm.airflow
for kind in module filter callback role; do
  names=$(ansible-doc -t "$kind" --list --json windfarm.airflow | python3 -c 'import json, sys; print(*json.load(sys.stdin))')
  for name in $names; do ansible-doc -t "$kind" "$name" >/dev/null; echo "ansible-doc -t $kind $name: ok"; done
done
for playbook in installed/ansible_collections/windfarm/airflow/playbooks/*.yml; do
  name=windfarm.airflow.$(basename "$playbook" .yml)
  ansible-playbook --syntax-check -i "$top/inventories/lab" "$name" >/dev/null
  echo "ansible-playbook --syntax-check $name: ok"
done
