import type { Command } from 'commander';

/**
 * The command line with `--` before the program that a command of ours runs elsewhere, so that options behind the program's first word are the
 * program's, as with `ssh` and `docker exec`. Commands of ours that do so have `<command...>` as their last argument; all others are left alone.
 * Commander's own `passThroughOptions` would take from all commands that global options may stand behind their name.
 */
export function separateCommand(program: Command, words: readonly string[]): readonly string[] {
  const separator = words.indexOf('--');
  const end = separator === -1 ? words.length : separator;
  let command = program;
  let operands = 0;
  for (let at = 0; at < end; at += 1) {
    const word = words[at] as string;
    if (word.startsWith('-') && word !== '-') {
      if (takesNextWord([command, program], word)) at += 1;
      continue;
    }
    const subcommand = command.commands.find((one) => one.name() === word || one.aliases().includes(word));
    if (subcommand !== undefined) command = subcommand;
    else if (!runsCommand(command)) return words;
    else if (operands === command.registeredArguments.length - 1) return [...words.slice(0, at), '--', ...words.slice(at)];
    else operands += 1;
  }
  return words;
}

function runsCommand(command: Command): boolean {
  const last = command.registeredArguments.at(-1);
  return last?.variadic === true && last.name() === 'command';
}

/** An option whose value is the next word: `--workdir /tmp`, `-w /tmp`, `-itw /tmp`, but not `--workdir=/tmp` or `-w/tmp`. */
function takesNextWord(commands: readonly Command[], word: string): boolean {
  const options = commands.flatMap((command) => command.options);
  if (word.startsWith('--')) return options.some(({ long, required }) => long === word && required);
  for (const [index, letter] of [...word].entries()) {
    if (index === 0) continue;
    const option = options.find(({ short }) => short === `-${letter}`);
    if (option?.required === true) return index === word.length - 1;
  }
  return false;
}
