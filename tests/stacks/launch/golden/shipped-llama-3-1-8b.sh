set -eu
port=8001
health_path=/health
ready_timeout_s=1800
gpu_count=1
gpu_memory_mib=36864
gpu_timeout_s=20
key_variable=VLLM_API_KEY
needs_hf_token=yes
container=''
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
export VLLM_NO_USAGE_STATS=1
# A session of sshd does not have the environment of the image.
if [ -r /proc/1/environ ]; then
  image_path=$(tr '\0' '\n' 2>/dev/null </proc/1/environ | sed -n 's/^PATH=//p' | head -n 1)
  PATH=$PATH${image_path:+:$image_path}
  image_libraries=$(tr '\0' '\n' 2>/dev/null </proc/1/environ | sed -n 's/^LD_LIBRARY_PATH=//p' | head -n 1)
  if [ -z "${LD_LIBRARY_PATH:-}" ] && [ -n "$image_libraries" ]; then export LD_LIBRARY_PATH="$image_libraries"; fi
fi
if ! { command -v vllm >/dev/null 2>&1; }; then
  echo 'installing vllm==0.32.0'
  if command -v uv >/dev/null 2>&1; then
    uv pip install --system --break-system-packages vllm==0.32.0
  else
    PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore \
      python3 -m pip install --no-input --disable-pip-version-check vllm==0.32.0
  fi || exit
fi
if ! command -v vllm >/dev/null 2>&1; then echo 'there is no vllm on PATH' >&2; exit 127; fi
exec vllm serve meta-llama/Llama-3.1-8B-Instruct \
  --served-model-name llama-3.1-8b \
  --host 127.0.0.1 \
  --port 8001 \
  --revision main \
  --max-model-len 16384 \
  --enable-prefix-caching \
  --dtype bfloat16
LEASEHOLD_ENGINE
}
