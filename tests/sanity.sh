#!/usr/bin/env bash
# ansible-test sanity and units in a copy of the checkout, with .venv's ansible-core and with that of .venv-next (next_core.sh),
# which runs ansible-lint too.
set -eu
top=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
copy=$(tests/copy.sh "$work")

# ansible-test fetches get-pip from its own CI host for each sanity environment; this one has pip from ensurepip.
mkdir -p ~/.ansible/test/cache
for name in get_pip_24_2.py get_pip_25_2.py; do
  [ -e ~/.ansible/test/cache/$name ] || cat > ~/.ansible/test/cache/$name <<'X'
import ensurepip, os, subprocess, sys
ensurepip.bootstrap()
os.environ.pop("PIP_CONFIG_FILE", None)  # ensurepip sets it to /dev/null, so index and certificate settings would be lost
subprocess.check_call([sys.executable, "-m", "pip", "install", *[a for a in sys.argv[1:] if not a.startswith("--no-")]])
X
done

check() { # venv
  local bin=$top/$1/bin begin=$SECONDS core result=ok version
  version=$("$bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  core=$("$bin/python" -c 'import ansible.release as r; print(r.__version__)')
  echo "ansible-core $core, Python $version"
  (
    cd "$copy"
    # ansible-test calls the virtual environment's own tools, and reads no configuration but the collection's.
    unset ANSIBLE_CONFIG
    export PATH=$bin:$PATH
    "$bin/ansible-test" sanity --local --python "$version" --color no &&
      "$bin/ansible-test" units --local --python "$version" --color no --num-workers 2
  ) || { failed=1 result=failed; }
  echo "ansible-core $core: $result in $((SECONDS - begin))s"
}

failed=0
check .venv
if [ -e .venv-next/ready ]; then
  check .venv-next
  echo "ansible-lint with that ansible-core"
  PATH=$top/.venv-next/bin:$PATH ansible-lint -q --offline || failed=1
fi
exit $failed
