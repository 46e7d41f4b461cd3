import { randomInt } from 'node:crypto';
import { Hono } from 'hono';
import type { CID } from 'multiformats/cid';
import type { Hex } from 'viem';
import type { ChainClient, Sender, Signer } from '../../chain/index.ts';
import { peerFetch } from '../../connect/index.ts';
import { MillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { RAW } from '../content/block.ts';
import { type ContentSource, createBlockFetcher } from '../content/block-fetcher.ts';
import { fetchNode } from '../content/content-reader.ts';
import { type OperatorView, readDeal, readOperator } from '../market/chain-view.ts';
import { readFields } from '../market/fields.ts';
import { cidFromHex } from '../market/terms.ts';
import { problemResponse } from '../pieces/problem.ts';

/** What a checker stands on. */
export interface CheckerOptions {
  client: ChainClient;
  signer: Signer;
  sender: Sender;
  operatorId: bigint;
  log: Logger;
}

/** A seat among the checkers. */
export interface Checker {
  /** Answers `POST /v1/checks/{dealId}`. */
  fetch(request: Request): Promise<Response>;
  /**
   * Reads random parts of a deal's content from its provider, as any client would, and signs when all of them are right.
   * @throws not-drawn, not-open, not-retrievable, checks-full
   */
  check(dealId: bigint): Promise<Hex>;
  checked(): number;
  /** Gives the seat up; its stake is unlocked after a while. */
  leave(): Promise<void>;
}

/** Ways from the root to a block that are followed in one check. */
const WALKS = 6;
const DEPTH_MAX = 32;
const CHECKS_AT_ONCE = 4;
const CHECK_MS = 30_000;

/**
 * Opens the checker of a node: takes a seat, when it has none, and answers providers that ask for a verdict.
 * @throws the contract's errors, for example when too little stake is free
 */
export async function openChecker(options: CheckerOptions): Promise<Checker> {
  const { client, sender, operatorId, log } = options;
  const isSeated = async () => (await client.read('checkers', 'seatOf', [operatorId])) !== 0n;
  if (!(await isSeated())) {
    await sender.send({ contract: 'checkers', functionName: 'enrol', args: [operatorId] });
    log.info('checker-enrolled', { operatorId });
  }
  const running = new Map<bigint, Promise<Hex>>();
  let checked = 0;
  const check = (dealId: bigint): Promise<Hex> => {
    const known = running.get(dealId);
    if (known !== undefined) return known;
    if (running.size >= CHECKS_AT_ONCE) return Promise.reject(refusal('checks-full', dealId, `${CHECKS_AT_ONCE} checks run already`));
    const work = checkDeal(options, dealId)
      .then((signature) => {
        checked += 1;
        return signature;
      })
      .finally(() => running.delete(dealId));
    running.set(dealId, work);
    return work;
  };
  const routes = new Hono().post('/v1/checks/:dealId', async (context) => {
    const dealId = readFields({ dealId: context.req.param('dealId') }, 'path').uint('dealId', 64);
    return context.json({ dealId: dealId.toString(), signature: await check(dealId) });
  });
  routes.onError((error) => problemResponse(error));
  return {
    fetch: async (request) => routes.fetch(request),
    check,
    checked: () => checked,
    async leave() {
      if (await isSeated()) await sender.send({ contract: 'checkers', functionName: 'leave', args: [operatorId] });
    },
  };
}

async function checkDeal({ client, signer, operatorId, log }: CheckerOptions, dealId: bigint): Promise<Hex> {
  const deal = await readDeal(client, dealId);
  if (deal.state !== 'open') throw refusal('not-open', dealId, `it is ${deal.state}`);
  const { seats, payer } = await client.read('checkers', 'requestOf', [dealId]);
  if (BigInt(payer) === 0n || seats.length === 0) throw refusal('not-drawn', dealId, 'nobody has asked for a verdict');
  const drawn = await client.read('checkers', 'drawOf', [dealId]);
  if (!drawn.includes(operatorId)) throw refusal('not-drawn', dealId, `operator ${operatorId} is not drawn for it`);
  const [opened] = await client.events({ name: 'storageMarket', event: 'DealOpened', args: { dealId } });
  if (opened === undefined) throw refusal('not-open', dealId, 'it was never opened');
  const provider = await readOperator(client, deal.operatorId);
  await requireReadable(provider, cidFromHex(opened.args.cid), dealId);
  log.info('content-checked', { dealId, operatorId: deal.operatorId });
  return signer.signDigest(await client.read('checkers', 'retrievableDigest', [dealId]));
}

/**
 * Follows random ways from the root of a content to its leaves; every block must come back and be what its CID says.
 * @throws not-retrievable
 */
export async function requireReadable(provider: OperatorView, root: CID, dealId: bigint): Promise<void> {
  const fetcher = createBlockFetcher({ sources: [sourceOf(provider)], signal: AbortSignal.timeout(CHECK_MS) });
  try {
    for (let walk = 0; walk < WALKS; walk += 1) {
      let at = root;
      for (let depth = 0; at.code !== RAW && depth < DEPTH_MAX; depth += 1) {
        const { links } = await fetchNode(fetcher, at);
        const next = links[links.length === 0 ? 0 : randomInt(links.length)];
        if (next === undefined) break;
        at = next.cid;
      }
      if (at.code === RAW) await fetcher.block(at);
    }
  } catch (cause) {
    throw new MillraceError('not-retrievable', {
      actor: 'peer',
      message: `The content of deal ${dealId} cannot be read from operator ${provider.operatorId}`,
      values: { dealId, operatorId: provider.operatorId },
      hint: 'No signature is given. Serve the content at the gateway of the endpoint that the chain knows.',
      cause,
    });
  }
}

/** A provider as a source of content, its key pinned. */
export function sourceOf(provider: OperatorView): ContentSource {
  return {
    url: provider.endpoint,
    fetch: (url, { headers, signal }) => {
      const { pathname, search } = new URL(url);
      return peerFetch(provider, pathname + search, { headers, signal });
    },
  };
}

function refusal(code: string, dealId: bigint, why: string): MillraceError {
  return new MillraceError(code, { actor: 'caller', message: `Deal ${dealId} is not checked: ${why}`, values: { dealId, why } });
}
