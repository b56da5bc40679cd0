sudo='sudo -n'
command -v sudo >/dev/null 2>&1 || sudo=
# The daemon may still be starting on a machine that has just booted.
tries=0
until $sudo docker info >/dev/null 2>&1; do
  tries=$((tries + 1))
  if [ "$tries" -gt 60 ]; then
    $sudo docker info
    exit 125
  fi
  sleep 1
done
mkdir -p "$cache"
