set -eu
cd '/home/ada/my runs/tickets-1'
umask 077
cat > manifest.json.new
mv manifest.json.new manifest.json
mkdir -m 700 -p /tmp/lh-1000-0123456789
[ -O /tmp/lh-1000-0123456789 ]
if command -v setsid >/dev/null 2>&1; then
  setsid nohup /opt/leasehold/.venv/bin/python -m runtime.dispatcher '/home/ada/my runs/tickets-1/manifest.json' >> dispatch.log 2>&1 < /dev/null &
else
  nohup /opt/leasehold/.venv/bin/python -m runtime.dispatcher '/home/ada/my runs/tickets-1/manifest.json' >> dispatch.log 2>&1 < /dev/null &
fi
