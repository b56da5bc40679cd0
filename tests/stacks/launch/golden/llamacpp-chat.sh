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
printf '%s\n' "$$" >"$HOME/.leasehold/engine.pid"
umask 022
if ! command -v llamacpp-server >/dev/null 2>&1; then echo 'there is no llamacpp-server on PATH' >&2; exit 127; fi
exec llamacpp-server \
  --model builtin:tiny-chat \
  --alias tiny-chat \
  --host 127.0.0.1 \
  --port 8001 \
  --ctx 2048 \
  --parallel 8 \
  --api-key-file "$HOME/.leasehold/engine.key"
LEASEHOLD_ENGINE
}
