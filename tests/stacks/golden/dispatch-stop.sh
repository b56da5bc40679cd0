[ ! -x /opt/leasehold/.venv/bin/python ] || /opt/leasehold/.venv/bin/python -m runtime.dispatcher --stop '/home/ada/my runs/tickets-1/manifest.json' --timeout 20 >/dev/null 2>&1 || true
rm -rf /tmp/lh-1000-0123456789 || true
