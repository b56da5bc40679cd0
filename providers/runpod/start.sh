# First process of a pod: the dead-man loop, then sshd with the host key that the lease made. Rendered by runpod_start.py.
# Written for any POSIX sh, as root in a pod or as anybody on an emulated machine: it calls programs by name and writes
# below $HOME only. Environment: PUBLIC_KEY, SSH_HOST_ED25519_KEY (base64), LEASEHOLD_*; see docs/clouds.md.
set -u
umask 077
export HOME="${HOME:-/root}"
export PATH="${PATH:-/usr/local/bin:/usr/bin:/bin}:/usr/local/sbin:/usr/sbin:/sbin"
folder=$HOME/.leasehold
mkdir -p "$folder" "$HOME/.ssh"

say() { echo "leasehold start: $*"; }

cat >"$folder/dead_man.sh" <<'LEASEHOLD_DEAD_MAN'
@DEAD_MAN@
LEASEHOLD_DEAD_MAN
(while :; do sh "$folder/dead_man.sh"; sleep 5; done) &

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    if command -v apt-get >/dev/null 2>&1; then
        apt-get update -q && apt-get install -q -y --no-install-recommends "$@"
    elif command -v apk >/dev/null 2>&1; then
        apk add --no-cache openssh
    elif command -v dnf >/dev/null 2>&1; then
        dnf install -y "$@"
    else
        return 1
    fi
}

packages=
command -v sshd >/dev/null 2>&1 || packages=openssh-server
command -v curl >/dev/null 2>&1 || command -v python3 >/dev/null 2>&1 || packages="$packages curl ca-certificates"
for wait_s in 1 4 0; do
    [ -n "$packages" ] || break
    say "installing $packages"
    install_packages $packages && break
    say "that failed"
    sleep "$wait_s"
done
if ! command -v sshd >/dev/null 2>&1; then
    say "ERROR: this image has no sshd, and it could not be installed: take an image with openssh-server"
    sleep 3
    exit 1
fi

printf %s "${SSH_HOST_ED25519_KEY:-}" | base64 -d >"$folder/host_key"
if [ ! -s "$folder/host_key" ]; then
    say "ERROR: SSH_HOST_ED25519_KEY is missing or is not base64"
    exit 1
fi
printf '%s\n' "${PUBLIC_KEY:-}" >"$folder/authorized_keys"
# Sessions do not inherit a container's environment: hand on what an engine needs, and no secret.
env | grep -E '^(PATH|LD_LIBRARY_PATH|HF_HOME|(CUDA|NVIDIA|VLLM)_[A-Z0-9_]*)=' >"$HOME/.ssh/environment"
unset SSH_HOST_ED25519_KEY RUNPOD_API_KEY
mkdir -p /run/sshd 2>/dev/null
sshd_path=$(command -v sshd)
say "starting $sshd_path on port ${LEASEHOLD_SSH_PORT:-22}"
exec "$sshd_path" -D -e -f /dev/null -p "${LEASEHOLD_SSH_PORT:-22}" -h "$folder/host_key" \
    -o "AuthorizedKeysFile=$folder/authorized_keys" -o StrictModes=no -o UsePAM=no \
    -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no -o PermitRootLogin=prohibit-password \
    -o PermitUserEnvironment=yes -o AllowTcpForwarding=yes -o AllowStreamLocalForwarding=yes \
    -o PidFile=none -o MaxStartups=100 -o MaxSessions=100 -o ClientAliveInterval=30
