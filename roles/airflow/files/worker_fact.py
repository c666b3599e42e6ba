#!/usr/bin/python3 -I
# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Local fact of Ansible: the workers of this host and their states, and whether the host is drained or out of the queues."""

import glob
import json
import os
import subprocess

units = sorted(os.path.basename(path) for path in glob.glob("/etc/systemd/system/airflow-worker@*.service"))
command = ["systemctl", "show", "--property=ActiveState", "--value", *units]
shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() if units else []
kept = {"drained": os.path.exists("/etc/airflow/drained"), "withdrawn": os.path.exists("/run/airflow/withdrawn")}
print(json.dumps({**kept, "units": dict(zip(units, shown))}))
