# The number last: who sees it may read the birth.
born "$$" >"$HOME/.leasehold/engine.born"
printf '%s\n' "$$" >"$HOME/.leasehold/engine.pid"
umask 022
