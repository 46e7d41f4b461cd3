import type { Command } from 'commander';
import { MillraceError } from '../errors.ts';

/** Adds `millrace completion bash|zsh|fish`, which prints a script made from the commands themselves. */
export function registerCompletion(program: Command): void {
  program
    .command('completion <shell>')
    .description('print a completion script for bash, zsh or fish')
    .addHelpText(
      'after',
      '\nExamples:\n  source <(millrace completion bash)\n  millrace completion fish > ~/.config/fish/completions/millrace.fish',
    )
    .action((shell: string) => {
      process.stdout.write(`${scriptFor(shell, program)}\n`);
    });
}

function scriptFor(shell: string, program: Command): string {
  if (!['bash', 'zsh', 'fish'].includes(shell)) {
    throw new MillraceError('bad-option', {
      actor: 'caller',
      message: `Got shell ${shell}, expected bash, zsh or fish`,
      values: { got: shell },
    });
  }
  const words = program.commands.map((command) => command.name());
  const groups = program.commands
    .filter((command) => command.commands.length > 0)
    .map((command) => [command.name(), command.commands.map((child) => child.name())] as const);
  if (shell === 'fish') {
    const top = words.map((word) => `complete -c millrace -n __fish_use_subcommand -a ${word}`);
    const below = groups.flatMap(([name, children]) =>
      children.map((child) => `complete -c millrace -n "__fish_seen_subcommand_from ${name}" -a ${child}`),
    );
    return [...top, ...below].join('\n');
  }
  const cases = groups
    .map(([name, children]) => `    ${name}) COMPREPLY=($(compgen -W "${children.join(' ')}" -- "$word")); return;;`)
    .join('\n');
  const bash = `_millrace() {
  local word="\${COMP_WORDS[COMP_CWORD]}"
  case "\${COMP_WORDS[1]}" in
${cases}
  esac
  if [ "$COMP_CWORD" = 1 ]; then COMPREPLY=($(compgen -W "${words.join(' ')}" -- "$word")); else COMPREPLY=($(compgen -f -- "$word")); fi
}
complete -F _millrace millrace`;
  return shell === 'zsh' ? `autoload -U +X bashcompinit && bashcompinit\n${bash}` : bash;
}
