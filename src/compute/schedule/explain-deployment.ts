import { type DeviceOffer, viewOf } from '../leases/market-offers.ts';
import type { DeploymentSpec } from '../spec/deployment-spec.ts';
import { priceUnits } from '../spec/needs.ts';
import { type DeviceAnswer, explainChoice } from './choose.ts';
import { createDeviceIndex } from './device-index.ts';

/** What the market says to one unit of a deployment. */
export interface ExplainedUnit {
  group: string;
  workload: string;
  count: number;
  token: 'stable' | 'native';
  /** Devices with a place, best first, then the refused ones with why. */
  answers: DeviceAnswer[];
}

/** What a deployment is weighed with. */
export interface ExplainOptions {
  offers: readonly DeviceOffer[];
  /** Protocol time, seconds. */
  now: bigint;
  /** Notice of the market before a device is taken back. */
  noticeSeconds: number;
  decimals: Readonly<Record<'stable' | 'native', number>>;
}

const HOUR_SECONDS = 3600;
/** Reservations begin some seconds after they are sent. */
const LEAD_SECONDS = 60;
const ANY_PRICE = 1n << 120n;

/** Which of the devices on offer would do for each unit of a deployment, in which order, and why each of the others would not. */
export function explainDeployment(spec: DeploymentSpec, options: ExplainOptions): ExplainedUnit[] {
  const { offers, now, noticeSeconds, decimals } = options;
  const { isInterruptible } = spec;
  const index = createDeviceIndex(offers.map((offer) => viewOf(offer, { isInterruptible, noticeSeconds })));
  const from = Number(now) + LEAD_SECONDS;
  return spec.groups.flatMap((group) =>
    group.units.map(({ workload, count, needs, priceMax }) => {
      const token = priceMax?.token ?? 'stable';
      const answers = explainChoice(index, {
        needs,
        count,
        token,
        priceMax: priceMax === undefined ? ANY_PRICE : priceUnits(priceMax.amount, decimals[token]),
        from,
        until: from + (spec.seconds ?? HOUR_SECONDS),
        determinism: 'none',
        noticeSecondsMin: spec.noticeSeconds,
        isInterruptible,
        storedBytes: new Map(),
        inputBytes: 0,
        perOperatorMax: count,
        spares: 0,
        excluded: new Set(),
      });
      answers.sort((one, other) => (one.place ?? Number.MAX_VALUE) - (other.place ?? Number.MAX_VALUE));
      return { group: group.name, workload, count, token, answers };
    }),
  );
}
