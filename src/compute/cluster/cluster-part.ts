import { MillraceError } from '../../errors.ts';
import { inspectWireguard } from '../../host/index.ts';
import type { LeaseHost } from '../leases/lease-host.ts';
import type { ComputeContext, ComputePart } from '../part.ts';
import { ClusterHost } from './cluster-host.ts';
import { provideImage } from './cluster-image.ts';
import { clusterRoutes } from './cluster-routes.ts';
import { roomOfCapacity, roomOfLeases } from './lease-room.ts';
import { readClusterChain } from './market-on-chain.ts';

/** What taking part in clusters needs beside what every part of a compute node has. */
export interface ClusterPartOptions {
  /** Under which peers reach this machine's UDP ports: a name or an address without a port. */
  publicHost: string;
  /** Folder with the archives of images, `<64 hex digits>.tar`, from which an image is imported when a cluster wants it; those that are fetched by CID are kept there. */
  imageFolder: string;
  /** The part that leases the machine's devices out: a cluster has what its lease was paid for. Left out, it has room of the machine. */
  leases?: LeaseHost;
}

const PREFIX = '/v1/compute/clusters/';

/**
 * Lets a node take part in clusters, by the leases of its operator. It needs root, WireGuard and an engine that has networks of rentals.
 * @throws wireguard-missing, cluster-refused when the machine lacks one of these
 */
export async function startClusterPart(context: ComputeContext, options: ClusterPartOptions): Promise<ComputePart> {
  const { client, signer, operatorId, log } = context;
  const executor = context.executors.find(({ openNetwork }) => openNetwork !== undefined);
  const [{ kind, missing }, report] = await Promise.all([inspectWireguard(), executor?.inspect()]);
  if (executor === undefined || report?.takesForeign !== true || kind === undefined) {
    const engineLacks = report?.missing ?? [{ what: 'an engine with networks of rentals', fix: 'Start Docker.' }];
    const lacks = [...missing, ...engineLacks];
    throw new MillraceError('wireguard-missing', {
      actor: 'host',
      message: `This machine cannot take part in clusters: it lacks ${lacks.map(({ what }) => what).join(', ')}`,
      values: { missing: lacks.map(({ what }) => what) },
      hint: lacks.map(({ fix }) => fix).join(' '),
    });
  }
  const host = new ClusterHost({
    chain: readClusterChain(client),
    operatorId,
    signer,
    executor,
    folder: context.folder,
    publicHost: options.publicHost,
    room: options.leases === undefined ? roomOfCapacity(context.capacity) : roomOfLeases(options.leases),
    provideImage: (image) => provideImage(image, { folder: options.imageFolder, executor, fetchContent: context.fetchContent }),
    log,
  });
  await host.start();
  const routes = clusterRoutes(host);
  return {
    fetch: (request) => (new URL(request.url).pathname.startsWith(PREFIX) ? Promise.resolve(routes.fetch(request)) : undefined),
    metrics: () => `# TYPE millrace_compute_clusters_count gauge\nmillrace_compute_clusters_count ${host.clusters().length}\n`,
    status: async () => ({ wireguard: kind, clusters: host.clusters() }),
    drain: () => host.drain(true),
    resume: () => host.drain(false),
    leave: async () => {
      host.drain(true);
      return { clusters: host.clusters() };
    },
    stop: () => host.close(),
  };
}
