import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Hex } from 'viem';
import { readJsonFile, syncFolder, writeDurably } from '../content/durable-file.ts';
import { type DealTerms, termsFromJson, termsToJson } from './terms.ts';

/**
 * How far a provider is with a deal. `opening`: signed, on its way to the chain; `receiving`: bytes come in; `checking`:
 * all bytes are there, being verified; `stored`: verified, durable, served; `acknowledged`: the client has read it back;
 * `active`: proven on chain; `lost`: bytes of an active deal are gone; `over`: ended in any way, to be forgotten.
 */
export type DealStatus = 'opening' | 'receiving' | 'checking' | 'stored' | 'acknowledged' | 'active' | 'lost' | 'over';

/** What a provider remembers of a deal on its own disk. All the rest is on chain. */
export interface DealRecord {
  terms: DealTerms;
  /** Binary root CID. */
  cid: Hex;
  clientSignature: Hex;
  status: DealStatus;
  dealId?: bigint;
  /** Chain time by which the deal must be active. */
  activateBy?: bigint;
  /** The client's `Activation` signature; for a file of the order book also the proof of the checkers' verdict. */
  acknowledgement?: Hex;
  /** Who may send and acknowledge besides the client, which for a file of the order book is a contract: its owner and its agent. */
  uploaders?: Hex[];
  /** The deal is this provider's claim of a repair: it fetches the bytes itself. */
  isClaim?: boolean;
  /** Why bytes were refused, or why the deal is over. */
  reason?: string;
}

/** Whether an account may send the bytes of a deal and acknowledge them: the client, or who speaks for it. */
export function speaksForClient({ terms, uploaders = [] }: DealRecord, account: Hex): boolean {
  return [terms.client, ...uploaders].some((each) => each.toLowerCase() === account.toLowerCase());
}

/** The records of one provider, in memory and on disk; a change is durable when its promise resolves. */
export interface DealRecords {
  all(): DealRecord[];
  byId(dealId: bigint): DealRecord | undefined;
  byNonce(client: Hex, clientNonce: bigint): DealRecord | undefined;
  /** Stores a new or changed record. Changes of one record are written in the order of the calls. */
  save(record: DealRecord): Promise<void>;
  /** Forgets a record. */
  remove(record: DealRecord): Promise<void>;
}

/**
 * Opens the records kept in `folder`, one small file each, named by client and nonce.
 * @throws file-damaged
 */
export async function openDealRecords(folder: string): Promise<DealRecords> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const records = new Map<string, DealRecord>();
  const byId = new Map<bigint, DealRecord>();
  const lastWrite = new Map<string, Promise<void>>();
  const remember = (record: DealRecord) => {
    records.set(nameOf(record.terms.client, record.terms.clientNonce), record);
    if (record.dealId !== undefined) byId.set(record.dealId, record);
  };
  const inTurn = (name: string, work: () => Promise<void>): Promise<void> => {
    const turn = (lastWrite.get(name) ?? Promise.resolve()).catch(() => {}).then(work);
    lastWrite.set(name, turn);
    return turn.finally(() => {
      if (lastWrite.get(name) === turn) lastWrite.delete(name);
    });
  };
  for (const name of await readdir(folder)) {
    if (name.endsWith('.json')) remember(recordFromJson(await readJsonFile(join(folder, name))));
  }
  return {
    all: () => [...records.values()],
    byId: (dealId) => byId.get(dealId),
    byNonce: (client, clientNonce) => records.get(nameOf(client, clientNonce)),
    save(record) {
      remember(record);
      const name = nameOf(record.terms.client, record.terms.clientNonce);
      const text = recordToJson(record);
      return inTurn(name, () => writeDurably(join(folder, name), text));
    },
    remove(record) {
      const name = nameOf(record.terms.client, record.terms.clientNonce);
      records.delete(name);
      if (record.dealId !== undefined) byId.delete(record.dealId);
      return inTurn(name, async () => {
        await rm(join(folder, name), { force: true });
        await syncFolder(folder);
      });
    },
  };
}

function nameOf(client: Hex, clientNonce: bigint): string {
  return `${client.toLowerCase().slice(2)}-${clientNonce.toString(16)}.json`;
}

function recordToJson(record: DealRecord): string {
  const { terms, dealId, activateBy, ...rest } = record;
  return JSON.stringify({ ...rest, terms: termsToJson(terms), dealId: dealId?.toString(), activateBy: activateBy?.toString() });
}

function recordFromJson(value: unknown): DealRecord {
  const raw = value as Omit<DealRecord, 'terms' | 'dealId' | 'activateBy'> & { terms: unknown; dealId?: string; activateBy?: string };
  return {
    ...raw,
    terms: termsFromJson(raw.terms),
    dealId: raw.dealId === undefined ? undefined : BigInt(raw.dealId),
    activateBy: raw.activateBy === undefined ? undefined : BigInt(raw.activateBy),
  };
}
