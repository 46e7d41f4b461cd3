import { dataFolder, readSetting } from '../config.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { folderOf, settingSources } from './session.ts';

const SETTINGS = ['rpcUrl', 'databaseUrl', 'passwordFile'] as const;

/** Each setting with its value and where it came from. Secrets in URLs are hidden. */
export async function configShow(context: CommandContext): Promise<void> {
  const sources = settingSources(context);
  const items = [
    {
      name: 'data',
      value: dataFolder(context.flags.data),
      from: context.flags.data !== undefined ? 'flag' : process.env.MILLRACE_HOME ? 'environment' : 'default',
    },
    { name: 'network', value: folderOf(context).root, from: 'flag' },
    ...SETTINGS.map((name) => {
      const setting = readSetting(name, sources);
      return { name, value: setting?.value.replace(/\/\/[^@/]*@/, '//***@') ?? '', from: setting?.from ?? 'unset' };
    }),
  ];
  context.output.result({ items, next: null }, () =>
    table(
      ['setting', 'value', 'from'],
      items.map((item) => [item.name, item.value, item.from]),
    ),
  );
}
