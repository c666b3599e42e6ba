#!/usr/bin/env bash
# .venv-next: the newest supported ansible-core beside that of .venv, which is the oldest. It needs Python 3.12 or newer.
set -eu
newer() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; }

if newer .venv/bin/python; then
  echo ".venv has the newest ansible-core already"
  exit
fi
for python in python3.14 python3.13 python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-4].*/bin/python; do
  if newer "$python"; then
    .venv/bin/uv venv -q --clear --python "$python" .venv-next
    .venv/bin/uv pip install -q --python .venv-next/bin/python -r requirements.txt -r tests/requirements.txt
    touch .venv-next/ready
    exit
  fi
done
if [ -z "${ONE_CORE:-}" ]; then
  echo "no Python 3.12 or newer here for the newest ansible-core; ONE_CORE=1 does without" >&2
  exit 1
fi
echo "no Python 3.12 or newer here: the newest ansible-core is left out, as ONE_CORE says"
