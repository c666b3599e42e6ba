#!/usr/bin/env bash
# The documentation of every plugin and role as HTML: dist/site/index.html. What refers to something that is not there is an error.
set -eu
export PATH=$PWD/.venv-docs/bin:$PATH
antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs self .
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# antsibull-docs writes to folders only that nobody else can.
chmod 755 "$work"
antsibull-docs sphinx-init --use-current --squash-hierarchy --lenient --dest-dir "$work" windfarm.airflow >/dev/null
# Links into other projects' sites would be looked up there.
sed -i '/^intersphinx_mapping = {/,/^}/c intersphinx_mapping = {}' "$work/conf.py"
"$work/build.sh" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
rm -rf dist/site
mkdir -p dist
cp -r "$work/build/html" dist/site
echo "$(find dist/site -name '*.html' | wc -l) pages: $PWD/dist/site/index.html"
