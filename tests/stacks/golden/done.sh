exec /opt/leasehold/.venv/bin/python -m stacks.lifecycle.done '/home/ada/my runs/tickets-1'
