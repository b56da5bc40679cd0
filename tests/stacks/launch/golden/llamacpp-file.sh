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
  --model '/home/me/it'"'"'s a model.gguf' \
  --alias 'it'"'"'s a model' \
  --host 127.0.0.1 \
  --port 8001 \
  --chat-template-file /home/me/chat.jinja \
  --threads 2 \
  --api-key-file "$HOME/.leasehold/engine.key"
LEASEHOLD_ENGINE
}
