# Ends this machine from the inside: at the lease's expiry, or when nobody has been heard of for too long.
# On a RunPod pod it is started by runpod_start.sh and has the key that the cloud gave the pod (RUNPOD_API_KEY). On a Lambda
# instance (LEASEHOLD_INSTANCE_ID) lambda_dead_man.py starts it, with a key of the account in the file LEASEHOLD_KEY_FILE.
# Written for any POSIX sh; needs curl or python3.
set -u
leasehold_home=${HOME:-/root}
login_home=$(eval "echo ~$(id -un)")
expires_at=${LEASEHOLD_EXPIRES_AT:-0}
silence_s=${LEASEHOLD_HEARTBEAT_TIMEOUT_S:-0}
grace_s=${LEASEHOLD_BOOT_GRACE_S:-3600}
interval_s=${LEASEHOLD_DEAD_MAN_INTERVAL_S:-5}
patience_s=${LEASEHOLD_DEAD_MAN_PATIENCE_S:-20}
api_url=${LEASEHOLD_API_URL:-https://api.runpod.io/v2}
instance=${LEASEHOLD_INSTANCE_ID:-}
key_file=${LEASEHOLD_KEY_FILE:-}
kind=pod
own_url=$api_url/pods/${RUNPOD_POD_ID:-}
if [ -n "$instance" ]; then
    kind=instance
    own_url=$api_url/instances/$instance
fi
graphql_url=${LEASEHOLD_GRAPHQL_URL:-}

say() { echo "leasehold dead-man: $*"; }

print_key() { if [ -n "$key_file" ]; then cat "$key_file"; else printf %s "${RUNPOD_API_KEY:-}"; fi; }

# request METHOD URL [BODY]: prints the HTTP status, 000 when there was no answer. The key goes in by stdin or by the
# environment, never into the arguments, which every process on the machine can read.
request() {
    if command -v curl >/dev/null 2>&1; then
        printf 'header = "Authorization: Bearer %s"\n' "$(print_key)" |
            curl -q -s -o /dev/null -w '%{http_code}' -m 30 -A leasehold-dead-man -K - -X "$1" \
                ${3:+-H "Content-Type: application/json" --data "$3"} "$2" || true
    elif command -v python3 >/dev/null 2>&1; then
        LEASEHOLD_KEY=$(print_key) python3 -c '
import os, sys, urllib.error, urllib.request
method, url, body = sys.argv[1:4]
headers = {"Authorization": "Bearer " + os.environ.get("LEASEHOLD_KEY", ""), "User-Agent": "leasehold-dead-man",
           "Content-Type": "application/json"}
request = urllib.request.Request(url, data=body.encode() or None, headers=headers, method=method)
try:
    print(urllib.request.urlopen(request, timeout=30).status, end="")
except urllib.error.HTTPError as error:
    print(error.code, end="")
except OSError:
    print("000", end="")
' "$1" "$2" "${3:-}"
    else
        printf 000
    fi
}

# newest heartbeat of the two homes, or 0
last_heartbeat() {
    newest=0
    for home in "$leasehold_home" "$login_home"; do
        seen=$(stat -c %Y "$home/.leasehold/heartbeat" 2>/dev/null || echo 0)
        [ "$seen" -le "$newest" ] || newest=$seen
    done
    echo "$newest"
}

# seconds since the computer's start, which no set clock moves; by the clock where there is no /proc
count_s() {
    if read -r up _ 2>/dev/null </proc/uptime; then echo "${up%%.*}"; else date +%s; fi
}

# sets reason and returns 0 when the machine must end now. The expiry counts by the clock and by the seconds since our start,
# whichever is first, so that a clock that is set back prolongs nothing; silence counts by the seconds alone.
is_due() {
    count=$(count_s)
    if [ "$expires_at" -gt 0 ]; then
        if [ "$(date +%s)" -ge "$expires_at" ] || [ $((count - began)) -ge $((expires_at - started)) ]; then
            reason="the lease has expired"
            return 0
        fi
    fi
    [ "$silence_s" -gt 0 ] || return 1
    seen=$(last_heartbeat)
    if [ "$seen" != "$known" ] && [ "$seen" != 0 ]; then
        known=$seen
        heard=$count
    fi
    [ $((count - heard)) -gt "$silence_s" ] || return 1
    reason="no heartbeat for $((count - heard)) s"
}

# attempt NAME STATUS: a success gives the cloud time to end us before the next way is tried
attempt() {
    say "$1: HTTP $2"
    case $2 in 2*) sleep "$patience_s" ;; esac
}

end_instance() {
    attempt "terminate" "$(request POST "$api_url/instance-operations/terminate" "{\"instance_ids\": [\"$instance\"]}")"
}

end_pod() {
    attempt "delete" "$(request DELETE "$own_url")"
    attempt "action terminate" "$(request POST "$own_url/action" '{"action":"terminate"}')"
    if [ -n "$graphql_url" ]; then
        query="{\"query\":\"mutation { podTerminate(input: {podId: \\\"${RUNPOD_POD_ID:-}\\\"}) }\"}"
        attempt "graphql podTerminate" "$(request POST "$graphql_url" "$query")"
    fi
    if command -v runpodctl >/dev/null 2>&1; then
        runpodctl remove pod "${RUNPOD_POD_ID:-}" && sleep "$patience_s"
    fi
    attempt "action stop" "$(request POST "$own_url/action" '{"action":"stop"}')"
}

started=$(date +%s)
began=$(count_s)
known=$(last_heartbeat)
heard=$((began + grace_s))
status=$(request GET "$own_url")
case $status in
2*) say "watching; this $kind's key can see the $kind" ;;
*) say "watching; this $kind's key cannot see the $kind (HTTP $status), so ending it from here may fail" ;;
esac
until is_due; do sleep "$interval_s"; done
say "ending this $kind: $reason"
while :; do
    "end_$kind"
    sleep "$patience_s"
done
