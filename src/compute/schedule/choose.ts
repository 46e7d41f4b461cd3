import { MillraceError } from '../../errors.ts';
import { bestFirst, type DeviceIndex, PART_MAX, type Ranked, scoreOf } from './device-index.ts';
import type { DeviceView, DeviceWish } from './device-view.ts';
import { type Refusal, type RefusalCode, refusalOf, slotAfter } from './refusal.ts';

/** Most candidates of one gang (`CANDIDATES_MAX` of DeviceCalendar.sol). */
export const CANDIDATES_MAX = 128;

/** A device that would do, in the form of `DeviceCalendar.Candidate`, and why it stands where it stands. */
export interface ChosenDevice {
  deviceId: bigint;
  /** The slot before its place in the device's calendar; 0: none. */
  hint: bigint;
  operatorId: bigint;
  /** From 0 to 1,000,000. */
  score: number;
  parts: Ranked['parts'];
}

/** What one device says to a wish. */
export interface DeviceAnswer {
  deviceId: bigint;
  /** Place among the candidates from 1; undefined for one that was refused. */
  place: number | undefined;
  refusal: Refusal | undefined;
}

/**
 * The best devices for a wish, best first: as many as are wanted and up to `spares` more, which the contract takes where others were quicker.
 * A gang is found wholly or not at all. Looks at devices in the order of their standing and stops when enough would do; those of operators that
 * store the input are looked at first, since locality is the only part of the score that depends on the work.
 * @throws no-devices with how many devices were refused for which reason, bad-gang
 */
export function chooseDevices(index: DeviceIndex, wish: DeviceWish): ChosenDevice[] {
  checkWish(wish);
  const most = Math.min(CANDIDATES_MAX, wish.count + wish.spares);
  const taken = new Map<bigint, number>();
  const chosen: Ranked[] = [];
  for (const ranked of inOrder(index, wish)) {
    if (chosen.length === most) break;
    const { device } = ranked;
    const ofOperator = taken.get(device.operatorId) ?? 0;
    if (ofOperator >= wish.perOperatorMax || refusalOf(device, wish) !== undefined) continue;
    taken.set(device.operatorId, ofOperator + 1);
    chosen.push(ranked);
  }
  if (chosen.length < wish.count) throw noDevices(index, wish, chosen.length);
  return chosen.map(({ device, standing, parts }) => ({
    deviceId: device.deviceId,
    hint: device.busy[slotAfter(device, wish.from) - 1]?.slotId ?? 0n,
    operatorId: device.operatorId,
    score: standing,
    parts,
  }));
}

/** What every device of the index says to a wish: its place, or why it has none. Looks at all of them; for people who ask. */
export function explainChoice(index: DeviceIndex, wish: DeviceWish): DeviceAnswer[] {
  const places = new Map<bigint, number>();
  const ofOperator = new Map<bigint, number>();
  try {
    for (const [place, chosen] of chooseDevices(index, wish).entries()) {
      places.set(chosen.deviceId, place + 1);
      ofOperator.set(chosen.operatorId, (ofOperator.get(chosen.operatorId) ?? 0) + 1);
    }
  } catch (error) {
    if (!(error instanceof MillraceError) || error.code !== 'no-devices') throw error;
  }
  return devicesOf(index).map((device) => {
    const place = places.get(device.deviceId);
    const isFull = (ofOperator.get(device.operatorId) ?? 0) >= wish.perOperatorMax;
    const refusal = place === undefined ? (refusalOf(device, wish) ?? beaten(isFull, places.size > 0)) : undefined;
    return { deviceId: device.deviceId, place, refusal };
  });
}

function beaten(isFull: boolean, isGangFound: boolean): Refusal {
  if (isFull)
    return { code: 'operator-has-enough', why: 'other devices of its operator were taken, and no more of one operator are wanted' };
  return {
    code: 'others-are-better',
    why: isGangFound ? 'it would do, others score higher' : 'it would do, but there are not enough of its kind for the whole gang',
  };
}

/** All devices that may score, best first, with locality counted. */
function* inOrder(index: DeviceIndex, wish: DeviceWish): Generator<Ranked> {
  const near = nearDevices(index, wish);
  const { deviceClass } = wish.needs;
  const lists = [...index.classes]
    .filter(([name]) => deviceClass === undefined || name === deviceClass)
    .map(([, byToken]) => ({ list: byToken[wish.token], at: 0 }));
  const isNear = wish.inputBytes > 0 ? wish.storedBytes : new Map<bigint, number>();
  lists.push({ list: near, at: 0 });
  for (;;) {
    let best: { list: readonly Ranked[]; at: number } | undefined;
    for (const each of lists) {
      if (each.list !== near) skipNear(each, isNear);
      const head = each.list[each.at];
      const bestHead = best?.list[best.at];
      if (head !== undefined && (bestHead === undefined || bestFirst(head, bestHead) < 0)) best = each;
    }
    if (best === undefined) return;
    yield best.list[best.at] as Ranked;
    best.at += 1;
  }
}

function skipNear(place: { list: readonly Ranked[]; at: number }, near: ReadonlyMap<bigint, number>): void {
  for (let head = place.list[place.at]; head !== undefined && near.has(head.device.operatorId); head = place.list[place.at]) place.at += 1;
}

function nearDevices(index: DeviceIndex, wish: DeviceWish): Ranked[] {
  if (wish.inputBytes <= 0) return [];
  const near: Ranked[] = [];
  for (const [operatorId, bytes] of wish.storedBytes) {
    const locality = Math.min(PART_MAX, Math.max(0, Math.floor((PART_MAX * bytes) / wish.inputBytes)));
    for (const device of index.byOperator.get(operatorId) ?? []) {
      const parts = { ...index.rankOf(device, wish.token).parts, locality };
      near.push({ device, parts, standing: scoreOf(parts) });
    }
  }
  return near.sort(bestFirst);
}

function devicesOf(index: DeviceIndex): DeviceView[] {
  return [...index.byOperator.values()].flat();
}

function checkWish({ count, spares, perOperatorMax, from, until }: DeviceWish): void {
  const isWhole = [count, spares, perOperatorMax].every(Number.isSafeInteger);
  if (isWhole && count >= 1 && count <= CANDIDATES_MAX && spares >= 0 && perOperatorMax >= 1 && from < until) return;
  throw new MillraceError('bad-gang', {
    actor: 'caller',
    message: `Got ${count} devices with ${spares} spares, ${perOperatorMax} of one operator, from ${from} to ${until}; expected 1 to ${CANDIDATES_MAX} devices for a time that ends after it begins`,
    values: { count, spares, perOperatorMax, from, until },
    hint: 'Ask for fewer devices, or for another time.',
  });
}

function noDevices(index: DeviceIndex, wish: DeviceWish, found: number): MillraceError {
  const counts = new Map<RefusalCode, number>();
  for (const device of devicesOf(index)) {
    const code = refusalOf(device, wish)?.code;
    if (code !== undefined) counts.set(code, (counts.get(code) ?? 0) + 1);
  }
  const reasons = [...counts].sort(([, one], [, other]) => other - one).map(([code, count]) => `${count} ${code}`);
  return new MillraceError('no-devices', {
    actor: 'caller',
    message: `${wish.count} devices are wanted together, ${found} of ${index.size} would do${reasons.length === 0 ? '' : ` (${reasons.join(', ')})`}`,
    values: { wanted: wish.count, found, offered: index.size, reasons },
    hint: 'Pay more, ask for less, or begin at another time; `millrace explain FILE` says what hinders each device.',
  });
}
