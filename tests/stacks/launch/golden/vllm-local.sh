set -eu
port=8001
health_path=/health
ready_timeout_s=1800
gpu_count=0
gpu_memory_mib=0
gpu_timeout_s=0
key_variable=VLLM_API_KEY
needs_hf_token=no
container=''
print_engine_script() {
  cat <<'LEASEHOLD_ENGINE'
#!/bin/sh
printf '%s\n' "$$" >"$HOME/.leasehold/engine.pid"
umask 022
export VLLM_NO_USAGE_STATS=1
if ! command -v vllm >/dev/null 2>&1; then echo 'there is no vllm on PATH' >&2; exit 127; fi
exec vllm serve /models/tiny \
  --served-model-name tiny \
  --host 127.0.0.1 \
  --port 8001
LEASEHOLD_ENGINE
}
