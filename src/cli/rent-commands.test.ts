import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Command } from 'commander';
import type { Run } from './context.ts';
import { registerRentCommands } from './rent-commands.ts';

test('words that somebody took for a subcommand rent nothing', async () => {
  const program = new Command();
  const run: Run =
    (work) =>
    (...given) =>
      work({} as never, ...(given as never[]));
  registerRentCommands(program, run);
  await assert.rejects(program.parseAsync(['rent', 'end', '7'], { from: 'user' }), { code: 'no-separator', actor: 'caller' });
});

test('a port that is none is refused before anything is asked', async () => {
  const program = new Command();
  const run: Run =
    (work) =>
    (...given) =>
      work({} as never, ...(given as never[]));
  registerRentCommands(program, run);
  for (const port of ['0', '8080:0', '65536', '65536:80', 'http', '1:2:3', '-80']) {
    await assert.rejects(program.parseAsync(['forward', '7', '--', port], { from: 'user' }), { code: 'bad-option', actor: 'caller' }, port);
  }
});
