import { dataFolder, readSetting } from '../config.ts';
import { ASK_DEFAULTS, COMPUTE_DEFAULTS, INFERENCE_DEFAULTS, RELAY_DEFAULTS, RETRIEVER_DEFAULTS } from '../node/index.ts';
import type { CommandContext } from './context.ts';
import { GATEWAY_DEFAULTS } from './gateway-run.ts';
import { table } from './output.ts';
import { folderOf, settingSources } from './session.ts';

/** Every setting with its default; one that is empty has none. */
const DEFAULTS: Readonly<Record<string, string>> = {
  rpcUrl: '',
  databaseUrl: '',
  passwordFile: '',
  ...ASK_DEFAULTS,
  ...RELAY_DEFAULTS,
  ...RETRIEVER_DEFAULTS,
  ...INFERENCE_DEFAULTS,
  ...COMPUTE_DEFAULTS,
  ...GATEWAY_DEFAULTS,
};

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
    ...Object.entries(DEFAULTS).map(([name, usual]) => {
      const setting = readSetting(name, sources);
      if (setting === undefined) return { name, value: usual, from: usual === '' ? 'unset' : 'default' };
      return { name, value: setting.value.replace(/\/\/[^@/]*@/, '//***@'), from: setting.from };
    }),
  ];
  context.output.result({ items, next: null }, () =>
    table(
      ['setting', 'value', 'from'],
      items.map((item) => [item.name, item.value, item.from]),
    ),
  );
}
