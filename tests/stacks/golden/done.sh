exec /opt/leasehold/.venv/bin/python -m stacks.done '/home/ada/my runs/tickets-1'
