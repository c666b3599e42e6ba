"""Put the collections that ours depends on into collections/, taken from the wheel of the package `ansible`."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

WHEEL = "ansible==12.3.0"
WANTED = ("ansible_collections/community/postgresql/",)


def main() -> None:
    cache, target = Path(sys.argv[1]), Path("collections")
    cache.mkdir(parents=True, exist_ok=True)
    pattern = WHEEL.replace("==", "-") + "-*.whl"
    if not list(cache.glob(pattern)):
        download = ["download", "-q", "--disable-pip-version-check", "--no-deps", "-d", str(cache), WHEEL]
        subprocess.run([sys.executable, "-m", "pip", *download], check=True)
    with zipfile.ZipFile(next(cache.glob(pattern))) as wheel:
        wheel.extractall(target, [name for name in wheel.namelist() if name.startswith(WANTED)])


if __name__ == "__main__":
    main()
