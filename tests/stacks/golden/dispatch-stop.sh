[ ! -x /opt/leasehold/.venv/bin/python ] || /opt/leasehold/.venv/bin/python -m runtime.dispatcher --stop '/home/ada/my runs/tickets-1/manifest.json' --timeout 20 >/dev/null 2>&1 || true
