import type { Attack, AttackProgram, ExecutorSubject } from './executor.cases.ts';
import type { JobReason } from './executor.ts';
import { callNumber } from './seccomp-filter.ts';

/** The programs of the suite for engines that run Linux programs: `sh` and `perl`, which every Debian has. */
export function linuxPrograms(image?: string): Pick<ExecutorSubject, 'greet' | 'exitThree' | 'tick' | 'attack'> {
  const shell = (script: string) => ({ argv: ['/bin/sh', '-c', script], image });
  return {
    greet: shell('mkdir /output/deep; printf "hello %s" "$(cat /input/name)" > /output/deep/greeting; echo out; echo err >&2'),
    exitThree: shell('exit 3'),
    tick: { argv: ['/usr/bin/perl', '-e', '$| = 1; while (1) { print "tick\\n"; select(undef, undef, undef, 0.05) }'], image },
    attack: (attack, port) => ({ image, ...ATTACKS[attack](port) }),
  };
}

const shell = (script: string, ...reasons: JobReason[]): Omit<AttackProgram, 'image'> => ({ argv: ['/bin/sh', '-c', script], reasons });
const perl = (script: string, ...reasons: JobReason[]): Omit<AttackProgram, 'image'> => ({
  argv: ['/usr/bin/perl', '-e', script],
  reasons,
});

/** Each call must fail with one of the errors; otherwise the program says that it escaped. */
function calls(...attempts: [name: string, args: string][]): Omit<AttackProgram, 'image'> {
  const lines = attempts.map(([name, args]) => {
    const call = `syscall(${[callNumber(name), args].filter(Boolean).join(', ')})`;
    return `$! = 0; print ${call} == -1 ? "${name}: $!\\n" : "ESCAPED by ${name}\\n";`;
  });
  return perl(`my ($b, $r, $p, $t, $u, $x) = ("\\0" x 4096, "/", "/tmp", "tmpfs", "user", "x"); ${lines.join(' ')}`, 'completed');
}

const CLONE_NEWUSER = 0x10000000;
const CLONE_NEWNS = 0x00020000;
const CLONE_NEWNET = 0x40000000;
const SIGCHLD = 17;

const ATTACKS: Record<Attack, (port: number) => Omit<AttackProgram, 'image'>> = {
  'fork bomb': () => ({ ...perl('while (1) { fork }', 'processes-exceeded'), limits: { wallSeconds: 0.7, cpus: 0.5 } }),
  'memory hog': () => perl('my @a; push @a, "x" x (1 << 20) while 1', 'memory-exceeded'),
  'disk fill': () =>
    shell(
      'for i in 1 2 3 4 5 6 7 8 9; do head -c 1000000 /dev/zero > /output/$i || exit 1; head -c 1000000 /dev/zero > /tmp/$i || exit 1; done; echo ESCAPED',
      'disk-exceeded',
    ),
  'inode fill': () => perl('for my $i (1 .. 100000) { open(my $f, ">", "/output/$i") or die "$!" } print "ESCAPED"', 'disk-exceeded'),
  'CPU hog': () => ({ ...shell('while :; do :; done', 'wall-exceeded'), limits: { wallSeconds: 0.7, cpus: 0.2 } }),
  'escape by mounts': () =>
    calls(
      ['mount', '$p, $r, $p, 4096, $b'],
      ['umount2', '$p, 2'],
      ['pivot_root', '$r, $p'],
      ['chroot', '$p'],
      ['unshare', String(CLONE_NEWUSER)],
      ['unshare', String(CLONE_NEWNS)],
      ['setns', '0, 0'],
      ['clone', `${CLONE_NEWUSER | CLONE_NEWNET | SIGCHLD}, 0, 0, 0, 0`],
      ['clone3', '$b, 88'],
      ['open_tree', '-100, $r, 1'],
      ['fsopen', '$t, 0'],
      ['open_by_handle_at', '-100, $b, 0'],
      ['bpf', '0, $b, 48'],
      ['userfaultfd', '0'],
      ['io_uring_setup', '8, $b'],
    ),
  symlinks: () =>
    shell(
      'ln -s / /output/root; ln -s /etc/shadow /output/shadow; for f in /output/root/etc/shadow /output/root/work /output/root/root/.bashrc; do cat $f 2>/dev/null && echo ESCAPED; done; exit 0',
      'artefacts-refused',
    ),
  setuid: () =>
    perl(
      '$> = 0; print "ESCAPED\\n" if $> == 0; $) = 0; mkdir "/output/d"; open(my $f, ">", "/tmp/s"); print $f "#!/bin/sh\\nid -u"; close $f; chmod 04755, "/tmp/s"; ' +
        'print "ESCAPED\\n" if `/tmp/s` eq "0\\n"; chown 0, 0, "/tmp/s" and print "ESCAPED\\n"; rmdir "/output/d"; ' +
        'for my $p (glob("/usr/bin/{su,passwd,newgrp,mount,chsh}")) { print "ESCAPED $p\\n" if `$p -c "id -u" 2>/dev/null </dev/null` eq "0\\n" }',
      'completed',
    ),
  '/proc': () =>
    perl(
      'for my $p ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches", "/proc/sys/kernel/hostname", "/proc/1/mem", "/proc/irq/default_smp_affinity") { open(my $f, ">", $p) and syswrite($f, "x") and print "ESCAPED by $p\\n" } ' +
        'for my $p ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/kmsg") { open(my $f, "<", $p) and sysread($f, my $b, 10) and print "ESCAPED by $p\\n" } ' +
        'my @n = grep { /^\\d+$/ } map { s{.*/}{}r } glob("/proc/*"); print "ESCAPED: sees @n\\n" if @n > 12; print "ESCAPED\\n" if -e "/sys/fs/cgroup/memory/millrace"; ' +
        'opendir(my $d, "/proc/1/root/root") and readdir($d) and print "ESCAPED by root\\n" if -e "/proc/1/root/root/.bashrc"; kill(9, -1) if 0; print "ok\\n"',
      'completed',
    ),
  ptrace: () =>
    calls(
      ['ptrace', '16, 1, 0, 0'],
      ['ptrace', '0, 0, 0, 0'],
      ['process_vm_readv', '1, $b, 1, $b, 1, 0'],
      ['pidfd_getfd', '0, 1, 0'],
      ['kcmp', '1, 1, 0, 0, 0'],
    ),
  keyring: () => calls(['add_key', '$u, $x, $x, 1, -4'], ['keyctl', '0, -4, 1'], ['request_key', '$u, $x, 0, -4']),
  'raw sockets': () =>
    perl(
      'my %s = (ip => [2, 3, 1], ip6 => [10, 3, 58], packet => [17, 3, 768], vsock => [40, 1, 0], netfilter => [16, 3, 12], alg => [38, 5, 0]); for my $n (keys %s) { socket(my $s, $s{$n}[0], $s{$n}[1], $s{$n}[2]) ? print "ESCAPED by $n\\n" : print "$n: $!\\n" }',
      'completed',
    ),
  'metadata addresses': () =>
    perl(
      'use Socket; for my $a ("169.254.169.254", "100.100.100.200", "10.0.0.1", "192.168.0.1", "8.8.8.8") { socket(my $s, AF_INET, SOCK_STREAM, 0); connect($s, sockaddr_in(80, inet_aton($a))) ? print "ESCAPED to $a\\n" : print "$a: $!\\n" }',
      'completed',
    ),
  DNS: () =>
    perl(
      'use Socket; socket(my $s, AF_INET, SOCK_DGRAM, 0); send($s, "x", 0, sockaddr_in(53, inet_aton("8.8.8.8"))) and print "ESCAPED\\n"; print "ESCAPED\\n" if defined gethostbyname("example.com"); print "ok\\n"',
      'completed',
    ),
  'services of the host': (port) =>
    perl(
      `use Socket; socket(my $s, AF_INET, SOCK_STREAM, 0); connect($s, sockaddr_in(${port}, inet_aton("127.0.0.1"))) and print "ESCAPED\\n"; for my $p ("/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket") { socket(my $u, AF_UNIX, SOCK_STREAM, 0); connect($u, sockaddr_un($p)) and print "ESCAPED to $p\\n" } print "ok\\n"`,
      'completed',
    ),
  'artefact path traversal': () =>
    perl(
      'open(my $f, ">", "/output/..\\\\..\\\\x\\n\\xff"); close $f; mkdir "/output/../escaped"; open($f, ">", "/output/../../etc/cron.d/x") and print "ESCAPED\\n"',
      'artefacts-refused',
    ),
  'sparse artefact': () =>
    perl(
      '$SIG{XFSZ} = "IGNORE"; for my $i (1 .. 3) { open(my $f, ">", "/output/$i"); truncate($f, 3 << 20) or die; truncate($f, 1 << 40) and print "ESCAPED\\n" }',
      'artefacts-refused',
    ),
  'output flood': () => ({ ...perl('print "flood" x 200 while 1', 'output-exceeded'), limits: { outputBytes: 10_000 } }),
  'ignored signals': () => ({
    ...perl(
      'use POSIX; $SIG{$_} = "IGNORE" for grep { !/KILL|STOP|CHLD|CLD/ } keys %SIG; if (!fork) { POSIX::setsid(); fork; sleep 600 } sleep 600 while 1',
      'wall-exceeded',
    ),
    limits: { wallSeconds: 0.5 },
  }),
};
