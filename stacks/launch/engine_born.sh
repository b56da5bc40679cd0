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
