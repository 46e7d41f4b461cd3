// A process that deploys a development network and is killed by the test that starts it. Prints one line per created contract.
import { deployNetwork } from '../src/chain/deploy.ts';
import { developmentSigner } from '../src/chain/signer.ts';
import { createLogger } from '../src/log.ts';

const [rpcUrl, folder] = process.argv.slice(2) as [string, string];
const log = createLogger({ role: 'deploy', sink: (line) => void process.stdout.write(line) });
const signer = developmentSigner(0, 'dev');
await deployNetwork({
  rpcUrl,
  name: 'killed',
  profile: 'dev',
  signer,
  folder,
  manifestPath: `${folder}/network.json`,
  embedded: true,
  log,
});
