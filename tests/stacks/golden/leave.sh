cd '/home/ada/my runs/tickets-1/machines' 2>/dev/null || exit 0
dispatcher=$(sed -n 's/.*"pid":\([0-9][0-9]*\).*/\1/p' ../dispatch.lock 2>/dev/null)
if [ -e 0.json ] && [ -n "$dispatcher" ] && kill -0 "$dispatcher" 2>/dev/null; then
  : > 0.leaving
  tries=0
  while [ ! -e 0.drained ] && [ $tries -lt 150 ] \
    && kill -0 "$dispatcher" 2>/dev/null; do
    sleep 0.1; tries=$((tries + 1))
  done
fi
mv -f 0.json lh-abcdefghijkl-0x1-tlqdn4.left 2>/dev/null
rm -f 0.json 0.leaving 0.drained
ssh -F /dev/null -p 1 -o BatchMode=yes -o StrictHostKeyChecking=yes -o 'IdentityFile="/home/ada/my runs/tickets-1/id_ed25519"' -o 'UserKnownHostsFile="/home/ada/my runs/tickets-1/hostkeys/lh-abcdefghijkl-0x1-tlqdn4.known_hosts"' -o GlobalKnownHostsFile=/dev/null -o HostKeyAlias=lh-abcdefghijkl-0x1-tlqdn4 -o HostKeyAlgorithms=ssh-ed25519 -o IdentitiesOnly=yes -o IdentityAgent=none -o PasswordAuthentication=no -o ConnectTimeout=4 -o ServerAliveInterval=10 -o ServerAliveCountMax=3 -o UpdateHostKeys=no -o LogLevel=ERROR root@127.0.0.1 'tail -c 1000000 .leasehold/engine.log' > '/home/ada/my runs/tickets-1/engine-0.log'.new 2>/dev/null </dev/null \
  && mv '/home/ada/my runs/tickets-1/engine-0.log'.new '/home/ada/my runs/tickets-1/engine-0.log' \
  || rm -f '/home/ada/my runs/tickets-1/engine-0.log'.new
exit 0
