import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MillraceError } from '../errors.ts';
import { askControl, readRunState } from '../node/index.ts';
import { put, readDeal, retrieve, shareKeyOfWallet, sourcesOf } from '../storage/index.ts';
import { formatAmount, formatSize, TOKEN_DECIMALS } from '../units.ts';
import type { CommandContext } from './context.ts';
import { openSender } from './sending.ts';
import { stakeUnitOf } from './session.ts';
import { warpBy } from './warp.ts';

type Opened = Awaited<ReturnType<typeof openSender>>;

const DEMO_BYTES = 3 << 20;
const PERIODS = 48;
const WARP_PERIODS_MAX = 12;
const POLL_MS = 200;
const ROOM_SECONDS = 30n;
/** How long the provider is waited for that has to find its loss; it looks every second. */
const FINDING_MS = 60_000;

/**
 * Tells the story by itself, on the real network: stores a file at two providers, lets them prove it, deletes it at one of them, shows
 * the slash and the compensation, and gets the file back from the other. The loss falls between two proofs, so that the provider takes
 * the deal out of its table in time and goes on proving all its others: nothing is harmed that the demo did not make.
 */
export async function demo(context: CommandContext): Promise<void> {
  const opened = await openSender(context);
  if (opened.manifest.profile !== 'dev') {
    throw new MillraceError('demo-needs-dev', {
      actor: 'caller',
      message: `The demo breaks a provider; the network has profile ${opened.manifest.profile}`,
    });
  }
  const work = mkdtempSync(join(tmpdir(), 'millrace-demo-'));
  try {
    await tell(context, opened, work);
  } finally {
    opened.sender.close();
    rmSync(work, { recursive: true, force: true });
  }
}

async function tell(context: CommandContext, opened: Opened, work: string): Promise<void> {
  const { client, signer, sender, folder, log } = opened;
  const unit = stakeUnitOf(opened.manifest);
  const say = (event: string, text: string, values: Record<string, unknown> = {}) => context.output.line({ event, ...values }, text);
  const { period } = await client.read('possession', 'config');
  const advanceBy = (seconds: bigint) =>
    warpBy(client, seconds, {
      signal: context.signal,
      jump: (by) => askControl(folder.controlSocket, 'warp', { arguments: { seconds: Number(by) } }),
    });
  const advance = (periods: number) => advanceBy(BigInt(periods) * BigInt(period));

  const file = join(work, 'diary.bin');
  writeFileSync(file, randomBytes(DEMO_BYTES));
  say('start', `1. A file of ${formatSize(DEMO_BYTES)} is encrypted and stored at two providers that do not trust each other …`);
  const recipients = [(await shareKeyOfWallet(signer)).publicKey];
  const stored = await put({
    client,
    signer,
    sender,
    folder: folder.client,
    source: { path: file },
    copies: 2,
    periods: PERIODS,
    recipients,
    log,
    signal: context.signal,
  });
  for (const deal of stored.deals)
    say('deal', `   deal ${deal.dealId} at provider ${deal.operatorId}: signed by both, collateral locked, first proof on chain`, {
      dealId: deal.dealId,
      operatorId: deal.operatorId,
    });

  const proofs = await advance(3);
  say(
    'proven',
    `2. Three periods pass: ${proofs.proofs} proofs on chain, ${proofs.misses} misses. Each provider is paid for each proven period.`,
    proofs,
  );

  const victim = stored.deals[0] as (typeof stored.deals)[number];
  const creditBefore = await client.read('stakeVault', 'claimableOf', [signer.address]);
  await loseBetweenProofs(opened, victim, advanceBy);
  say(
    'lost',
    `3. Provider ${victim.operatorId} loses the piece: its files are deleted from its disk. It finds the loss and declares it, so that it can go on proving what else it holds.`,
    { operatorId: victim.operatorId, dealId: victim.dealId },
  );

  const outcome = await untilTerminated(opened, victim.dealId, advance);
  const compensation = (await client.read('stakeVault', 'claimableOf', [signer.address])) - creditBefore;
  say(
    'slashed',
    `4. The piece does not come back: after ${outcome.periods} periods the deal is ended. Slashed ${formatAmount(outcome.slashed, TOKEN_DECIMALS)} ${unit}, fees of the fault included; you get ${formatAmount(compensation, TOKEN_DECIMALS)} ${unit} in compensation and ${formatAmount(outcome.refunded, TOKEN_DECIMALS)} ${unit} of unproven money back.`,
    { ...outcome, compensation },
  );

  await getBack(context, opened, { cid: stored.cid, file, copy: join(work, 'copy.bin'), say });
}

async function getBack(
  context: CommandContext,
  { client, signer }: Opened,
  what: { cid: string; file: string; copy: string; say: (event: string, text: string, values?: Record<string, unknown>) => void },
): Promise<void> {
  const { cid, file, copy, say } = what;
  const keys = { shareKeys: [await shareKeyOfWallet(signer)] };
  const result = await retrieve({ cid, sources: await sourcesOf(client, cid), keys, output: { path: copy }, signal: context.signal });
  if (!readFileSync(copy).equals(readFileSync(file))) {
    throw new MillraceError('demo-failed', { actor: 'bug', message: 'The file that came back differs' });
  }
  say(
    'back',
    `5. The file comes back from the other provider: ${formatSize(result.bytes)}, every block verified, byte for byte the same.`,
    { cid },
  );
  const remark = 'Profile dev, randomness: trusted operator: this shows how it works, it is not secure.';
  say('end', `${remark} See "millrace deals" and "millrace wallet show".`, { profile: 'dev' });
}

/** Deletes the piece when the running period is proven, and waits until its provider has declared the loss in the next, before the freeze. */
async function loseBetweenProofs(
  opened: Opened,
  { operatorId, dealId }: { operatorId: bigint; dealId: bigint },
  advanceBy: (seconds: bigint) => Promise<unknown>,
): Promise<void> {
  const { client } = opened;
  const { pieceRoot } = await readDeal(client, dealId);
  const now = await client.now();
  // Not the running one when it is about to end: the piece must be lost within its window.
  const period = await client.read('possession', 'periodAt', [now + ROOM_SECONDS]);
  const seedTime = await client.read('possession', 'seedTime', [period]);
  await advanceBy(now < seedTime ? seedTime + 1n - now : 1n);
  const { provenThrough } = await client.read('possession', 'standing', [operatorId]);
  if (provenThrough <= period) throw providerDidNot(operatorId, `prove period ${period}`);
  loseThePiece(opened, operatorId, pieceRoot);
  await advanceBy((await client.read('possession', 'periodStart', [period + 1n])) - (await client.now()));
  const startedAt = performance.now();
  while ((await readDeal(client, dealId)).state !== 'faulty') {
    if (performance.now() - startedAt > FINDING_MS) throw providerDidNot(operatorId, `find that the piece of deal ${dealId} is lost`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

function loseThePiece({ folder }: Opened, operatorId: bigint, pieceRoot: string): void {
  const node = readRunState(folder)?.nodes.find((each) => each.operatorId === operatorId.toString());
  const base = node === undefined ? '' : join(folder.node(node.index), 'storage', 'store', 'pieces', pieceRoot);
  if (!existsSync(`${base}.car`)) {
    throw new MillraceError('demo-provider-not-here', {
      actor: 'caller',
      message: `Provider ${operatorId} does not run on this machine`,
      values: { operatorId },
      hint: 'Run the demo on a network of `millrace up`.',
    });
  }
  // Emptied first: a running provider may hold the files open, and then deleting alone loses nothing yet.
  for (const suffix of ['car', 'tree', 'index']) {
    truncateSync(`${base}.${suffix}`);
    rmSync(`${base}.${suffix}`);
  }
}

async function untilTerminated(
  { client }: Opened,
  dealId: bigint,
  advance: (periods: number) => Promise<unknown>,
): Promise<{ periods: number; slashed: bigint; refunded: bigint }> {
  for (let periods = 1; periods <= WARP_PERIODS_MAX; periods += 1) {
    await advance(1);
    const [event] = await client.events({ name: 'storageMarket', event: 'DealTerminated', args: { dealId } });
    if (event === undefined) continue;
    const fees = await client.events({ name: 'storageMarket', event: 'FaultFee', args: { dealId } });
    const slashed = fees.reduce((sum, { args }) => sum + args.slashed, event.args.slashed);
    return { periods, slashed, refunded: event.args.refunded };
  }
  throw new MillraceError('demo-failed', { actor: 'bug', message: `Deal ${dealId} was not ended after ${WARP_PERIODS_MAX} periods` });
}

function providerDidNot(operatorId: bigint, act: string): MillraceError {
  return new MillraceError('demo-failed', {
    actor: 'host',
    message: `Provider ${operatorId} did not ${act}`,
    values: { operatorId },
    hint: 'See `millrace status` and `millrace logs`.',
  });
}
