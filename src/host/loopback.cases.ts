/** Perl programs that listen in a sandbox, for tests: Debian's `perl-base`, which every Debian system has, runs them. */

const LISTEN =
  'use IO::Socket::INET; $| = 1; my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $ARGV[0], Listen => 128) or die $!; print "ready\\n";';

/** Sends back what it hears as it comes, to the end of it. */
export const ECHO: string = `${LISTEN} $SIG{CHLD} = "IGNORE"; while (my $c = $s->accept) { next if fork; while (sysread($c, my $b, 65536)) { my $at = 0; while ($at < length $b) { $at += syswrite($c, $b, length($b) - $at, $at) // exit } } exit }`;
/** Lets everybody connect and never says or hears a word. */
export const MUTE: string = `${LISTEN} sleep 1000`;
/** Says `hello` and that it is done, hears the rest, and writes the number of bytes into the file of its second argument. */
export const GREETER: string = `${LISTEN} while (my $c = $s->accept) { syswrite($c, "hello"); shutdown($c, 1); my $n = 0; while (my $r = sysread($c, my $b, 65536)) { $n += $r } open(my $f, ">", $ARGV[1]); print $f "$n"; close $f }`;
