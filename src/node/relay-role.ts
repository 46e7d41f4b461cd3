import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { recoverAddress } from '../chain/index.ts';
import { type RelayNetwork, type RelayReceipt, startRelay, type TransportIdentity } from '../connect/index.ts';
import { writeFileDurably } from '../durable-file.ts';
import { openReceiver, startClaimer } from '../token/index.ts';
import { createRelayTill, RELAY_CLAIM_SECONDS, RELAY_WITHDRAW_SECONDS } from './relay-payments.ts';
import { type RelaySettings, relayTerms } from './relay-settings.ts';
import type { Role, RoleContext } from './role.ts';

/** The network as relays and nodes name it in what they sign. */
export function relayNetworkOf(client: RoleContext['client']): RelayNetwork {
  return { chainId: client.chainId, operators: client.address('operators') };
}

/**
 * Starts the role that carries connections to nodes without a port. It keeps each session's last receipt, signed by the node.
 * @throws bad-relay-setting
 */
export async function startRelayRole(context: RoleContext & { identity: TransportIdentity; relay?: RelaySettings }): Promise<Role> {
  const { client, operatorId, log, folder } = context;
  const terms = relayTerms(operatorId, context.relay);
  const earning = terms.pricePerGib > 0n ? await openEarnings(context) : undefined;
  const receipts = join(folder, 'receipts');
  mkdirSync(receipts, { recursive: true, mode: 0o700 });
  const relay = startRelay({
    ...context,
    terms,
    network: relayNetworkOf(client),
    recover: recoverAddress,
    operatorOf: async (nodeKey) => {
      const id = await client.read('operators', 'operatorOfNodeKey', [nodeKey as `0x${string}`]);
      return id === 0n ? undefined : { operatorId: id, transportKey: (await client.read('operators', 'operator', [id])).transportKey };
    },
    onReceipt: (receipt) => keepReceipt(receipts, receipt),
    till: earning?.till,
  });
  log.info('relay-started', { tunnelsMax: terms.tunnelsMax, bytesPerSecond: terms.bytesPerSecond });
  return {
    name: 'relay',
    door: relay,
    fetch: (request) => relay.fetch(request),
    metrics() {
      const tunnels = relay.tunnels();
      const values = {
        millrace_relay_tunnels_count: tunnels.length,
        millrace_relay_streams_count: tunnels.reduce((sum, tunnel) => sum + tunnel.streams(), 0),
        millrace_relay_carried_bytes_total: relay.bytesCarried(),
      };
      return metricLines(values, operatorId);
    },
    async status() {
      const tunnels = relay.tunnels().map((tunnel) => ({
        operatorId: tunnel.guest.operatorId,
        streams: tunnel.streams(),
        bytesCarried: tunnel.bytesCarried(),
        unacknowledgedBytes: tunnel.unacknowledgedBytes(),
      }));
      return { terms, bytesCarried: relay.bytesCarried(), tunnels, ...earning?.status() };
    },
    drain: () => relay.setOpen(false),
    resume: () => relay.setOpen(true),
    async leave() {
      relay.setOpen(false);
      await relay.settle();
      await earning?.claimNow();
      return { tunnelsLeft: relay.tunnels().length, ...earning?.status() };
    },
    settle: () => relay.settle(),
    async stop() {
      await relay.stop();
      await earning?.stop();
    },
  };
}

/** Takes payments at the node key, and claims them. Vouchers are in the role's folder: what they are worth is lost with it. */
async function openEarnings({ client, signer, sender, operatorId, folder, log }: RoleContext) {
  const receiver = await openReceiver({
    client,
    receiver: signer.address,
    folder: join(folder, 'earned'),
    tokens: ['network'],
    claimIntervalSeconds: RELAY_CLAIM_SECONDS,
    withdrawDelaySeconds: RELAY_WITHDRAW_SECONDS,
  });
  const claimer = startClaimer({ client, receiver, sender, intervalSeconds: RELAY_CLAIM_SECONDS, log });
  return {
    till: createRelayTill({ client, relayOperatorId: operatorId, receiver }),
    claimNow: () => claimer.claimNow(),
    /** Base units of the network's token. */
    status() {
      const channels = [...receiver.channels()];
      return {
        earned: channels.reduce((sum, { charged }) => sum + charged, 0n),
        claimed: channels.reduce((sum, { claimed }) => sum + claimed, 0n),
      };
    },
    async stop() {
      await claimer.stop();
      await receiver.close();
    },
  };
}

/** Metrics in the Prometheus text format. */
export function metricLines(values: Record<string, number | bigint>, operatorId: bigint): string {
  return Object.entries(values)
    .map(([name, value]) => `# TYPE ${name} ${name.endsWith('_total') ? 'counter' : 'gauge'}\n${name}{operator="${operatorId}"} ${value}\n`)
    .join('');
}

/** One file for each node: its last session's last receipt. */
function keepReceipt(folder: string, receipt: RelayReceipt & { signature: string }): void {
  const text = JSON.stringify(receipt, (_key, value) => (typeof value === 'bigint' ? value.toString() : value));
  writeFileDurably(join(folder, `${receipt.operatorId}.json`), `${text}\n`);
}
