import {
  byName,
  DEPLOYMENT_FORMAT,
  type DeploymentGroup,
  type DeploymentSpec,
  type DeploymentUnit,
  type SpecPlaces,
  type Workload,
} from './deployment-spec.ts';
import type { Field } from './field.ts';
import { COUNT_MAX, type DeviceNeeds } from './needs.ts';
import { type Placement, readPlacement } from './sdl-placement.ts';
import { type ComputeProfile, readComputeProfile, volumesOf } from './sdl-resources.ts';
import { checkEndpoints, readWorkload, type SdlWorkload } from './sdl-workload.ts';

const SDL_FIELDS = ['version', 'include', 'services', 'profiles', 'deployment', 'endpoints', 'reclamation'];
const NAME = /^[a-z](?:[a-z0-9_-]{0,61}[a-z0-9])?$/;
const UNITS_MAX = 256;
const WINDOW_SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600 };

/**
 * Reads an Akash SDL, version 2.0 or 2.1. What Akash refuses is refused with its place; what has no meaning here is refused as unsupported
 * where the deployment would be another one without it, else taken with a warning.
 * Source: the SDL syntax reference at akash.network/docs and `go/sdl/sdl-input.schema.yaml` of akash-network/chain-sdk.
 * @throws bad-spec, spec-unsupported
 */
export function readSdl(root: Field): { spec: DeploymentSpec; places: SpecPlaces } {
  const fields = root.fields(SDL_FIELDS);
  const version = root.required(fields, 'version').oneOf(['2.0', '2.1']);
  if (fields.include !== undefined) throw fields.include.unsupported('a document is one file', 'Put everything into one file.');
  const workloads = readWorkloads(root.required(fields, 'services'), version);
  const profiles = root.required(fields, 'profiles');
  const { compute, placement } = profiles.fields(['compute', 'placement']);
  const computes = named(profiles.required({ compute }, 'compute'), readComputeProfile);
  const placements = named(profiles.required({ placement }, 'placement'), readPlacement);
  const groups = readGroups(root.required(fields, 'deployment'), { workloads, computes, placements });
  checkEndpoints(fields.endpoints, [...workloads.values()]);
  const used = new Set(groups.flatMap((group) => group.units.map((unit) => unit.workload)));
  for (const [name, { field }] of workloads) if (!used.has(name)) field.warn('it is not in deployment and is left out');
  const spec: DeploymentSpec = {
    format: DEPLOYMENT_FORMAT,
    workloads: [...workloads.values()]
      .map(({ workload }) => workload)
      .filter(({ name }) => used.has(name))
      .sort(byName),
    groups,
    isInterruptible: fields.reclamation !== undefined,
    noticeSeconds: fields.reclamation === undefined ? 0 : readReclamation(fields.reclamation),
  };
  return { spec, places: new Map([...workloads].map(([name, { places }]) => [name, places])) };
}

function named<Value>(field: Field, read: (field: Field) => Value): Map<string, Value> {
  return new Map(field.entries().map(([name, each]) => [checkedName(name, each), read(each)]));
}

function checkedName(name: string, field: Field): string {
  if (!NAME.test(name)) throw field.refuse('a name begins with a-z and has at most 63 of a-z, 0-9, - and _, none of the two last');
  return name;
}

function readWorkloads(field: Field, version: '2.0' | '2.1'): Map<string, SdlWorkload> {
  const entries = field.entries();
  const names = entries.map(([name, each]) => checkedName(name, each));
  const workloads = new Map(entries.map(([name, each]) => [name, readWorkload(each, { name, names, version })]));
  for (const [name, { field: at }] of workloads) {
    if (waitsForItself(name, workloads)) throw at.refuse('it waits for itself: the dependencies go round in a circle');
  }
  return workloads;
}

function waitsForItself(name: string, workloads: ReadonlyMap<string, { workload: Workload }>): boolean {
  const seen = new Set<string>();
  const waiting = [...(workloads.get(name)?.workload.startsAfter ?? [])];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    if (next === name) return true;
    if (!seen.has(next)) waiting.push(...(workloads.get(next)?.workload.startsAfter ?? []));
    seen.add(next);
  }
  return false;
}

interface Profiles {
  workloads: ReadonlyMap<string, SdlWorkload>;
  computes: ReadonlyMap<string, ComputeProfile>;
  placements: ReadonlyMap<string, Placement>;
}

function readGroups(field: Field, profiles: Profiles): DeploymentGroup[] {
  const groups = new Map<string, DeploymentUnit[]>();
  for (const [name, places] of field.entries()) {
    const workload = profiles.workloads.get(name);
    if (workload === undefined) throw places.refuse('there is no such service under services');
    for (const [placementName, unit] of places.entries()) {
      const units = groups.get(placementName) ?? [];
      units.push(readUnit(unit, { workload, placementName, profiles }));
      groups.set(placementName, units);
      if (units.length > UNITS_MAX) throw unit.refuse(`more than ${UNITS_MAX} services are placed there`);
    }
  }
  if (groups.size === 0) throw field.refuse('it places nothing');
  const byWorkload = (one: DeploymentUnit, other: DeploymentUnit) => (one.workload < other.workload ? -1 : 1);
  return [...groups].map(([name, units]) => ({ name, units: units.sort(byWorkload) })).sort(byName);
}

function readUnit(field: Field, given: { workload: SdlWorkload; placementName: string; profiles: Profiles }): DeploymentUnit {
  const { workload, placementName, profiles } = given;
  const fields = field.fields(['profile', 'count']);
  const profileField = field.required(fields, 'profile');
  const count = field.required(fields, 'count').integer({ least: 1, greatest: COUNT_MAX });
  const profileName = profileField.text(64);
  const compute = profiles.computes.get(profileName);
  const placement = profiles.placements.get(placementName);
  if (compute === undefined) throw profileField.refuse(`there is no ${JSON.stringify(profileName)} under profiles.compute`);
  if (placement === undefined) throw field.refuse('there is no such placement under profiles.placement');
  const price = placement.prices.get(profileName);
  if (price === undefined) throw field.refuse(`profiles.placement.${placementName}.pricing has no price for ${profileName}`);
  if (workload.workload.enclave === 'cpu-gpu' && compute.gpus === 0) {
    throw field.refuse('the enclave cpu-gpu is asked for, but its profile has no gpu');
  }
  return {
    workload: workload.workload.name,
    count,
    needs: needsOf(compute, placement, workload.workload),
    volumes: volumesOf(compute, workload.mounts, workload.field),
    ...(price.priceMax === undefined ? {} : { priceMax: price.priceMax }),
  };
}

function needsOf(compute: ComputeProfile, placement: Placement, workload: Workload): DeviceNeeds {
  const attributes = { ...placement.attributes };
  if (compute.architecture !== undefined) attributes.architecture = compute.architecture;
  if (workload.enclave !== undefined) attributes.enclave = workload.enclave;
  return {
    milliCpus: compute.milliCpus,
    memoryBytes: compute.memoryBytes,
    diskBytes: compute.diskBytes,
    gpus: compute.gpus,
    gpuModels: compute.gpuModels,
    regions: placement.regions,
    attributes,
  };
}

function readReclamation(field: Field): number {
  const window = field.required(field.fields(['min_window']), 'min_window');
  const text = window.matching(/^[1-9]\d{0,8}[smh]$/, 'a whole number with s, m or h, such as 24h', 16);
  return Number(text.slice(0, -1)) * (WINDOW_SECONDS[text.slice(-1)] as number);
}
