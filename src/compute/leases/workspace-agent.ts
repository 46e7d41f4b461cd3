/** Where the workspace's folder of pipes is seen from inside: the read-only input of its job. Pipes in it can be written all the same. */
export const INSIDE = '/input';

/**
 * What runs first in a workspace: a loop of the plain shell that starts what it is told, each command in a session of its own, and says how it
 * ended. It needs `/bin/sh` and, for signals to whole process groups, `setsid`, which every Debian or BusyBox system has. It belongs to the
 * renter's side of the sandbox and is trusted with nothing: when it does not answer, the workspace is made anew.
 */
export const AGENT_SCRIPT = `exec 9<>${INSIDE}/control >/dev/null 2>&1
cd /tmp || cd /
group=setsid
command -v setsid || group=
# What a shell starts beside itself ignores these two, and so does all that comes of it; where that cannot be undone, they end it like TERM.
default='env --default-signal=INT,QUIT'
$default true || default=
start() (
  exec 9<&-
  run=${INSIDE}/runs/$1
  exec 3<"$run/in" 4>"$run/out" 5>"$run/err"
  $default $group /bin/sh "$run/command" <&3 >&4 2>&5 3<&- 4>&- 5>&- &
  exec 3<&- 4>&- 5>&-
  echo "started $!" >"$run/end"
  wait $!
  echo "ended $?" >"$run/end"
)
while read -r verb one two <&9; do
  jobs
  case $verb in
    start) start "$one" & ;;
    signal)
      case $default$two in INT | QUIT) two=TERM ;; esac
      kill -s "$two" -- "-$one" || kill -s "$two" "$one" ;;
    ping) echo "$one" >${INSIDE}/pong ;;
  esac
done
`;

/** A word of a shell command that stands for exactly this text. */
export function quoteWord(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
