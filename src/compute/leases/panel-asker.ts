import { type ChainClient, fixSeed, type Sender } from '../../chain/index.ts';
import type { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { STRETCH } from './intervals.ts';
import type { LeaseView } from './lease-chain.ts';

/** Asks for drawn probers where the other side is silent, and sees that their seed becomes known. */
export interface PanelAsker {
  /** Asks for the panel of the stretch in which an interval lies, once; with its fee at hand. */
  ask(lease: LeaseView, interval: number): Promise<void>;
  /** Fixes the seeds of what was asked, as soon as the chain has them. */
  fixSeeds(now: bigint): Promise<void>;
  /** Pays the probers of a lease's panels, when nothing can be said any more. */
  settle(lease: LeaseView): Promise<void>;
}

const ALLOWED_FEES = 1_000n;
const SETTLED = new Set(['already-settled', 'not-asked']);

/** An asker that pays from the sender's account at the rails, which it fills from the sender's own stable tokens as needed. */
export function createPanelAsker(options: { client: ChainClient; sender: Sender; log: Logger }): PanelAsker {
  const { client, sender, log } = options;
  const asked = new Map<string, { leaseId: bigint; stretch: number; seedTime: bigint; isFixed: boolean }>();
  const refused = new Set<string>();

  const payable = async (): Promise<void> => {
    const { fee, drawn } = await client.read('leaseProbers', 'config');
    const needed = fee * BigInt(drawn);
    const [token, probers, account] = [client.address('stableToken'), client.address('leaseProbers'), sender.address];
    const [balance, allowance] = await Promise.all([
      client.read('rails', 'balanceOf', [token, account]),
      client.read('rails', 'allowanceOf', [account, probers, token]),
    ]);
    if (allowance < needed)
      await sender.send({ contract: 'rails', functionName: 'approve', args: [probers, token, needed * ALLOWED_FEES] });
    if (balance >= needed) return;
    await sender.send({ contract: 'stableToken', functionName: 'approve', args: [client.address('rails'), needed * 10n] });
    await sender.send({ contract: 'rails', functionName: 'deposit', args: [token, account, needed * 10n] });
  };
  return {
    async ask(lease, interval) {
      const stretch = Math.floor(interval / STRETCH);
      const key = `${lease.leaseId}-${stretch}`;
      if (asked.has(key) || refused.has(key)) return;
      try {
        const panel = await client.read('leaseProbers', 'panel', [lease.leaseId, stretch]);
        if (panel.payer === '0x0000000000000000000000000000000000000000') {
          await payable();
          await sender.send({ contract: 'leaseProbers', functionName: 'ask', args: [lease.leaseId, stretch], key: `ask-${key}` });
          log.info('probers-asked', { leaseId: lease.leaseId, stretch });
        }
        const seedTime = await client.read('leaseProbers', 'seedTimeOf', [lease.leaseId, stretch]);
        asked.set(key, { leaseId: lease.leaseId, stretch, seedTime, isFixed: false });
      } catch (error) {
        refused.add(key);
        log.warn('probers-not-asked', { leaseId: lease.leaseId, stretch, reason: (error as MillraceError).code });
      }
    },
    async fixSeeds(now) {
      for (const each of asked.values()) {
        if (each.isFixed || each.seedTime > now) continue;
        each.isFixed = await fixSeed(client, { sender, time: each.seedTime });
      }
    },
    async settle(lease) {
      for (const [key, { leaseId, stretch }] of asked) {
        if (leaseId !== lease.leaseId) continue;
        await sender.send({ contract: 'leaseProbers', functionName: 'settle', args: [leaseId, stretch] }).catch((error: MillraceError) => {
          if (!SETTLED.has(error.code)) throw error;
        });
        asked.delete(key);
      }
    },
  };
}
