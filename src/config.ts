import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { MillraceError } from './errors.ts';

/** A setting with its value and where it came from: `flag`, `environment`, `file` or `profile`. */
export interface Setting {
  value: string;
  from: 'flag' | 'environment' | 'file' | 'profile';
}

/** Where settings are looked for, in order of precedence: flags, environment `MILLRACE_*`, `<data>/config.json`, profile. */
export interface SettingSources {
  flags?: Record<string, string | undefined>;
  env?: NodeJS.ProcessEnv;
  file?: Record<string, string>;
  profile?: Record<string, string>;
}

/**
 * The data folder: `--data`, else `MILLRACE_HOME`, else `/var/lib/millrace` as root, else
 * `$XDG_DATA_HOME/millrace` (default `~/.local/share/millrace`). Networks are subfolders of it.
 */
export function dataFolder(flag: string | undefined, env: NodeJS.ProcessEnv = process.env, uid = process.getuid?.() ?? 1000): string {
  if (flag !== undefined && flag !== '') return resolve(flag);
  if (env.MILLRACE_HOME) return resolve(env.MILLRACE_HOME);
  if (uid === 0) return '/var/lib/millrace';
  return join(env.XDG_DATA_HOME || join(env.HOME || homedir(), '.local', 'share'), 'millrace');
}

/** The value of one setting and where it came from; `undefined` when no source has it. `rpcUrl` is read as `MILLRACE_RPC_URL`. */
export function readSetting(name: string, sources: SettingSources): Setting | undefined {
  const variable = `MILLRACE_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
  const candidates: [Setting['from'], string | undefined][] = [
    ['flag', sources.flags?.[name]],
    ['environment', sources.env?.[variable]],
    ['file', sources.file?.[name]],
    ['profile', sources.profile?.[name]],
  ];
  for (const [from, value] of candidates) if (value !== undefined && value !== '') return { value, from };
  return undefined;
}

/**
 * The settings in `<data>/config.json`, or none when the file does not exist. Values are strings.
 * @throws bad-config-file
 */
export function readConfigFile(folder: string): Record<string, string> {
  const path = join(folder, 'config.json');
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw new MillraceError('bad-config-file', { actor: 'host', message: `Cannot read ${path}`, values: { path }, cause: error });
  }
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw new TypeError('not an object');
    return Object.fromEntries(Object.entries(parsed).map(([key, value]) => [key, String(value)]));
  } catch (error) {
    throw new MillraceError('bad-config-file', {
      actor: 'caller',
      message: `${path} is not a JSON object`,
      values: { path },
      hint: 'Mend or delete the file.',
      cause: error,
    });
  }
}
