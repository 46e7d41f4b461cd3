import { MillraceError } from '../../errors.ts';
import { seededRandom } from '../consensus/seeded-random.ts';
import { copier, favouring, honest, type Opinion, type SimulatedMiner, type SimulatedValidator, silent } from './population.ts';

/** Validators that act alike; their stake is that of all of them together, in any unit. */
export type ValidatorGroup = { group: string; count: number; stake: number } & (
  | { does: 'judge'; noise: number }
  | { does: 'copy'; lag: number }
  | { does: 'favour'; whom: string; weight: number; noise: number }
  | { does: 'silent' }
);

/** Miners of one quality; with `churn` each draws a new one every so many epochs, at most that quality. */
export interface MinerGroup {
  group: string;
  count: number;
  quality: number;
  churn: number;
}

/** A population as groups. */
export interface PopulationGroups {
  validators: readonly ValidatorGroup[];
  miners: readonly MinerGroup[];
}

const VALIDATORS_MAX = 64;
const UIDS_MAX = 512;
const GROUP_FIELDS = ['group', 'count', 'stake', 'does', 'noise', 'lag', 'whom', 'weight', 'quality', 'churn'];

/** The validators and miners of the groups, their random qualities by the seed. @throws bad-population */
export function populate(groups: PopulationGroups, seed: number): { validators: SimulatedValidator[]; miners: SimulatedMiner[] } {
  checkGroups(groups);
  const groupOf = groups.miners.flatMap(({ group, count }) => Array.from({ length: count }, () => group));
  const validators = groups.validators.flatMap((group) =>
    Array.from({ length: group.count }, () => ({
      group: group.group,
      stake: group.stake / group.count,
      opinion: opinionOf(group, groupOf),
      copies: group.does === 'copy' && group.lag === 0,
    })),
  );
  const miners = groups.miners.flatMap((group) => Array.from({ length: group.count }, () => group));
  return { validators, miners: miners.map((group, place) => ({ group: group.group, quality: qualityOf(group, place, seed) })) };
}

function opinionOf(group: ValidatorGroup, groupOf: readonly string[]): Opinion {
  switch (group.does) {
    case 'judge':
      return honest(group.noise);
    case 'copy':
      return copier(group.lag);
    case 'favour':
      return favouring(group.weight, (miner) => groupOf[miner] === group.whom, group.noise);
    case 'silent':
      return silent;
  }
}

/** Squares of even draws: few good miners, many middling ones. */
function qualityOf({ quality, churn }: MinerGroup, place: number, seed: number): (epoch: number) => number {
  if (churn === 0) return () => quality;
  return (epoch) => quality * seededRandom(seed * 7919 + place * 1000 + Math.floor((epoch + (place % churn)) / churn)).fraction() ** 2;
}

/**
 * Groups out of JSON, as a file of `millrace simulate subnet --population` has them. `noise`, `churn` and `lag` may be left out (0.1, 0, 1),
 * `count` and `weight` too (1), and `whom` is the group itself.
 * @throws bad-population with what is wrong
 */
export function readGroups(value: unknown): PopulationGroups {
  const lists = value as { validators?: unknown; miners?: unknown } | null;
  if (typeof lists !== 'object' || lists === null || !Array.isArray(lists.validators) || !Array.isArray(lists.miners)) {
    throw badPopulation(['no lists "validators" and "miners"']);
  }
  const left = { count: 1, noise: 0.1, lag: 1, weight: 1, churn: 0 };
  const read = (group: unknown): unknown => ({ ...left, whom: nameOf(group), ...fieldsOf(group) });
  // Whatever is read passes the checks below before anything is made of it.
  const groups = { validators: lists.validators.map(read), miners: lists.miners.map(read) } as PopulationGroups;
  checkGroups(groups);
  return groups;
}

function fieldsOf(group: unknown): object {
  if (typeof group !== 'object' || group === null) throw badPopulation(['a group that is no object']);
  const unknown = Object.keys(group).filter((name) => !GROUP_FIELDS.includes(name));
  if (unknown.length > 0) throw badPopulation(unknown.map((name) => `an unknown field ${name.slice(0, 40)}`));
  return group;
}

function nameOf(group: unknown): string {
  return String((group as { group?: unknown } | null)?.group);
}

function checkGroups({ validators, miners }: PopulationGroups): void {
  const isCount = (value: unknown) => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
  const isAmount = (value: unknown) => typeof value === 'number' && Number.isFinite(value) && value >= 0;
  const isShare = (value: unknown) => isAmount(value) && (value as number) <= 1;
  const faults = [
    ...validators.flatMap((group) => [
      !isCount(group.count) && `count ${group.count} of validators`,
      !isAmount(group.stake) && `stake ${group.stake}`,
      !['judge', 'copy', 'favour', 'silent'].includes(group.does) && `does ${group.does}, not judge, copy, favour or silent`,
      'noise' in group && !isAmount(group.noise) && `noise ${group.noise}`,
      'lag' in group && !isCount(group.lag) && `lag ${group.lag}`,
      'weight' in group && !isShare(group.weight) && `weight ${group.weight}, not a share from 0 to 1`,
    ]),
    ...miners.flatMap((group) => [
      !isCount(group.count) && `count ${group.count} of miners`,
      !isAmount(group.quality) && `quality ${group.quality}`,
      !isCount(group.churn) && `churn ${group.churn}`,
    ]),
    [...validators, ...miners].some(({ group }) => typeof group !== 'string' || !/^[\w .-]{1,40}$/.test(group)) &&
      'a group without a plain name of at most 40 letters',
  ].filter((fault) => fault !== false);
  if (faults.length > 0) throw badPopulation(faults);
  const judges = validators.reduce((total, { count }) => total + count, 0);
  const uids = miners.reduce((total, { count }) => total + count, judges);
  if (judges < 1 || judges > VALIDATORS_MAX) faults.push(`${judges} validators, not 1 to ${VALIDATORS_MAX}`);
  if (uids > UIDS_MAX) faults.push(`${uids} uids, more than ${UIDS_MAX}`);
  if (!validators.some(({ stake, count }) => stake > 0 && count > 0)) faults.push('no stake');
  if (faults.length > 0) throw badPopulation(faults);
}

/** The error of a population that cannot be simulated, with all that is wrong with it. */
export function badPopulation(faults: readonly string[]): MillraceError {
  return new MillraceError('bad-population', {
    actor: 'caller',
    message: `This population cannot be simulated: got ${faults.slice(0, 8).join('; ').slice(0, 500)}`,
    values: { faults: faults.slice(0, 8) },
    hint: 'Run `millrace simulate subnet --help` for the options and examples.',
  });
}
