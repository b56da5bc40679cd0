umask 077
IFS= read -r engine_key || :
IFS= read -r hf_token || :
engine_script=$(print_engine_script)

say() {
  printf 'engine: %s\n' "$1"
}

# Say what went wrong with the end of the log, and end with exit code $1.
fail() {
  printf 'engine: %s\n' "$2" >&2
  if [ -s "$log_file" ]; then
    printf 'The last lines of its log:\n' >&2
    print_log_end 40 >&2
  fi
  exit "$1"
}

refuse_if_revoked() {
  [ -e "$revoked_file" ] || return 0
  stop_engine
  echo 'engine: the lease was revoked' >&2
  exit 44
}

# Another start may be under way, left behind by a run that was killed: one at a time.
wait_for_turn() {
  turn_deadline=$(($(now) + ready_timeout_s))
  until mkdir "$turn_folder" 2>/dev/null; do
    holder=$(cat "$turn_folder/pid" 2>/dev/null) || holder=
    if [ -z "$holder" ]; then
      nap 0.5 # it may be writing its number
      holder=$(cat "$turn_folder/pid" 2>/dev/null) || holder=
    fi
    if [ -z "$holder" ] || [ "$(born "$holder")" != "$(cat "$turn_folder/born" 2>/dev/null)" ]; then
      rm -rf "$turn_folder"
      continue
    fi
    refuse_if_revoked
    [ "$(now)" -lt "$turn_deadline" ] || fail 43 "another start (process $holder) is still under way"
    nap 0.5
  done
  trap 'rm -rf "$turn_folder"' EXIT
  born "$$" >"$turn_folder/born"
  printf '%s\n' "$$" >"$turn_folder/pid"
}

# What is wrong with the GPUs, or nothing; status 2 when waiting will not help.
find_gpu_problem() {
  if ! command -v nvidia-smi >/dev/null 2>&1; then
    echo 'nvidia-smi is not there'
    return 2
  fi
  if ! gpus=$(bounded 15 nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>&1); then
    printf 'nvidia-smi failed: %s\n' "$gpus" | head -n 3
    return 0
  fi
  found=0
  while IFS= read -r memory; do
    case $memory in
      '') continue ;;
      *[!0-9]*) ;; # chips that share the host's memory answer [N/A]
      *)
        if [ "$memory" -lt "$gpu_memory_mib" ]; then
          printf 'GPU %s has %s MiB of memory, %s are needed\n' "$found" "$memory" "$gpu_memory_mib"
          return 2
        fi
        ;;
    esac
    found=$((found + 1))
  done <<LEASEHOLD_GPUS
$gpus
LEASEHOLD_GPUS
  if [ "$found" -lt "$gpu_count" ]; then
    printf 'GPUs that answer: %s, needed: %s\n' "$found" "$gpu_count"
    return 0
  fi
  find_cuda_problem
}

# nvidia-smi may be content while CUDA is not (802: the fabric between the GPUs is not up yet).
find_cuda_problem() {
  command -v python3 >/dev/null 2>&1 || return 0
  bounded 60 python3 -c '
import ctypes
try:
    answer = ctypes.CDLL("libcuda.so.1").cuInit(0)
except OSError:
    answer = 0
if answer:
    print("CUDA does not start: cuInit answers", answer)
' 2>/dev/null || echo 'CUDA does not start: cuInit does not return'
}

check_gpus() {
  [ "$gpu_count" -gt 0 ] || return 0
  gpu_deadline=$(($(now) + gpu_timeout_s))
  while :; do
    may_pass=yes
    gpu_problem=$(find_gpu_problem) || may_pass=no
    [ -n "$gpu_problem" ] || break
    refuse_if_revoked
    if [ "$may_pass" = no ] || [ "$(now)" -ge "$gpu_deadline" ]; then
      printf 'GPU check failed: %s\n' "$gpu_problem" >&2
      exit 42
    fi
    nap 1
  done
  say 'the GPUs answer'
}

# Does the engine answer its health path with 200? The key goes in by a pipe, never as an argument.
engine_answers() (
  unset http_proxy HTTP_PROXY all_proxy ALL_PROXY
  url=http://127.0.0.1:$port$health_path
  if command -v curl >/dev/null 2>&1; then
    printf 'header = "Authorization: Bearer %s"\n' "$engine_key" |
      curl -K - -s -f -o /dev/null --noproxy '*' --connect-timeout 2 -m 3 "$url"
  elif command -v python3 >/dev/null 2>&1; then
    printf '%s\n' "$engine_key" | python3 -c '
import sys, urllib.request
headers = {"Authorization": "Bearer " + sys.stdin.readline().strip()}
try:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(urllib.request.Request(sys.argv[1], headers=headers), timeout=3)
except (OSError, ValueError):
    sys.exit(1)
' "$url"
  elif command -v wget >/dev/null 2>&1; then
    wget -q -T 3 -O /dev/null "$url"
  else
    printf '%s\n' "$engine_key" | bounded 3 bash -c '
read -r key
exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
printf "GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n\r\n" "$2" "$key" >&3
read -r -t 3 answer <&3
case $answer in *" 200"*) exit 0 ;; *) exit 1 ;; esac
' leasehold "$port" "$health_path"
  fi >/dev/null 2>&1
)

# Run the engine's script in a session of its own, which the end of this one does not touch.
detach() {
  if command -v setsid >/dev/null 2>&1; then
    exec setsid nohup sh "$script_file"
  elif command -v perl >/dev/null 2>&1; then
    exec nohup perl -e 'use POSIX "setsid"; setsid(); exec @ARGV' sh "$script_file"
  elif command -v python3 >/dev/null 2>&1; then
    exec nohup python3 -c 'import os; os.setsid(); os.execvp("sh", ["sh", os.environ["LEASEHOLD_ENGINE"]])'
  else
    exec nohup sh "$script_file"
  fi
}

write_secrets() {
  rm -f "$key_file" "$env_file"
  printf '%s\n' "$engine_key" >"$key_file"
  [ -n "$container" ] || return 0
  printf '%s=%s\n' "$key_variable" "$engine_key" >"$env_file"
  [ -z "$hf_token" ] || printf 'HF_TOKEN=%s\n' "$hf_token" >>"$env_file"
}

launch_engine() {
  rm -f "$log_file" "$pid_file" "$born_file" "$ready_file"
  write_secrets
  printf '%s\n' "$engine_script" >"$script_file"
  (
    cd "$HOME"
    export LEASEHOLD_ENGINE="$script_file"
    [ -z "$key_variable" ] || export "$key_variable=$engine_key"
    [ -z "$hf_token" ] || export "HF_TOKEN=$hf_token"
    detach
  ) >"$log_file" 2>&1 </dev/null &
  launch_deadline=$(($(now) + 30))
  until [ -s "$pid_file" ]; do
    [ "$(now)" -lt "$launch_deadline" ] || fail 41 'it could not be started'
    nap 0.05
  done
}

is_same_launch() {
  [ "$(cat "$script_file" 2>/dev/null)" = "$engine_script" ] && [ "$(cat "$key_file" 2>/dev/null)" = "$engine_key" ]
}

# Sets `step`: done (it serves), wait (it loads already) or launch.
choose_step() {
  step=launch
  if ! engine_lives || ! is_same_launch; then return 0; fi
  if [ ! -e "$ready_file" ]; then
    step=wait
    return 0
  fi
  for try in 1 2 3; do
    if engine_answers; then
      step=done
      return 0
    fi
    nap 1
  done
  say "it no longer answers after $try tries: starting it anew"
}

wait_until_healthy() {
  began=$(now)
  polls=0
  said=0
  while :; do
    if ! engine_lives; then
      stop_engine
      fail 41 'it ended before it was ready'
    fi
    # The second look is for a port that another server answers while ours has failed to get it.
    if engine_answers && engine_lives; then break; fi
    refuse_if_revoked
    waited=$(($(now) - began))
    if [ "$waited" -ge "$ready_timeout_s" ]; then
      stop_engine
      fail 43 "it was not ready after $ready_timeout_s s"
    fi
    if [ "$waited" -ge $((said + 60)) ]; then
      said=$waited
      say "not ready after $waited s"
    fi
    polls=$((polls + 1))
    if [ "$polls" -lt 25 ]; then nap 0.2; else nap 1; fi
  done
  rm -f "$env_file"
  : >"$ready_file"
  say "ready after $(($(now) - began)) s"
}

if [ -z "$engine_key" ]; then
  echo 'engine: no engine key on standard input' >&2
  exit 2
fi
if [ "$needs_hf_token" = yes ] && [ -z "$hf_token" ]; then
  echo 'engine: this model needs a token of the hub, and none came on standard input' >&2
  exit 2
fi
mkdir -p "$folder"
refuse_if_revoked
wait_for_turn
choose_step
case $step in
  done) say 'already serving' ;;
  wait)
    say 'already starting'
    wait_until_healthy
    ;;
  launch)
    stop_engine
    check_gpus
    if engine_answers; then
      rm -f "$log_file"
      fail 41 "another server answers on port $port already"
    fi
    say "starting on port $port"
    launch_engine
    wait_until_healthy
    ;;
esac
