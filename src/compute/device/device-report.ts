import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileDurably } from '../../durable-file.ts';
import { MillraceError } from '../../errors.ts';
import type { Executor, ExecutorReport } from '../../host/index.ts';
import { benchmarkDevice, type DeviceScores } from './benchmark.ts';
import { classOf } from './device-class.ts';
import { type DeviceFacts, detectDevice } from './device-facts.ts';

/** A machine, what it scores, the class that follows, and what is said of it in its offer. */
export interface DeviceReport {
  facts: DeviceFacts;
  scores: DeviceScores;
  deviceClass: string;
  /** Shown with the offer, whose hash is on chain: what renters can ask for by `device.attributes`. */
  attributes: Record<string, string>;
}

/** How a machine is looked at. */
export interface DeviceReportOptions {
  /** Where the node keeps its data, and jobs theirs. */
  folder: string;
  executors: readonly Executor[];
  /** Told what is looked at or measured now. */
  onProgress?: (what: string) => void;
  /** How long each measurement takes at least. */
  milliseconds?: number;
}

/**
 * Looks at a machine and measures it: about three seconds.
 * @throws benchmark-failed, and the file system's errors
 */
export async function reportDevice(options: DeviceReportOptions): Promise<DeviceReport> {
  const { folder, executors, onProgress = () => undefined, milliseconds } = options;
  mkdirSync(folder, { recursive: true });
  onProgress('devices');
  const facts = await detectDevice({ folder, executors });
  const scores = await benchmarkDevice({
    folder,
    cores: facts.cores,
    memoryBytes: facts.memoryBytes,
    onProgress,
    ...(milliseconds === undefined ? {} : { milliseconds }),
  });
  return { facts, scores, deviceClass: classOf(facts, scores), attributes: attributesOf(facts, scores) };
}

const REPORT = 'device.json';

/** What is said of a machine in its offer. Its own word: nothing here is proven. */
export function attributesOf(facts: DeviceFacts, scores: DeviceScores): Record<string, string> {
  const { graphics } = facts;
  const gpus = graphics.map(({ vendor, model }) => `${vendor} ${model}`);
  return {
    architecture: facts.architecture,
    processor: facts.processor,
    instructions: facts.instructions.join(' '),
    virtualisation: facts.virtualisation,
    engines: facts.engines
      .filter(({ takesForeign }) => takesForeign)
      .map(({ engine }) => engine)
      .sort()
      .join(' '),
    ...Object.fromEntries(Object.entries(scores).map(([name, score]) => [`score.${name}`, String(score)])),
    // No engine hands a GPU to a job yet: it is named, never offered.
    ...(gpus.length === 0 ? {} : { 'graphics.unused': gpus.sort().join(', ').slice(0, 200) }),
  };
}

/** Keeps a report in a network's folder, for the nodes that offer this machine. */
export function keepDeviceReport(folder: string, report: DeviceReport): void {
  writeFileDurably(join(folder, REPORT), `${JSON.stringify(report, null, 2)}\n`);
}

/** What the kept report says of this machine; nothing where none was made: then the offer says nothing either. */
export function keptAttributes(folder: string): Record<string, string> {
  const path = join(folder, REPORT);
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as DeviceReport).attributes : {};
}

/**
 * The engines that hold strangers' jobs to every limit here.
 * @throws no-foreign-engine with what is missing of each engine, and how to mend it
 */
export async function requireForeignEngines(executors: readonly Executor[]): Promise<Executor[]> {
  const reports = await Promise.all(executors.map(async (executor) => ({ executor, report: await executor.inspect() })));
  const able = reports.filter(({ report }) => report.takesForeign).map(({ executor }) => executor);
  if (able.length > 0) return able;
  throw noForeignEngine(reports.map(({ report }) => report));
}

function noForeignEngine(reports: readonly ExecutorReport[]): MillraceError {
  const missing = reports.flatMap(({ engine, missing: lacks }) => lacks.map(({ what, fix }) => ({ what: `${engine}: ${what}`, fix })));
  return new MillraceError('no-foreign-engine', {
    actor: 'host',
    message: `This machine cannot hold a stranger's work to its limits: ${missing.map(({ what }) => what).join('; ') || 'it has no engine'}`,
    values: { missing: missing.map(({ what }) => what) },
    hint: [...new Set(missing.map(({ fix }) => fix))].join(' ') || 'apt-get install bubblewrap util-linux.',
  });
}
