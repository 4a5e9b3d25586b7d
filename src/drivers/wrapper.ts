/**
 * The shell that stands between Penstock and an engine on this machine. It leads the run's process
 * group, outlives Penstock, passes SIGTERM to the engine alone (its children are the engine's to
 * stop), leaves the exit code in a file, and takes what the engine left running with it.
 */

/**
 * POSIX sh; `$1` is the exit file, the rest is the command. `env --default-signal` (coreutils 8.31)
 * undoes that a shell starts background commands with SIGINT and SIGQUIT ignored, which engines
 * use among their own processes. A `wait` that a trap interrupted is repeated.
 */
export const WRAPPER = `
exit_file=$1; shift
engine=; stopping=; interrupted=
trap 'stopping=1; interrupted=1; [ -z "$engine" ] || kill -TERM "$engine" 2>/dev/null' TERM
trap '' HUP INT QUIT
if env --default-signal=HUP,INT,QUIT true 2>/dev/null; then
  env --default-signal=HUP,INT,QUIT "$@" &
else
  "$@" &
fi
engine=$!
[ -z "$stopping" ] || kill -TERM "$engine" 2>/dev/null
interrupted=
wait "$engine"; code=$?
while [ -n "$interrupted" ]; do
  interrupted=
  wait "$engine"; next=$?
  [ "$next" = 127 ] || code=$next
done
printf '%s\\n' "$code" > "$exit_file.new" && mv "$exit_file.new" "$exit_file"
kill -KILL 0
`
