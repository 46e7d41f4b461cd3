import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type ChainClient, createSender, developmentSigner } from '../../src/chain/index.ts';
import { silentLogger } from '../../src/log.ts';
import { CLIENT_INDEX } from '../../src/node/index.ts';
import { depositToRails, railsBalance, tokenBalance } from '../../src/token/index.ts';
import { campaign } from '../campaign.ts';
import { type CommandResult, localNetwork } from './local-network.ts';

const WORD_COUNT = fileURLToPath(new URL('../../examples/word-count.yaml', import.meta.url));
const TEXT = fileURLToPath(new URL('../../LICENSE', import.meta.url));
const PATIENCE_MS = 120_000;

const network = localNetwork();
const data = join(network.home, 'data', 'dev');

before(() => network.json('up', '--with', 'storage,compute', '--detach'));
after(() => network.remove());

/** Everything that an account has in the stable token: in its wallet and at the rails. */
async function stableOf(client: ChainClient, account: `0x${string}`): Promise<bigint> {
  const [wallet, rails] = await Promise.all([
    tokenBalance(client, { token: 'stable', account }),
    railsBalance(client, { token: 'stable', account }),
  ]);
  return wallet + rails;
}

async function until<Found>(what: string, look: () => Promise<Found | undefined> | Found | undefined): Promise<Found> {
  for (const deadline = performance.now() + PATIENCE_MS; performance.now() < deadline; ) {
    const found = await look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  return assert.fail(`waited for ${PATIENCE_MS / 1000} s: ${what}`);
}

async function pidOf(operatorId: string): Promise<number> {
  const { processes } = await network.json('up', '--with', 'storage,compute', '--detach');
  return processes.find(({ name }: { name: string }) => name === `node-${operatorId}`).pid;
}

/** A command job that takes as many seconds, in a folder of its own; its run is awaited by the caller. */
function startSlowJob(
  seconds: number,
  interruptWhen?: () => boolean,
): { output: string; command: string[]; ended: Promise<CommandResult> } {
  const folder = mkdtempSync(join(network.home, 'slow-'));
  const script = join(folder, 'slow.sh');
  writeFileSync(script, `for i in $(seq ${seconds}); do sleep 1; echo "$i"; done; echo done > /output/done.txt\n`);
  const output = join(folder, 'output');
  const input = ['--input', `slow.sh=${script}`, '--output', output, '--time', '20s'];
  const command = ['--json', 'run', ...input, '--', 'sh', '/input/slow.sh'];
  return { output, command, ended: network.runWith({ interruptWhen }, ...command) };
}

/** The operator and the job of a run that is on chain. */
async function runningJob(client: ChainClient, known: number): Promise<{ jobId: `0x${string}`; operatorId: string }> {
  return await until('the job is on chain', async () => {
    const opened = await client.events({ name: 'computeJobs', event: 'JobOpened' });
    const [latest] = opened.slice(known);
    return latest === undefined ? undefined : { jobId: latest.args.jobId, operatorId: String(latest.args.operatorId) };
  });
}

const openedCount = async (client: ChainClient) => (await client.events({ name: 'computeJobs', event: 'JobOpened' })).length;
const settledOf = (client: ChainClient, jobId: `0x${string}`) =>
  client.events({ name: 'computeJobs', event: 'JobSettled', args: { jobId } });

test('a word count over a CID from the storage network ends with output, receipt, evidence and cost, and the money on chain agrees', async () => {
  const stored = await network.json('put', TEXT, '--public', '--copies', '1', '--periods', '20');
  const client = await network.client();
  const renter = (await network.json('wallet', 'show')).address;
  const before = await stableOf(client, renter);
  const output = join(network.home, 'counts');
  const result = await network.json('run', WORD_COUNT, '--input', `text=${stored.cid}`, '--output', output);

  const text = readFileSync(TEXT);
  const words = text.toString('latin1').match(/[A-Za-z0-9\x80-\xff]+/g) ?? [];
  const counted = readFileSync(join(output, 'output'), 'utf8').split('\n');
  assert.deepEqual(counted.slice(0, 4), [
    `lines ${text.toString().split('\n').length - 1}`,
    `words ${words.length}`,
    `bytes ${text.length}`,
    `distinct ${new Set(words.map((word) => word.toLowerCase())).size}`,
  ]);
  assert.equal(result.cid, result.artefacts[0].cid);
  assert.equal(result.end, 'exit 0');
  assert.equal(result.evidence, 'replayed');

  const { receipt } = result;
  const [settled] = await settledOf(client, result.jobId);
  assert.equal(receipt.outputs.receiptHash, settled?.args.receiptHash);
  assert.equal(receipt.outputs.outputCid, result.cid);
  assert.equal(receipt.evidence, 'replayed');
  assert.match(receipt.signature, /^0x[0-9a-f]{130}$/, 'its provider has signed it');
  const { beneficiary } = await client.read('operators', 'operator', [BigInt(result.operatorId)]);
  assert.equal(await railsBalance(client, { token: 'stable', account: beneficiary }), settled?.args.paid);
  assert.equal(before - (await stableOf(client, renter)), BigInt(result.cost), 'the renter paid what the command says');
});

test('what lies unused at the rails is listed, and one command brings all of it into the wallet, once', async () => {
  const client = await network.client();
  const account = (await network.json('wallet', 'show')).address;
  const wallet = () => tokenBalance(client, { token: 'network', account });
  const before = await wallet();
  await network.json('wallet', 'deposit', '5');
  // As a refund comes: into the account at the rails, in the token that jobs are paid in.
  const signer = developmentSigner(CLIENT_INDEX, 'dev');
  const sender = createSender({ client, signer, journalFolder: join(network.home, 'refund'), log: silentLogger });
  await depositToRails(client, { sender, token: 'stable', amount: 3n });
  sender.close();
  const unused = (items: { token: string; amount: string }[], of = 'network') => items.find(({ token }) => token === of)?.amount;
  const { atRails } = await network.json('jobs');
  const listed = unused(atRails);
  assert.ok(BigInt(unused(atRails, 'stable') ?? 0) >= 3n);
  assert.equal(listed, String(await railsBalance(client, { token: 'network', account })));
  assert.ok(BigInt(listed) >= 5n * 10n ** 18n);
  const { items } = await network.json('wallet', 'withdraw');
  assert.deepEqual([unused(items), unused(items, 'stable')], [listed, unused(atRails, 'stable')]);
  assert.equal(await wallet(), before + BigInt(listed) - 5n * 10n ** 18n);
  for (const token of ['network', 'stable', 'compute'] as const) assert.equal(await railsBalance(client, { token, account }), 0n);
  assert.deepEqual((await network.json('wallet', 'withdraw')).items, []);
});

campaign('a job whose provider is killed goes on when its node is back, and is paid once', async () => {
  const client = await network.client();
  const known = await openedCount(client);
  const { output, ended } = startSlowJob(8);
  const { jobId, operatorId } = await runningJob(client, known);
  await until('it runs', () => (existsSync(join(data, 'nodes', operatorId, 'compute', 'jobs', 'jobs', jobId, 'log')) ? true : undefined));
  process.kill(await pidOf(operatorId), 'SIGKILL');
  const { code, stdout, stderr } = await ended;
  assert.equal(code, 0, stderr);
  const result = JSON.parse(stdout);
  assert.equal(result.jobId, jobId, 'the same job, at the same provider');
  assert.equal(result.attempts, 1);
  assert.equal(readFileSync(join(output, 'done.txt'), 'utf8'), 'done\n');
  assert.equal(result.evidence, 'reputation only', 'nobody can check what the software of a machine did');
  assert.equal((await settledOf(client, jobId)).length, 1);
  const { items } = await network.json('jobs');
  assert.equal(items.at(-1).status, 'done');
  const shown = await network.json('job', 'show', jobId.slice(0, 12));
  assert.deepEqual([shown.jobId, shown.evidence, shown.attempts.length], [jobId, 'reputation only', 1]);
});

campaign('a job whose provider is gone is refunded and runs at another one', async () => {
  const client = await network.client();
  const renter = (await network.json('wallet', 'show')).address;
  const before = await stableOf(client, renter);
  const known = await openedCount(client);
  const { output, ended } = startSlowJob(12);
  const { jobId, operatorId } = await runningJob(client, known);
  const pid = await pidOf(operatorId);
  process.kill(pid, 'SIGSTOP');
  try {
    await network.json('dev', 'warp', '200s');
    const { code, stdout, stderr } = await ended;
    assert.equal(code, 0, stderr);
    const result = JSON.parse(stdout);
    assert.equal(result.attempts, 2);
    assert.notEqual(result.operatorId, operatorId);
    assert.equal(readFileSync(join(output, 'done.txt'), 'utf8'), 'done\n');
    const [late] = await settledOf(client, jobId);
    assert.equal(late?.args.paid, 0n, 'who gave no result is not paid');
    assert.ok((late?.args.returned ?? 0n) > 0n && (late?.args.slashed ?? 0n) > 0n, 'its price comes back, and its lateness costs stake');
    const fees = (late as NonNullable<typeof late>).args;
    const { price } = (await client.events({ name: 'computeJobs', event: 'JobOpened', args: { jobId } }))[0]?.args.terms ?? { price: 0n };
    const lost = before - (await stableOf(client, renter)) - BigInt(result.cost);
    assert.ok(lost <= price / 100n + 2n, `the reservation's fees alone are lost: ${lost} of ${price}, returned ${fees.returned}`);
  } finally {
    process.kill(pid, 'SIGCONT');
  }
});

campaign('a renter that was interrupted goes on with the same job', async () => {
  const client = await network.client();
  const known = await openedCount(client);
  let isOpened = false;
  const { output, command, ended } = startSlowJob(12, () => isOpened);
  const { jobId } = await runningJob(client, known);
  isOpened = true;
  assert.equal((await ended).code, 130);
  const result = await network.json(...command.slice(1));
  assert.equal(result.jobId, jobId);
  assert.equal(readFileSync(join(output, 'done.txt'), 'utf8'), 'done\n');
  assert.equal(await openedCount(client), known + 1);
});
