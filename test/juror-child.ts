/** One juror as a process of its own, for tests that kill it. One argument: its options as JSON. It answers every dispute with one ruling. */
import { connectChain, createSender, developmentSigner, readManifest } from '../src/chain/index.ts';
import { openJuror } from '../src/governance/index.ts';
import { silentLogger } from '../src/log.ts';

const options = JSON.parse(process.argv[2] as string) as {
  rpcUrl: string;
  manifestPath: string;
  journalFolder: string;
  folder: string;
  keyIndex: number;
  operatorId: string;
  arbitrable: `0x${string}`;
  ruling: string;
};
const { rpcUrl, journalFolder, folder, arbitrable } = options;
const client = await connectChain({ rpcUrl, manifest: readManifest(options.manifestPath) });
const signer = developmentSigner(options.keyIndex, 'dev');
const sender = createSender({ client, signer, journalFolder, log: silentLogger });
const judges = [{ arbitrable, judge: async () => BigInt(options.ruling) }];
const juror = openJuror({ client, sender, operatorId: BigInt(options.operatorId), folder, judges });
process.stdout.write('ready\n');
for (;;) {
  await juror.tend();
  await juror.settled();
  await new Promise((resolve) => setTimeout(resolve, 50));
}
