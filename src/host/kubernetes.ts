import type { Executor } from './executor.ts';
import type { KubernetesAccess } from './kubernetes-api.ts';

/** A cluster of Kubernetes whose owner runs jobs of the network on it. */
export interface KubernetesOptions extends KubernetesAccess {
  /** Where all jobs are made; nothing else should be in it. */
  namespace: string;
  /** Images are `REPOSITORY:<64 hex digits of the digest>`, put there by the owner: the API takes no archives. */
  repository: string;
  /** A claim for a volume that many machines may write to, and where this process sees the same files: input and artefacts pass through it. */
  claim: string;
  sharedFolder: string;
  /**
   * What the API cannot show, and the owner therefore declares: that the network plugin enforces policies, and that the kubelets limit processes
   * of a pod (`podPidsLimit`) to this number. Jobs of strangers are refused otherwise.
   */
  enforced?: { networkPolicies: true; processesMax: number };
}

/** Kubernetes as an engine. NOT RUN AGAINST A CLUSTER: the calls are tested against the documented contract of the API only. */
export async function openKubernetesExecutor(options: KubernetesOptions): Promise<Executor> {
  const { KubernetesExecutor } = await import('./kubernetes-executor.ts');
  return new KubernetesExecutor(options);
}
