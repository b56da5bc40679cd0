# Functions that the scripts for a machine share. POSIX sh; needs $container.
folder=$HOME/.leasehold
key_file=$folder/engine.key
pid_file=$folder/engine.pid
born_file=$folder/engine.born
script_file=$folder/engine.sh
log_file=$folder/engine.log
ready_file=$folder/engine.ready
env_file=$folder/engine.env
revoked_file=$folder/revoked
turn_folder=$folder/starting
engine_key=
hf_token=

# Seconds on a clock that nobody sets: a new machine's time may jump when it is first synchronised.
now() {
  if [ -r /proc/uptime ]; then cut -d. -f1 /proc/uptime; else date +%s; fi
}

nap() {
  sleep "$1" 2>/dev/null || sleep 1
}

# Is the engine that engine.pid names alive, and not another process that was given its number since?
engine_lives() {
  [ -s "$pid_file" ] && [ -s "$born_file" ] || return 1
  [ "$(born "$(cat "$pid_file")")" = "$(cat "$born_file")" ]
}

as_root() {
  if command -v sudo >/dev/null 2>&1; then sudo -n "$@"; else "$@"; fi
}

# Run a command for at most $1 seconds, where the machine has the means to say so.
bounded() {
  if command -v timeout >/dev/null 2>&1; then timeout "$@"; else shift && "$@"; fi
}

remove_container() {
  # sudo stands outside: timeout could not end a process of root's.
  if command -v timeout >/dev/null 2>&1; then
    as_root timeout 30 docker rm -f "$container" >/dev/null 2>&1
  else
    as_root docker rm -f "$container" >/dev/null 2>&1
  fi
}

# The engine's children are in its process group, unless it could not be given one of its own.
signal_engine() {
  kill "-$1" "-$2" 2>/dev/null || kill "-$1" "$2" 2>/dev/null || :
}

wait_for_end() {
  end_deadline=$(($(now) + $1))
  while engine_lives; do
    [ "$(now)" -lt "$end_deadline" ] || return 1
    nap 0.1
  done
}

stop_engine() {
  if [ -n "$container" ]; then remove_container || :; fi
  if engine_lives; then
    engine_pid=$(cat "$pid_file")
    signal_engine TERM "$engine_pid"
    wait_for_end 5 || { signal_engine KILL "$engine_pid"; wait_for_end 5 || :; }
    # What is left of its group would keep the GPU's memory.
    kill -KILL "-$engine_pid" 2>/dev/null || :
  fi
  rm -f "$pid_file" "$born_file" "$ready_file" "$env_file"
}

# The last $1 lines of the log; what progress bars overwrote counts as lines of their own.
print_log_end() {
  [ -r "$log_file" ] || return 0
  tail -c 262144 "$log_file" | tr '\r' '\n' | tail -n "$1" | redact
}

# Standard input with the secrets taken out.
redact() {
  while IFS= read -r text || [ -n "$text" ]; do
    for secret in "$engine_key" "$hf_token"; do
      [ -n "$secret" ] || continue
      while [ "${text#*"$secret"}" != "$text" ]; do
        text=${text%%"$secret"*}***${text#*"$secret"}
      done
    done
    printf '%s\n' "$text"
  done
}
