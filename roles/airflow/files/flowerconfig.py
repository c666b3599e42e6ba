# Copyright (c) 2026 windfarm.airflow contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Flower's settings, given with --flower-conf; its address, port and password come from Airflow's configuration."""

# It shows. To stop workers or change their queues there is `airflow celery`, which asks for no open port.
read_only = True
