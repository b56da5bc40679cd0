set -eu
port=8001
health_path=/health
ready_timeout_s=1800
gpu_count=1
gpu_memory_mib=22118
gpu_timeout_s=20
key_variable=VLLM_API_KEY
needs_hf_token=no
container=leasehold-engine-8001
print_engine_script() {
  cat <<'LEASEHOLD_ENGINE'
#!/bin/sh
# When process $1 started, on stdout; fails when it is gone or a zombie. Works for processes of another user too.
born() {
  if [ -r /proc/self/stat ]; then
    born_stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    born_stat=${born_stat##*) }
    case $born_stat in '' | Z* | X*) return 1 ;; esac
    printf '%s\n' "$born_stat" | cut -d' ' -f20
  else
    born_stat=$(ps -o stat= -p "$1" 2>/dev/null) || return 1
    case $born_stat in '' | Z*) return 1 ;; esac
    ps -o lstart= -p "$1" 2>/dev/null
  fi
}
# The number last: who sees it may read the birth.
born "$$" >"$HOME/.leasehold/engine.born"
printf '%s\n' "$$" >"$HOME/.leasehold/engine.pid"
umask 022
cache=$HOME/.cache/huggingface
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
exec $sudo docker run \
  --rm \
  --init \
  --name leasehold-engine-8001 \
  --gpus all \
  --ipc=host \
  --network=host \
  --ulimit memlock=-1 \
  --ulimit stack=67108864 \
  --env VLLM_NO_USAGE_STATS=1 \
  --env-file "$HOME/.leasehold/engine.env" \
  --volume "$cache:/root/.cache/huggingface" \
  --entrypoint vllm \
  vllm/vllm-openai:v0.11.0 \
  serve Qwen/Qwen2.5-7B-Instruct \
  --served-model-name Qwen/Qwen2.5-7B-Instruct \
  --host 127.0.0.1 \
  --port 8001
LEASEHOLD_ENGINE
}
