set -eu
port=8001
health_path=/health
ready_timeout_s=60
gpu_count=0
gpu_memory_mib=0
gpu_timeout_s=0
key_variable=
needs_hf_token=no
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
if ! command -v llamacpp-server >/dev/null 2>&1; then echo 'there is no llamacpp-server on PATH' >&2; exit 127; fi
exec llamacpp-server \
  --model builtin:tiny-embed \
  --alias tiny-embed \
  --host 127.0.0.1 \
  --port 8001 \
  --ctx 512 \
  --parallel 8 \
  --embeddings \
  --api-key-file "$HOME/.leasehold/engine.key"
LEASEHOLD_ENGINE
}
