import { hexToString } from 'viem';
import type { ChainClient } from '../../chain/index.ts';
import { MillraceError, toMillraceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { type DeviceRank, readBestRanks, weighHealth } from '../health/device-rank.ts';
import { chooseDevices } from '../schedule/choose.ts';
import { createDeviceIndex } from '../schedule/device-index.ts';
import type { DeviceView, DeviceWish } from '../schedule/device-view.ts';
import { refusalOf } from '../schedule/refusal.ts';
import type { JobSpec } from '../spec/job-spec.ts';
import type { DeviceNeeds } from '../spec/needs.ts';
import { fetchOffer, type JobPeer } from './job-api.ts';
import { type JobOffer, type PriceToken, priceOf, whyNot } from './job-offer.ts';

/** A provider that answered, and what it offers. */
export interface JobCandidate {
  peer: JobPeer;
  region: string;
  offer: JobOffer;
  isBusy: boolean;
  /** The best of its devices by the posted figures of health; undefined where none has a seat. */
  health: DeviceRank | undefined;
}

/** What a renter wants of a provider. */
export interface ProviderWish {
  spec: JobSpec;
  needs: DeviceNeeds;
  token: PriceToken;
  /** The most for the run, base units; undefined: whatever the cheapest asks. */
  priceMax: bigint | undefined;
  now: number;
  /** Operators that failed at this before. */
  excluded: ReadonlySet<bigint>;
}

const ASKED_AT_ONCE = 16;
const CLASS = 'job';

/** One operator as it is reached. */
export async function jobPeerOf(client: ChainClient, operatorId: bigint): Promise<JobPeer & { region: string }> {
  const { nodeKey, transportKey, endpoint, region } = await client.read('operators', 'operator', [operatorId]);
  return { operatorId, nodeKey, transportKey, endpoint, region: hexToString(region, { size: 32 }).replaceAll('\0', '') };
}

/** Asks every operator that says where it is for its offer of jobs; who does not answer, or offers none, is left out. */
export async function surveyProviders(
  client: ChainClient,
  { log, signal }: { log: Logger; signal?: AbortSignal },
): Promise<JobCandidate[]> {
  const [count, health] = await Promise.all([client.read('operators', 'operatorCount'), readBestRanks(client)]);
  const found: JobCandidate[] = [];
  const ids = Array.from({ length: Number(count) }, (_, index) => BigInt(index + 1));
  const ask = async (operatorId: bigint) => {
    try {
      const { region, ...peer } = await jobPeerOf(client, operatorId);
      if (peer.endpoint === '') return;
      const { offer, isBusy } = await fetchOffer(client, peer, { signal });
      found.push({ peer, region, offer, isBusy, health: health.get(operatorId) });
    } catch (error) {
      signal?.throwIfAborted();
      const { code, message } = toMillraceError(error);
      log.debug('no-job-offer', { operatorId, code, reason: message });
    }
  };
  const worker = async () => {
    for (let id = ids.shift(); id !== undefined; id = ids.shift()) await ask(id);
  };
  await Promise.all(Array.from({ length: ASKED_AT_ONCE }, worker));
  return found;
}

/**
 * The best provider for a job, by the scheduler's rules: what the job asks for, price against the median, standing, fairness.
 * @throws no-job-provider with what hinders each
 */
export function chooseProvider(candidates: readonly JobCandidate[], wish: ProviderWish): { candidate: JobCandidate; price: bigint } {
  const { spec, needs, token, now } = wish;
  const prices = new Map(candidates.map(({ offer }) => [offer.operatorId, priceOf(spec, offer.prices[token]) ?? 0n]));
  const highest = [...prices.values()].reduce((most, price) => (price > most ? price : most), 0n);
  const views = candidates.map((candidate) => viewOf(candidate, wish, prices.get(candidate.offer.operatorId) ?? 0n));
  const wanted: DeviceWish = {
    needs: { ...needs, deviceClass: CLASS },
    count: 1,
    token,
    priceMax: wish.priceMax ?? highest,
    from: now,
    until: now + 1,
    determinism: spec.determinism,
    noticeSecondsMin: 0,
    isInterruptible: true,
    storedBytes: new Map(),
    inputBytes: 0,
    perOperatorMax: 1,
    spares: 0,
    excluded: wish.excluded,
  };
  const index = createDeviceIndex(views);
  const hindered = views.flatMap((view) => refusalOf(view, wanted)?.why.replace(/^/, `operator ${view.operatorId}: `) ?? []);
  if (hindered.length === views.length) throw noProvider(hindered);
  const [chosen] = chooseDevices(index, wanted);
  const candidate = candidates.find(({ offer }) => offer.operatorId === chosen?.operatorId) as JobCandidate;
  return { candidate, price: prices.get(candidate.offer.operatorId) as bigint };
}

/** A provider of jobs as the scheduler sees devices: one a provider; its price is that of this job. */
function viewOf({ offer, region, isBusy, health }: JobCandidate, { spec, now, token }: ProviderWish, price: bigint): DeviceView {
  const hindrance = isBusy ? 'it takes no new jobs now' : whyNot(spec, offer);
  return {
    deviceId: offer.operatorId,
    operatorId: offer.operatorId,
    deviceClass: CLASS,
    region,
    milliCpus: Math.floor(offer.cpus * 1000),
    memoryBytes: offer.memoryBytes,
    diskBytes: offer.diskBytes,
    attributes: { operator: String(offer.operatorId) },
    prices: { stable: 0n, native: 0n, [token]: price },
    from: now,
    until: offer.expiry,
    busy: [],
    takes: offer.classes,
    ...weighHealth(health),
    ...(hindrance === undefined ? {} : { ineligible: hindrance }),
    recentGrants: 0,
    noticeSeconds: Number.POSITIVE_INFINITY,
  };
}

const REASONS_MAX = 10;

function noProvider(reasons: readonly string[]): MillraceError {
  const shown = reasons.slice(0, REASONS_MAX);
  return new MillraceError('no-job-provider', {
    actor: 'caller',
    message: reasons.length === 0 ? 'Nobody offers to run jobs' : `None of ${reasons.length} providers runs this job: ${shown.join('; ')}`,
    values: { asked: reasons.length, reasons: shown },
    hint:
      reasons.length === 0
        ? 'Start nodes with the role compute: millrace up --with storage,compute'
        : 'Pay more, ask for less, or try later.',
  });
}
