import { type Hex, hexToString } from 'viem';
import { type DeviceHealth, type HealthSnapshot, HealthView, healthToJson, readDevices, readHealthAt } from '../compute/index.ts';
import { MillraceError } from '../errors.ts';
import type { CommandContext } from './context.ts';
import { table } from './output.ts';
import { openSession } from './session.ts';

const HOURS_MAX = 48;

/** The health of all devices as the chain has it, or of one device hour by hour. */
export async function devices(context: CommandContext, device: string | undefined, options: { hours: string }): Promise<void> {
  const hours = numberOf('--hours', options.hours, HOURS_MAX);
  const wanted = device === undefined ? undefined : BigInt(numberOf('device', device, Number.MAX_SAFE_INTEGER));
  const { client } = await openSession(context);
  const snapshot = await readDevices(await HealthView.open(client), hours);
  if (wanted === undefined) return context.output.result({ ...snapshot, next: null }, () => showAll(snapshot));
  const found = snapshot.devices.find(({ deviceId }) => deviceId === wanted);
  if (found === undefined) {
    throw new MillraceError('device-unknown', {
      actor: 'caller',
      message: `Device ${wanted} has no seat now`,
      values: { deviceId: wanted },
      hint: '`millrace devices` lists those that have; a node takes seats for its devices on offer.',
    });
  }
  context.output.result({ ...snapshot, devices: [found], next: null }, () => showOne(found));
}

/** What a node says of its operator's devices, and whether the chain says the same. */
export async function nodeHealth(context: CommandContext, operator: string): Promise<void> {
  const operatorId = BigInt(numberOf('operator', operator, Number.MAX_SAFE_INTEGER));
  const { client } = await openSession(context);
  const { endpoint, transportKey } = await client.read('operators', 'operator', [operatorId]);
  const view = await HealthView.open(client);
  // Both are looked at again when an hour ended, or something became final, between the two looks.
  let [said, own] = [await readHealthAt({ endpoint, transportKey }), await readDevices(view, 1)];
  if (said.text !== healthToJson(own)) [said, own] = [await readHealthAt({ endpoint, transportKey }), await readDevices(view, 1)];
  const agrees = said.text === healthToJson(own);
  const mine = own.devices.filter((device) => device.operatorId === operatorId);
  context.output.result({ operatorId, endpoint, agrees, hour: own.hour, devices: mine }, () =>
    [
      showAll({ ...own, devices: mine }),
      agrees
        ? `The node at ${endpoint} says the same.`
        : `The node at ${endpoint} says something else: it may be behind the chain, or lie. What counts is the chain.`,
    ].join('\n'),
  );
}

function showAll({ hour, hourSeconds, finalThrough, devices: all }: HealthSnapshot): string {
  if (all.length === 0) return 'No device has a seat yet. A compute node takes one for each device that it has on offer.';
  const rows = all.map((device) => [
    device.rank === 0 ? '-' : String(device.rank),
    String(device.deviceId),
    String(device.operatorId),
    className(device.deviceClass as Hex),
    String(device.performance),
    percent(device.uptimeBps),
    percent(device.stabilityBps),
    percent(device.recordBps),
    device.reason === 'none' ? 'earns' : device.reason,
  ]);
  return [
    `Hour ${hour} of ${hourSeconds} s runs; final through hour ${finalThrough}.`,
    table(['rank', 'device', 'operator', 'class', 'performance', 'up', 'stability', 'record', 'state'], rows),
  ].join('\n');
}

function showOne(device: DeviceHealth): string {
  const rows = device.hours.map(({ hour, state, performance, reason, upBps, statements }) => [
    String(hour),
    state,
    String(performance),
    reason === 'none' ? 'earns' : reason,
    percent(upBps),
    statements
      .map(
        ({ operatorId, verdict, bandwidthKbs, latencyUs }) =>
          `${operatorId}: ${verdict} ${bandwidthKbs} kB/s ${(latencyUs / 1000).toFixed(1)} ms`,
      )
      .join('; '),
  ]);
  return [
    `Device ${device.deviceId} of operator ${device.operatorId}, class ${className(device.deviceClass as Hex)}, seat ${device.seat}: declared ${device.rate} million products and ${device.memoryMbs} MB a second.`,
    table(['hour', 'state', 'performance', 'reason', 'up', 'partners said'], rows),
  ].join('\n');
}

function className(deviceClass: Hex): string {
  return hexToString(deviceClass, { size: 32 }).replace(/[^\x20-\x7e]/g, '?');
}

function percent(bps: number): string {
  return `${(bps / 100).toFixed(1)} %`;
}

function numberOf(name: string, text: string, max: number): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= 1 && value <= max) return value;
  throw new MillraceError('bad-option', {
    actor: 'caller',
    message: `Got ${name} ${text.slice(0, 20)}, expected a whole number from 1 to ${max}`,
    values: { option: name, got: text.slice(0, 20) },
  });
}
