import { encodeAbiParameters, type Hex } from 'viem';
import { type ChainClient, isSignedBy, type Sender } from '../../chain/index.ts';
import type { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { approveMeter, depositToRails, meterAllowance, railsBalance } from '../../token/index.ts';
import { readDeal, readOperator } from '../market/chain-view.ts';
import type { DealRecord, DealRecords } from '../market/deal-records.ts';
import { readRules } from '../market/market-rules.ts';
import { fetchCheck } from '../market/provider-api.ts';
import { ensureSeed } from '../possession/seeds.ts';
import type { Duty } from '../provider/duty.ts';

/** What asking for verdicts stands on. */
export interface VerdictsOptions {
  client: ChainClient;
  sender: Sender;
  records: DealRecords;
  log: Logger;
  everyMs: number;
}

/** A client that says nothing for this part of the time to activation counts as silent. */
const SILENT_PART = 3n;
const ASK_MS = 45_000;

/**
 * The duty to have a stored deal acknowledged by drawn checkers when its client, a file of the order book, is silent: asks
 * for a verdict, collects the signatures of those drawn, brings them to the chain; then the deal is activated as usual.
 */
export function verdictsDuty(options: VerdictsOptions): Duty {
  const storedSince = new Map<bigint, bigint>();
  return {
    name: 'verdicts',
    everyMs: options.everyMs * 3,
    async run(signal) {
      const { client, records, log } = options;
      const waiting = records
        .all()
        .filter(({ status, uploaders, isClaim }) => status === 'stored' && uploaders !== undefined && isClaim !== true);
      if (waiting.length === 0) return;
      const now = await client.now();
      const { activationDeadlineSeconds } = await readRules(client);
      for (const record of waiting) {
        signal.throwIfAborted();
        const dealId = record.dealId as bigint;
        const since = storedSince.get(dealId) ?? now;
        storedSince.set(dealId, since);
        if (now < since + activationDeadlineSeconds / SILENT_PART || (record.activateBy !== undefined && now > record.activateBy)) continue;
        await obtainVerdict(options, record).catch((error: unknown) => {
          const { code, message } = error as MillraceError;
          log.warn('verdict-failed', { dealId, code, reason: message });
        });
      }
    },
  };
}

async function obtainVerdict(options: VerdictsOptions, record: DealRecord): Promise<void> {
  const { client, sender, records, log } = options;
  const dealId = record.dealId as bigint;
  if (!(await client.read('checkers', 'hasVerdict', [dealId]))) {
    if ((await readDeal(client, dealId)).state !== 'open') return;
    const time = await client.read('storageMarket', 'activationSeedTime', [dealId]);
    if ((await ensureSeed({ client, sender, time })) === undefined) return;
    const { payer } = await client.read('checkers', 'requestOf', [dealId]);
    if (BigInt(payer) === 0n) await request(options, dealId);
    const signatures = await collect(options, dealId);
    const { threshold } = await client.read('checkers', 'config');
    if (signatures.filter((signature) => signature !== '0x').length < threshold) return;
    await sender.send({ contract: 'checkers', functionName: 'verdict', args: [dealId, signatures] });
  }
  // The client may have acknowledged meanwhile: its word is as good.
  if (record.status !== 'stored') return;
  record.acknowledgement = encodeAbiParameters([{ type: 'uint64' }], [dealId]);
  record.status = 'acknowledged';
  await records.save(record);
  log.info('verdict-obtained', { dealId });
}

/** Pays the checkers' fee from the node key's account, topped up from its wallet, and has the seats drawn. */
async function request({ client, sender, log }: VerdictsOptions, dealId: bigint): Promise<void> {
  const { fee, drawn } = await client.read('checkers', 'config');
  const needed = fee * BigInt(drawn);
  const account = sender.address;
  const deposited = await railsBalance(client, { token: 'network', account });
  if (deposited < needed) await depositToRails(client, { sender, token: 'network', amount: needed - deposited });
  const allowance = await meterAllowance(client, { payer: account, meter: 'checkers', token: 'network' });
  if (allowance < needed) await approveMeter(client, { sender, meter: 'checkers', token: 'network', allowance: needed });
  await sender.send({ contract: 'checkers', functionName: 'request', args: [dealId], key: `verdict:${dealId}` });
  log.info('verdict-requested', { dealId, fee: needed });
}

/** The signatures of the drawn checkers in the order of the draw; empty where there is none, or a wrong one. */
async function collect({ client, log }: VerdictsOptions, dealId: bigint): Promise<Hex[]> {
  const digest = await client.read('checkers', 'retrievableDigest', [dealId]);
  const drawn = await client.read('checkers', 'drawOf', [dealId]);
  return Promise.all(
    drawn.map(async (operatorId): Promise<Hex> => {
      try {
        const checker = await readOperator(client, operatorId);
        const signature = await fetchCheck(checker, dealId, { headersTimeoutMs: ASK_MS });
        return isSignedBy(checker.nodeKey, digest, signature) ? signature : '0x';
      } catch (error) {
        log.info('checker-silent', { dealId, operatorId, reason: (error as Error).message });
        return '0x';
      }
    }),
  );
}
