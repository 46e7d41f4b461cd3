import { join } from 'node:path';
import { connectChain, createSender, type Manifest, type Signer } from '../chain/index.ts';
import { openTransportIdentity, startPeerServer } from '../connect/index.ts';
import { MillraceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { ComputeSettings } from './compute-settings.ts';
import type { InferenceSettings } from './inference-settings.ts';
import { answerRequest } from './node-answer.ts';
import { isDraining, startNodeControl } from './node-control.ts';
import { directEndpointOf, startReachRole } from './reach-role.ts';
import type { RelayedBy, RelaySettings } from './relay-settings.ts';
import type { RetrieverSettings } from './retriever-role.ts';
import type { Role } from './role.ts';
import { needsNoOperator, startRole } from './roles.ts';
import type { AskSettings } from './storage-policy.ts';

const RELAY_CONNECTIONS_MAX = 8192;

/** What a node needs to start. */
export interface NodeOptions {
  folder: string;
  manifest: Manifest;
  rpcUrl: string;
  signer: Signer;
  roles: readonly string[];
  host?: string;
  /** 0 takes any free port. */
  port: number;
  /** Disk that the node offers, bytes. */
  quotaBytes: bigint;
  /** What the operator asks for; defaults for what is absent. */
  ask?: AskSettings;
  /** The terms of the role `relay`; defaults for what is absent. */
  relay?: RelaySettings;
  /** How a retriever sells; defaults for what is absent. */
  retriever?: RetrieverSettings;
  /** How a miner serves and a validator judges; defaults for what is absent. */
  inference?: InferenceSettings;
  /** What a compute node gives and asks for; defaults for what is absent. */
  compute?: ComputeSettings;
  /** The network's folder on this machine, where nodes share what is large; default: the node's own. */
  dataFolder?: string;
  /** `https://host:port` where others reach it, for a node that is on no chain. */
  endpoint?: string;
  /** By whom the node lets itself be relayed when it has no inbound port; `none` when absent. */
  relayedBy?: RelayedBy;
  /** Unix-domain socket on which the node is told to drain or leave; none when absent. */
  controlSocket?: string;
  log: Logger;
}

/** A running node. */
export interface RunningNode {
  operatorId: bigint;
  host: string;
  port: number;
  transportKey: `0x${string}`;
  stop(): Promise<void>;
}

/**
 * Starts one node: checks the chain against the manifest, finds its operator by the node key, starts its roles and
 * serves them on one port (TLS for nodes, plain HTTP for content that verifies itself).
 * @throws node-not-registered, unknown-role, port-in-use, and the chain's errors
 */
export async function startNode(options: NodeOptions): Promise<RunningNode> {
  const { folder, signer, log } = options;
  const client = await connectChain({ rpcUrl: options.rpcUrl, manifest: options.manifest });
  const operatorId = await client.read('operators', 'operatorOfNodeKey', [signer.address]);
  if (operatorId === 0n && !options.roles.every(needsNoOperator)) {
    throw new MillraceError('node-not-registered', {
      actor: 'caller',
      message: `The node key ${signer.address} belongs to no operator of ${options.manifest.name}`,
      values: { nodeKey: signer.address },
      hint: 'Register it with `millrace provider init`.',
    });
  }
  const identity = await openTransportIdentity(folder);
  const sender = createSender({ client, signer, journalFolder: folder, log });
  const roles: Role[] = [];
  const started = new AbortController();
  const stopRoles = async () => {
    for (const role of roles.splice(0).reverse()) await role.stop();
    sender.close();
  };
  try {
    for (const name of options.roles) {
      const context = {
        client,
        signer,
        sender,
        operatorId,
        folder: join(folder, name),
        log,
        quotaBytes: options.quotaBytes,
        ask: options.ask,
        relay: options.relay,
        retriever: options.retriever,
        inference: options.inference,
        compute: options.compute,
        dataFolder: options.dataFolder ?? folder,
        endpoint: options.endpoint,
        identity,
      };
      roles.push(await startRole(name, context));
    }
    const server = await startPeerServer({
      host: options.host,
      port: options.port,
      identity,
      door: { take: (name, connection) => roles.some((role) => role.door?.take(name, connection) === true) },
      connectionsMax: options.roles.includes('relay') ? RELAY_CONNECTIONS_MAX : undefined,
      fetch: (request) => answerRequest(request, roles, started.signal),
    });
    const mode = options.relayedBy ?? 'none';
    if (mode !== 'none') {
      const context = { client, signer, sender, operatorId, folder: join(folder, 'reach'), log, identity, server, mode };
      roles.push(await startReachRole({ ...context, relay: options.relay, directEndpoint: await directEndpointOf(context) }));
    }
    if (isDraining(folder)) for (const role of roles) role.drain();
    const path = options.controlSocket;
    const control = path === undefined ? undefined : await startNodeControl({ path, folder, operatorId, roles, log });
    return {
      operatorId,
      host: server.host,
      port: server.port,
      transportKey: identity.transportKey,
      async stop() {
        started.abort();
        await control?.stop();
        await Promise.allSettled(roles.map((role) => role.settle?.()));
        await server.stop(2000);
        await stopRoles();
      },
    };
  } catch (error) {
    await stopRoles();
    throw error;
  }
}
