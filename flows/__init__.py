"""What runs when: Prefect flows over the lakehouse's own steps.

Importing this package turns off what Prefect and Soda would otherwise send home; a process that imports them
first through another door has to do so itself.
"""

import os

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("SODA_CORE_TELEMETRY_ENABLED", "false")
